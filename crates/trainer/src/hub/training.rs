//! Training requests: each has its place in the model's sequence.

use std::sync::Arc;

use serde::Serialize;
use tinsmith_wire::{
    ForwardBackwardInput, LoadWeightsRequest, LoadWeightsResponse, OptimStepRequest,
    OptimizerParams, SaveWeightsForSamplerRequest, SaveWeightsForSamplerResponse,
    SaveWeightsRequest, SaveWeightsResponse, Submitted,
};

use super::{Hub, Request, Sampler};
use crate::bases::Base;
use crate::batch::Example;
use crate::checkpoint::{Kind, Reference};
use crate::engine::Engine;
use crate::loss::Loss;
use crate::stats::Operation;
use crate::{Error, Result};

impl Hub {
    pub(crate) fn pass(
        self: &Arc<Self>,
        model_id: String,
        seq_id: u64,
        input: Request<ForwardBackwardInput>,
        backward: bool,
    ) -> Result<Submitted> {
        let operation = match backward {
            true => Operation::ForwardBackward,
            false => Operation::Forward,
        };
        let id = model_id.clone();
        self.submit(&model_id, seq_id, input.digest, operation, |entry| {
            let loss = Loss::parse(&input.body.loss_fn, input.body.loss_fn_config.as_ref())?;
            let examples = Example::parse_all(&input.body.data, &loss, entry.config())?;
            Ok(move |engine: &mut Engine, _: &Self| match backward {
                true => engine.forward_backward(&id, &examples, &loss),
                false => engine.forward(&id, &examples, &loss),
            })
        })
    }

    pub(crate) fn optim_step(
        self: &Arc<Self>,
        request: Request<OptimStepRequest>,
    ) -> Result<Submitted> {
        let Request { body, digest } = request;
        let id = body.model_id.clone();
        self.submit(
            &body.model_id,
            body.seq_id,
            digest,
            Operation::OptimStep,
            |_| {
                let OptimizerParams::AdamW(adam) = body.params else {
                    return Err(Error::field(
                        "optimizer_params",
                        "models here are trained with AdamW; send `adam_params`".to_owned(),
                    ));
                };
                let ranges = [
                    (
                        "adam_params.learning_rate",
                        adam.learning_rate,
                        0.0..f64::INFINITY,
                    ),
                    ("adam_params.beta1", adam.beta1, 0.0..1.0),
                    ("adam_params.beta2", adam.beta2, 0.0..1.0),
                    ("adam_params.eps", adam.eps, 0.0..f64::INFINITY),
                    (
                        "adam_params.weight_decay",
                        adam.weight_decay,
                        0.0..f64::INFINITY,
                    ),
                    (
                        "adam_params.grad_clip_norm",
                        adam.grad_clip_norm,
                        0.0..f64::INFINITY,
                    ),
                ];
                for (field, value, range) in ranges {
                    if !range.contains(&value) {
                        return Err(Error::field(
                            field,
                            format!("{value} is not in [{}, {})", range.start, range.end),
                        ));
                    }
                }
                Ok(move |engine: &mut Engine, _: &Self| engine.optim_step(&id, &adam))
            },
        )
    }

    pub(crate) fn save_weights(
        self: &Arc<Self>,
        request: Request<SaveWeightsRequest>,
    ) -> Result<Submitted> {
        let Request { body, digest } = request;
        let id = body.model_id.clone();
        self.submit(
            &body.model_id,
            body.seq_id,
            digest,
            Operation::Other,
            |_| {
                let name = body
                    .path
                    .as_deref()
                    .ok_or_else(|| Error::field("path", "missing; give the checkpoint a name"))?;
                let at = Reference::new(&id, Kind::Training, name)?;
                Ok(move |engine: &mut Engine, _: &Self| {
                    engine.save(&id, &at, body.overwrite)?;
                    Ok(SaveWeightsResponse {
                        path: at.to_string(),
                    })
                })
            },
        )
    }

    pub(crate) fn load_weights(
        self: &Arc<Self>,
        request: Request<LoadWeightsRequest>,
    ) -> Result<Submitted> {
        let Request { body, digest } = request;
        let id = body.model_id.clone();
        self.submit(
            &body.model_id,
            body.seq_id,
            digest,
            Operation::Other,
            |_| {
                let at: Reference = body.path.parse()?;
                Ok(move |engine: &mut Engine, _: &Self| {
                    engine.load(&id, &at, body.optimizer)?;
                    Ok(LoadWeightsResponse {
                        path: Some(at.to_string()),
                        model_id: Some(id),
                    })
                })
            },
        )
    }

    pub(crate) fn save_weights_for_sampler(
        self: &Arc<Self>,
        request: Request<SaveWeightsForSamplerRequest>,
    ) -> Result<Submitted> {
        let Request { body, digest } = request;
        let id = body.model_id.clone();
        self.submit(
            &body.model_id,
            body.seq_id,
            digest,
            Operation::Other,
            |_| {
                let at = body
                    .path
                    .as_deref()
                    .map(|name| Reference::new(&id, Kind::Sampler, name))
                    .transpose()?;
                Ok(move |engine: &mut Engine, hub: &Self| {
                    let Some(at) = at else {
                        let sampler = Sampler::new(engine.snapshot(&id)?, None);
                        let session = id.split(":train:").next().unwrap_or(&id);
                        return Ok(SaveWeightsForSamplerResponse {
                            path: None,
                            sampling_session_id: Some(hub.lock().add_sampler(session, sampler)),
                        });
                    };
                    engine.save(&id, &at, true)?;
                    Ok(SaveWeightsForSamplerResponse {
                        path: Some(at.to_string()),
                        sampling_session_id: None,
                    })
                })
            },
        )
    }

    /// Checks a training request with `prepare`, which gives what to run, and queues it at its place.
    fn submit<R, W, P>(
        self: &Arc<Self>,
        model_id: &str,
        seq_id: u64,
        digest: u64,
        operation: Operation,
        prepare: P,
    ) -> Result<Submitted>
    where
        R: Serialize,
        W: FnOnce(&mut Engine, &Self) -> Result<R> + Send + 'static,
        P: FnOnce(&Base) -> Result<W>,
    {
        let answer = |request_id: &str| Submitted {
            request_id: request_id.to_owned(),
            model_id: Some(model_id.to_owned()),
            ..Submitted::default()
        };
        let base = {
            let mut state = self.lock();
            let entry = state.model(model_id)?;
            if let Some(first) = entry.sequence.repeated(seq_id, digest)? {
                return Ok(answer(first));
            }
            entry.base.clone()
        };
        let work = prepare(&base);

        let mut state = self.lock();
        let entry = state.model(model_id)?;
        let work = match work {
            Ok(work) => work,
            Err(error) => {
                entry.sequence.refuse(seq_id);
                return Err(error);
            }
        };
        // Twin requests may both have come this far; one of them is the first.
        if let Some(first) = entry.sequence.repeated(seq_id, digest)? {
            return Ok(answer(first));
        }
        let request_id = self
            .futures
            .issue(&self.instance, Some((model_id.to_owned(), seq_id)));
        let counted = model_id.to_owned();
        let job = self.job(request_id.clone(), move |engine, hub| {
            let result = work(engine, hub)?;
            hub.count(&counted, |stats| stats.executed.add(operation));
            Ok(result)
        });
        entry
            .sequence
            .accept(seq_id, digest, request_id.clone(), job);
        while let Some(job) = state.model(model_id)?.sequence.pop() {
            state.send(job)?;
        }
        drop(state);
        self.count(model_id, |stats| stats.received.add(operation));
        Ok(answer(&request_id))
    }
}
