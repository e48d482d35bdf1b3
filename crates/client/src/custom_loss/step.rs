//! A step whose second pass is under way.

use std::{sync::Arc, time::Duration};

use tinsmith_wire::{ForwardBackwardOutput, TensorData};

use super::two_passes::{Answer, Backward};
use crate::{ApiFuture, Error, Rescaling, Result, StepReport, Warning, training::model::Model};

/// A custom-loss step whose second pass is under way.
#[must_use = "result() waits for the second pass and tells whether it failed"]
#[derive(Debug)]
pub struct CustomStep {
    future: ApiFuture<(ForwardBackwardOutput, StepReport)>,
    report: StepReport,
}

impl CustomStep {
    /// What is known already: the loss, its terms, its gradient, the first phases.
    pub fn report(&self) -> &StepReport {
        &self.report
    }

    /// Waits for the second pass. The metrics are the server's, overridden by those of the loss
    /// function; then `loss:sum` is the loss, and `surrogate_loss:sum` what the server gave as
    /// `loss:sum`, if it did.
    ///
    /// # Errors
    /// As [`ApiFuture::result`].
    pub fn result(self) -> Result<ForwardBackwardOutput> {
        self.future.result().map(|(output, _)| output)
    }

    /// As [`result`](Self::result), with the full report.
    ///
    /// # Errors
    /// As [`ApiFuture::result`].
    pub fn result_with_report(self) -> Result<(ForwardBackwardOutput, StepReport)> {
        self.future.result()
    }

    /// As [`ApiFuture::result_timeout`].
    ///
    /// # Errors
    /// As [`ApiFuture::result_timeout`].
    pub fn result_timeout(
        &mut self,
        limit: Duration,
    ) -> Result<(ForwardBackwardOutput, StepReport)> {
        self.future.result_timeout(limit)
    }

    /// As [`ApiFuture::try_result`].
    ///
    /// # Errors
    /// As [`ApiFuture::try_result`].
    pub fn try_result(&mut self) -> Result<Option<(ForwardBackwardOutput, StepReport)>> {
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
            _ => Ok((output, report)),
        }
    };
    CustomStep { future: second.into_future(model, complete), report: so_far }
}
