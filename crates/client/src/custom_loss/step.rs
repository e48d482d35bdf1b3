//! A step whose second pass is under way.

use std::{sync::Arc, time::Duration};

use tinsmith_wire::{ForwardBackwardOutput, TensorData};

use super::two_passes::{Answer, Backward};
use crate::{ApiFuture, Error, Rescaling, Result, StepReport, Warning, training::model::Model};

/// A custom-loss step whose second pass is under way.
#[must_use = "result() waits for the second pass and tells whether it failed"]
#[derive(Debug)]
pub struct CustomStep {
    future: ApiFuture<StepOutput>,
    report: StepReport,
}

/// What a step of a custom loss gave.
///
/// ```
/// # use tinsmith_client::{Datum, LoraConfig, Loss, ModelInput, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
/// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2])).with("target_tokens", vec![2i64, 3])];
/// let loss = |batch: &tinsmith_client::Batch| {
///     Ok(Loss::new(-batch.logprobs().sum()).metric("p", batch.logprobs().exp().mean()))
/// };
/// let done = training.forward_backward_custom(&data, loss)?.result()?;
/// assert_eq!(done.output.metrics["loss:sum"], done.report.loss);
/// assert_eq!(done.output.metrics["p"], done.report.metrics["p"]);
/// assert!(done.report.surrogate.is_some_and(|check| check.agrees));
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StepOutput {
    /// The server's answer to the second pass, or to the first if there is no second. Its metrics
    /// are overridden by those of the loss function; then `loss:sum` is the loss, and, of a second
    /// pass, `surrogate_loss:sum` what the server gave as `loss:sum`, if it did.
    pub output: ForwardBackwardOutput,
    /// What happened on the way, complete.
    pub report: StepReport,
}

impl CustomStep {
    /// What is known already: the loss, its terms, its gradient, the first phases.
    pub fn report(&self) -> &StepReport {
        &self.report
    }

    /// Waits for the second pass.
    ///
    /// # Errors
    /// As [`ApiFuture::result`]; [`Error::Drift`] beyond
    /// [`Loss::max_drift`](crate::Loss::max_drift).
    pub fn result(self) -> Result<StepOutput> {
        self.future.result()
    }

    /// As [`ApiFuture::result_timeout`].
    ///
    /// # Errors
    /// As [`result`](Self::result) and [`ApiFuture::result_timeout`].
    pub fn result_timeout(&mut self, limit: Duration) -> Result<StepOutput> {
        self.future.result_timeout(limit)
    }

    /// As [`ApiFuture::try_result`].
    ///
    /// # Errors
    /// As [`result`](Self::result) and [`ApiFuture::try_result`].
    pub fn try_result(&mut self) -> Result<Option<StepOutput>> {
        self.future.try_result()
    }
}

/// The step of a second pass that has been sent.
pub(super) fn finish(
    model: &Arc<Model>,
    second: Backward,
    first: Vec<TensorData>,
    mut report: StepReport,
    max_drift: Option<f64>,
) -> CustomStep {
    let so_far = report.clone();
    let weights = second.weights.clone();
    let complete = move |answer: Answer| {
        report.times.backward = answer.time;
        report.bytes_received += answer.bytes.received;
        let mut output = answer.output;
        report.complete(&mut output, &first, &weights);
        if answer.may_rescale {
            report.warnings.extend(Rescaling::of(&weights).map(Warning::Rescaled));
        }
        match (report.drift, max_drift) {
            (Some(drift), Some(limit)) if drift.exceeds(limit) => {
                Err(Error::Drift { drift, limit })
            }
            _ => Ok(StepOutput { output, report }),
        }
    };
    CustomStep { future: second.into_future(model, complete), report: so_far }
}

/// What a first pass gave, when no second follows.
pub(super) fn evaluated(mut output: ForwardBackwardOutput, mut report: StepReport) -> StepOutput {
    report.complete_forward(&mut output);
    StepOutput { output, report }
}
