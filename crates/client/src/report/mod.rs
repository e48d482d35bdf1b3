//! What happened in one step of a custom loss.

mod comparison;
mod drift;
mod lanes;
mod normalization;
mod rescaling;
mod rollout;
mod surrogate;
mod table;
mod term;
mod usage;
mod warning;

use std::{ops::AddAssign, time::Duration};

use serde::Serialize;
use tinsmith_wire::{ForwardBackwardOutput, Metrics, TensorData};

pub use drift::Drift;
pub use normalization::Normalization;
pub use rescaling::Rescaling;
pub use rollout::RolloutGap;
pub use surrogate::{ServerLoss, SurrogateCheck};
pub use term::TermReport;
pub(crate) use term::metrics_of;
pub use usage::{PriceList, RunTotals, Usage};
pub use warning::Warning;

/// What happened in one step of a custom loss, beside its metrics. Prints as a table;
/// [`MetricsWriter`](crate::MetricsWriter) writes it as a line of JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StepReport {
    /// The loss.
    pub loss: f64,
    /// Its terms, the one given to [`Loss::new`](crate::Loss::new) first.
    pub terms: Vec<TermReport>,
    /// The metrics of the loss function.
    pub metrics: Metrics,
    /// The metrics as the server's second pass gave them. Empty until it has answered.
    pub server_metrics: Metrics,
    /// The gradient by the logprobs, as it was sent.
    pub gradient: GradientReport,
    /// What it was divided by here. None without [`Loss::normalize`](crate::Loss::normalize).
    pub normalization: Option<Normalization>,
    /// How far the logprobs of the first pass are from the data's own input `logprobs`, those that
    /// the tokens were sampled with. None where no datum has such.
    pub rollout: Option<RolloutGap>,
    /// How far the logprobs of the second pass are from those that the gradient was computed at.
    /// None until it has answered, or when it gave none.
    pub drift: Option<Drift>,
    /// Whether the server's own loss is that of the weights it was sent. None until it has
    /// answered, or when it told none.
    pub surrogate: Option<SurrogateCheck>,
    /// What looks wrong, though it is no error.
    pub warnings: Vec<Warning>,
    /// How long each phase took.
    pub times: PhaseTimes,
    /// Sequences and tokens of both passes. A first pass that was made before the step is not
    /// counted again.
    pub usage: Usage,
    /// Bytes of the requests of both passes, as bodies.
    pub bytes_sent: u64,
    /// Bytes of their results: of both passes, once the second has answered.
    pub bytes_received: u64,
}

impl StepReport {
    /// Compares the answer of the second pass with the logprobs of the `first` and the `weights` it
    /// was sent, and puts the loss and its metrics in it.
    pub(crate) fn complete(
        &mut self,
        output: &mut ForwardBackwardOutput,
        first: &[TensorData],
        weights: &[TensorData],
    ) {
        (self.drift, self.surrogate) = comparison::compare(first, weights, output);
        self.warnings = Warning::about(self);
        self.server_metrics = output.metrics.clone();
        let surrogate = output.metrics.remove("loss:sum");
        self.put_metrics_into(output);
        if let Some(surrogate) = surrogate {
            output.metrics.insert("surrogate_loss:sum", surrogate);
        }
    }

    /// Puts the loss and its metrics in the answer of a first pass that no second follows.
    pub(crate) fn complete_forward(&mut self, output: &mut ForwardBackwardOutput) {
        self.warnings.retain(|warning| *warning != Warning::ZeroGradient);
        self.server_metrics = output.metrics.clone();
        self.put_metrics_into(output);
    }

    /// In place of what the server calls so.
    fn put_metrics_into(&self, output: &mut ForwardBackwardOutput) {
        output.metrics.extend(metrics_of(&self.terms));
        output.metrics.extend(self.metrics.iter());
        output.metrics.insert("loss:sum", self.loss);
    }
}

/// The gradient of a loss by the logprobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct GradientReport {
    /// Euclidean norm.
    pub norm: f64,
    /// Greatest absolute value.
    pub max_abs: f64,
    /// Share of elements that are 0.
    pub zeros: f64,
}

/// How long each phase took; in JSON in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PhaseTimes {
    /// First pass: sent, computed, received.
    #[serde(serialize_with = "seconds")]
    pub forward: Duration,
    /// The loss function, the loss and its gradient.
    #[serde(serialize_with = "seconds")]
    pub loss: Duration,
    /// Sending the second pass.
    #[serde(serialize_with = "seconds")]
    pub submit: Duration,
    /// From there until its result was received.
    #[serde(serialize_with = "seconds")]
    pub backward: Duration,
}

impl GradientReport {
    /// The norm is finite if every element is: squares of f32 do not overflow f64.
    pub(crate) fn of(gradient: &[f32]) -> Self {
        let ([squares, zeros], [max_abs]) =
            lanes::walk([gradient], |[g]| ([g * g, f64::from(u8::from(g == 0.0))], [g.abs()]));
        let zeros = zeros / gradient.len().max(1) as f64;
        GradientReport { norm: squares.sqrt(), max_abs, zeros }
    }
}

impl AddAssign for PhaseTimes {
    fn add_assign(&mut self, other: PhaseTimes) {
        let PhaseTimes { forward, loss, submit, backward } = other;
        self.forward += forward;
        self.loss += loss;
        self.submit += submit;
        self.backward += backward;
    }
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_tells_whether_every_element_is_finite() {
        let huge = GradientReport::of(&[f32::MAX, 0.0, -f32::MAX]);
        let max = f64::from(f32::MAX);
        assert!((huge.norm / max - 2f64.sqrt()).abs() < 1e-15);
        assert_eq!((huge.max_abs, huge.zeros), (max, 1.0 / 3.0));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut gradient = vec![1.0; 21];
            gradient[20] = bad;
            assert!(!GradientReport::of(&gradient).norm.is_finite());
        }
    }
}
