//! What executes requests, one at a time and without any HTTP: models under training, their
//! optimizers, their checkpoints.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tinsmith_grad::Tensor;
use tinsmith_wire::{
    AdamParams, ForwardBackwardOutput, OptimStepResponse, Pass, SampleResponse, SampledSequence,
    StopReason, TensorData,
};

use crate::bases::Base;
use crate::batch::Example;
use crate::checkpoint::{Checkpoint, Info, Kind, Notes, Reference, Store};
use crate::loss::Loss;
use crate::model::{Adapter, Generate, LoraConfig};
use crate::optim::AdamW;
use crate::{Error, Result, pass};

/// Weights to sample from: a base model, perhaps with an adapter as it was at some moment.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    pub(crate) base: Base,
    pub(crate) adapter: Option<Adapter>,
}

/// A model under training.
struct Training {
    base: Base,
    adapter: Adapter,
    optim: AdamW,
    /// Sums since the last step; empty when there are none.
    grads: Vec<Tensor>,
    /// Why a forward_backward since the last step has failed, if one has.
    broken: Option<String>,
}

/// All models under training.
pub(crate) struct Engine {
    store: Store,
    stop: Arc<AtomicBool>,
    models: HashMap<String, Training>,
}

impl Engine {
    /// `stop` ends a long computation early, with [`Error::ShuttingDown`].
    pub(crate) fn new(store: Store, stop: Arc<AtomicBool>) -> Self {
        Self { store, stop, models: HashMap::new() }
    }

    pub(crate) fn create_model(&mut self, id: &str, base: Base, lora: LoraConfig) -> Result<()> {
        let training = Training {
            adapter: Adapter::new(lora, base.config())?,
            base,
            optim: AdamW::default(),
            grads: Vec::new(),
            broken: None,
        };
        self.models.insert(id.to_owned(), training);
        Ok(())
    }

    pub(crate) fn unload_model(&mut self, id: &str) {
        self.models.remove(id);
    }

    /// Runs `pass`. A gradient is added to the sums of the step; if it fails, nothing is added and
    /// the step is broken.
    pub(crate) fn pass(
        &mut self,
        id: &str,
        pass: Pass,
        examples: &[Example],
        loss: &Loss,
    ) -> Result<ForwardBackwardOutput> {
        let keep_going = self.keep_going();
        let training = self.model(id)?;
        let (model, adapter) = (&training.base.model, &training.adapter);
        let result =
            pass::run(model, adapter, examples, loss, pass, keep_going).and_then(|found| {
                let sums = pass::add(training.grads.clone(), found.grads)?;
                let output = output(found.logprobs, found.loss, examples)?;
                training.grads = sums;
                Ok(output)
            });
        if let (Pass::ForwardBackward, Err(error)) = (pass, &result) {
            training.broken = Some(error.to_string());
        }
        result
    }

    /// Steps along the summed gradients and clears them. Without any, nothing changes.
    pub(crate) fn optim_step(&mut self, id: &str, adam: &AdamParams) -> Result<OptimStepResponse> {
        let training = self.model(id)?;
        let grads = std::mem::take(&mut training.grads);
        if let Some(why) = training.broken.take() {
            return Err(Error::BrokenStep(why));
        }
        if grads.is_empty() {
            let metrics = [("grad_norm", 0.0), ("learning_rate", adam.learning_rate)];
            return Ok(OptimStepResponse { metrics: metrics.into_iter().collect() });
        }
        let (params, metrics) = training.optim.step(training.adapter.params(), &grads, adam)?;
        training.adapter.set_params(params);
        Ok(OptimStepResponse { metrics })
    }

    pub(crate) fn save(
        &mut self,
        id: &str,
        at: &Reference,
        notes: &Notes,
        overwrite: bool,
    ) -> Result<()> {
        let training = self.model(id)?;
        let optim = match at.kind {
            Kind::Training => training.optim.clone(),
            Kind::Sampler => AdamW::default(),
        };
        let checkpoint = Checkpoint {
            info: Info {
                base_model: training.base.name.clone(),
                base_fingerprint: training.base.fingerprint,
                lora: *training.adapter.config(),
                steps: optim.steps,
            },
            adapter: training.adapter.clone(),
            optim,
        };
        self.store.save(at, &checkpoint, notes, overwrite)
    }

    /// Replaces the weights, and with `optimizer` its state too (else it starts anew). Gradients
    /// are cleared.
    pub(crate) fn load(&mut self, id: &str, at: &Reference, optimizer: bool) -> Result<()> {
        let store = self.store.clone();
        let training = self.model(id)?;
        let base = training.base.clone();
        let loaded = store.load(at, |name| (name == base.name).then(|| base.config().clone()))?;
        let (has, wants) = (loaded.info.lora, *training.adapter.config());
        let same_sites = (has.train_attn, has.train_mlp, has.train_unembed)
            == (wants.train_attn, wants.train_mlp, wants.train_unembed);
        if has.rank != wants.rank || !same_sites || loaded.info.base_fingerprint != base.fingerprint
        {
            let problem = format!(
                "{at} holds {has:?} on weights {:x} of `{}`, the model is {wants:?} on {:x}; create a model like it",
                loaded.info.base_fingerprint, base.name, base.fingerprint
            );
            return Err(Error::field("path", problem));
        }
        training.adapter.set_params(loaded.adapter.params().to_vec());
        training.optim = if optimizer { loaded.optim } else { AdamW::default() };
        training.grads.clear();
        training.broken = None;
        Ok(())
    }

    /// The weights as they are now, to sample from.
    pub(crate) fn snapshot(&mut self, id: &str) -> Result<Weights> {
        let training = self.model(id)?;
        Ok(Weights { base: training.base.clone(), adapter: Some(training.adapter.clone()) })
    }

    pub(crate) fn sample(&self, weights: &Weights, request: &Generate) -> Result<SampleResponse> {
        let generated =
            weights.base.model.generate(weights.adapter.as_ref(), request, self.keep_going())?;
        let sequence = |c: crate::model::Continuation| SampledSequence {
            stop_reason: if c.stopped { StopReason::Stop } else { StopReason::Length },
            tokens: c.tokens,
            logprobs: Some(c.logprobs),
            ..SampledSequence::default()
        };
        // The first prompt token has nothing before it to be predicted from.
        let (logprobs, top) = (generated.prompt_logprobs, generated.top_prompt_logprobs);
        let prompt_logprobs =
            || std::iter::once(None).chain(logprobs.into_iter().map(Some)).collect();
        let top_logprobs = || std::iter::once(None).chain(top.into_iter().map(Some)).collect();
        Ok(SampleResponse {
            sequences: generated.continuations.into_iter().map(sequence).collect(),
            prompt_logprobs: request.prompt_logprobs.then(prompt_logprobs),
            topk_prompt_logprobs: (request.top_prompt_logprobs > 0).then(top_logprobs),
            ..SampleResponse::default()
        })
    }

    fn model(&mut self, id: &str) -> Result<&mut Training> {
        self.models.get_mut(id).ok_or_else(|| unknown_model(id))
    }

    fn keep_going(&self) -> impl Fn() -> Result<()> + use<> {
        let stop = self.stop.clone();
        move || match stop.load(Ordering::Relaxed) {
            true => Err(Error::ShuttingDown),
            false => Ok(()),
        }
    }
}

pub(crate) fn unknown_model(id: &str) -> Error {
    Error::NotFound {
        kind: "model",
        id: id.to_owned(),
        hint: "create_model makes one; unloaded ones and those of a restarted trainer are gone"
            .to_owned(),
    }
}

fn output(
    logprobs: Vec<Vec<f32>>,
    loss: f64,
    examples: &[Example],
) -> Result<ForwardBackwardOutput> {
    let record = |(values, example): (Vec<f32>, &Example)| -> Result<_> {
        Ok([("logprobs".to_owned(), TensorData::new(values, &example.shape)?)].into())
    };
    Ok(ForwardBackwardOutput {
        loss_fn_output_type: "scalar".to_owned(),
        loss_fn_outputs: logprobs.into_iter().zip(examples).map(record).collect::<Result<_>>()?,
        metrics: [("loss:sum", loss)].into_iter().collect(),
    })
}
