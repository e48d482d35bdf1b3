//! What happened in one step of a custom loss.

use std::time::Duration;

use tinsmith_wire::{ForwardBackwardOutput, Metrics, TensorData};

use crate::TermReport;

/// What happened in one step of a custom loss, beside its metrics.
#[derive(Debug, Clone, PartialEq)]
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
    /// The gradient by the logprobs.
    pub gradient: GradientReport,
    /// How far the logprobs of the second pass are from those that the gradient was computed at. None until it has
    /// answered, or when it gave none.
    pub drift: Option<Drift>,
    /// How long each phase took.
    pub times: PhaseTimes,
    /// Bytes of JSON received as results: of both passes, once the second has answered.
    pub bytes_received: u64,
}

/// The gradient of a loss by the logprobs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GradientReport {
    /// Euclidean norm.
    pub norm: f64,
    /// Greatest absolute value.
    pub max_abs: f64,
    /// Share of elements that are 0.
    pub zeros: f64,
}

/// The difference of the same logprobs in two passes: 0 on a trainer that computes alike each time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// Greatest absolute difference.
    pub max_abs: f64,
    /// Mean absolute difference.
    pub mean_abs: f64,
}

/// How long each phase took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PhaseTimes {
    /// First pass: sent, computed, received.
    pub forward: Duration,
    /// The loss function, the loss and its gradient.
    pub loss: Duration,
    /// Sending the second pass.
    pub submit: Duration,
    /// From there until its result was received.
    pub backward: Duration,
}

impl GradientReport {
    pub(crate) fn of(gradient: &[f32]) -> Self {
        let squares: f64 = gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum();
        let max_abs = gradient.iter().fold(0.0f32, |max, g| max.max(g.abs()));
        let zeros = gradient.iter().filter(|&&g| g == 0.0).count();
        GradientReport {
            norm: squares.sqrt(),
            max_abs: max_abs.into(),
            zeros: zeros as f64 / gradient.len().max(1) as f64,
        }
    }
}

impl Drift {
    /// Between the logprobs of the first pass and the outputs of the second; none unless they are comparable.
    pub(crate) fn between(first: &[TensorData], second: &ForwardBackwardOutput) -> Option<Self> {
        if first.len() != second.loss_fn_outputs.len() {
            return None;
        }
        let (mut max_abs, mut sum, mut count) = (0.0f64, 0.0f64, 0usize);
        for (before, output) in first.iter().zip(&second.loss_fn_outputs) {
            let (before, after) = (before.as_f32()?, output.get("logprobs")?.as_f32()?);
            if before.len() != after.len() {
                return None;
            }
            for (b, a) in before.iter().zip(after) {
                let difference = (f64::from(*b) - f64::from(*a)).abs();
                max_abs = max_abs.max(difference);
                sum += difference;
            }
            count += before.len();
        }
        Some(Drift {
            max_abs,
            mean_abs: sum / count.max(1) as f64,
        })
    }
}
