//! A forward pass whose logprobs several losses may use.

use std::sync::{Arc, Weak};

use tinsmith_wire::{Datum, ModelInput, TensorData};

use crate::{Error, ForwardProblem, Result, training::history::History, training::model::Model};

/// The logprobs of a batch, of a forward pass made by
/// [`TrainingClient::precompute_forward`](crate::TrainingClient::precompute_forward). They stay
/// good until the weights change.
#[derive(Debug, Clone)]
pub struct PrecomputedForward {
    model: Weak<Model>,
    seq_id: u64,
    inputs: Vec<ModelInput>,
    targets: Vec<TensorData>,
    logprobs: Vec<TensorData>,
}

impl PrecomputedForward {
    /// Under way.
    pub(crate) fn new(
        model: &Arc<Model>,
        seq_id: u64,
        data: &[Datum],
        targets: &[TensorData],
    ) -> Self {
        PrecomputedForward {
            model: Arc::downgrade(model),
            seq_id,
            inputs: data.iter().map(|datum| datum.model_input.clone()).collect(),
            targets: targets.to_vec(),
            logprobs: Vec::new(),
        }
    }

    /// Come back.
    pub(crate) fn with_logprobs(self, logprobs: Vec<TensorData>) -> Self {
        PrecomputedForward { logprobs, ..self }
    }

    /// Those of each datum's targets, `float32`, in their shape.
    pub fn logprobs(&self) -> &[TensorData] {
        &self.logprobs
    }

    /// Sequence id of the pass, of its first request if it took several.
    pub fn seq_id(&self) -> u64 {
        self.seq_id
    }

    /// Whether another forward pass now, on `data`, would bring the same.
    pub(crate) fn check(
        &self,
        model: &Arc<Model>,
        history: &History,
        data: &[Datum],
        targets: &[TensorData],
    ) -> Result<()> {
        let differs = || {
            let inputs = data.iter().map(|datum| &datum.model_input);
            let now = inputs.zip(targets);
            let mut then = self.inputs.iter().zip(&self.targets).zip(now);
            then.position(|((input, targets), now)| (input, targets) != now)
        };
        let problem = if !Weak::ptr_eq(&self.model, &Arc::downgrade(model)) {
            ForwardProblem::OtherModel
        } else if history.weights_changed_by() > self.seq_id {
            let by = history.weights_changed_by();
            ForwardProblem::WeightsChanged { by }
        } else if data.len() != self.inputs.len() {
            let (expected, found) = (self.inputs.len(), data.len());
            ForwardProblem::OtherCount { expected, found }
        } else if let Some(index) = differs() {
            ForwardProblem::OtherData { index }
        } else {
            return Ok(());
        };
        let seq_id = self.seq_id;
        Err(Error::StaleForward { seq_id, problem })
    }
}
