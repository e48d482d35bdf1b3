//! What training requests do, once their turn has come.

use std::sync::Arc;

use tinsmith_wire::{
    GradAccumulationNormalization, LoadWeightsRequest, LoadWeightsResponse, OptimStepRequest,
    OptimizerParams, PassRequest, SaveWeightsForSamplerRequest, SaveWeightsForSamplerResponse,
    SaveWeightsRequest, SaveWeightsResponse, Submitted,
};

use super::{Hub, Request, Sampler};
use crate::bases::Base;
use crate::batch::Example;
use crate::checkpoint::{Kind, Notes, Reference};
use crate::engine::Engine;
use crate::loss::Loss;
use crate::optim;
use crate::outcome::Outcome;
use crate::{Error, Result};

impl Hub {
    pub(crate) fn pass(
        self: &Arc<Self>,
        request: Request<PassRequest<'static>>,
    ) -> Result<Submitted> {
        self.submit(request, |body, base: &Base| {
            let loss = Loss::parse(&body.loss_fn, body.loss_fn_config.as_ref())?;
            let examples = Example::parse_all(&body.data, &loss, base.config())?;
            let (id, pass) = (body.model_id, body.pass);
            Ok(move |engine: &mut Engine, _: &Self| {
                Ok(Outcome::Pass(engine.pass(&id, pass, &examples, &loss)?))
            })
        })
    }

    pub(crate) fn optim_step(
        self: &Arc<Self>,
        request: Request<OptimStepRequest>,
    ) -> Result<Submitted> {
        self.submit(request, |body, _| {
            let OptimizerParams::AdamW(adam) = body.params else {
                return Err(Error::field(
                    "optimizer_params",
                    "models here are trained with AdamW; send `adam_params`",
                ));
            };
            optim::check(&adam)?;
            if !matches!(
                body.grad_accumulation_normalization,
                None | Some(GradAccumulationNormalization::None)
            ) {
                return Err(Error::field(
                    "grad_accumulation_normalization",
                    "gradients are summed here and not divided; leave it out, and divide the loss",
                ));
            }
            let id = body.model_id;
            Ok(move |engine: &mut Engine, _: &Self| Outcome::json(&engine.optim_step(&id, &adam)?))
        })
    }

    pub(crate) fn save_weights(
        self: &Arc<Self>,
        request: Request<SaveWeightsRequest>,
    ) -> Result<Submitted> {
        self.submit(request, |body, _| {
            let id = body.model_id;
            let name = body
                .path
                .ok_or_else(|| Error::field("path", "missing; give the checkpoint a name"))?;
            let at = Reference::new(&id, Kind::Training, &name)?;
            let notes = Notes::new(body.user_metadata, body.ttl_seconds)?;
            Ok(move |engine: &mut Engine, _: &Self| {
                engine.save(&id, &at, &notes, body.overwrite)?;
                Outcome::json(&SaveWeightsResponse { path: at.to_string() })
            })
        })
    }

    pub(crate) fn load_weights(
        self: &Arc<Self>,
        request: Request<LoadWeightsRequest>,
    ) -> Result<Submitted> {
        self.submit(request, |body, _| {
            let at: Reference = body.path.parse()?;
            let id = body.model_id;
            Ok(move |engine: &mut Engine, _: &Self| {
                engine.load(&id, &at, body.optimizer)?;
                Outcome::json(&LoadWeightsResponse {
                    path: Some(at.to_string()),
                    model_id: Some(id),
                })
            })
        })
    }

    pub(crate) fn save_weights_for_sampler(
        self: &Arc<Self>,
        request: Request<SaveWeightsForSamplerRequest>,
    ) -> Result<Submitted> {
        self.submit(request, |body, _| {
            let id = body.model_id;
            let at = body.path.map(|name| Reference::new(&id, Kind::Sampler, &name)).transpose()?;
            let notes = Notes::new(body.user_metadata, body.ttl_seconds)?;
            Ok(move |engine: &mut Engine, hub: &Self| {
                let Some(at) = at else {
                    let sampler = Sampler::new(engine.snapshot(&id)?, None);
                    let session = id.split(":train:").next().unwrap_or(&id);
                    return Outcome::json(&SaveWeightsForSamplerResponse {
                        path: None,
                        sampling_session_id: Some(hub.lock().add_sampler(session, sampler)),
                    });
                };
                engine.save(&id, &at, &notes, body.overwrite.unwrap_or(true))?;
                Outcome::json(&SaveWeightsForSamplerResponse {
                    path: Some(at.to_string()),
                    sampling_session_id: None,
                })
            })
        })
    }
}
