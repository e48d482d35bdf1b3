use serde::Serialize;
use tinsmith_wire::{ForwardBackwardOutput, TensorData};

use super::lanes;

/// The difference of the same logprobs in two passes: 0 on a trainer that computes alike each time.
/// The gradient belongs to the first pass's logprobs and is applied at the second's, so a
/// difference of more than rounding makes the step inexact.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Drift {
    /// Greatest absolute difference, in nats.
    pub max_abs: f64,
    /// Mean absolute difference, in nats.
    pub mean_abs: f64,
}

impl Drift {
    /// A greater difference than this between two passes over the same weights is a
    /// [`Warning`](super::Warning): what bf16 logprobs differ by when they are rounded differently.
    pub(crate) const CONSPICUOUS: f64 = 0.05;

    /// Whether the greatest is more than this. One of NaN is more than any.
    pub(crate) fn exceeds(&self, nats: f64) -> bool {
        self.max_abs > nats || self.max_abs.is_nan()
    }

    /// Between the logprobs of the first pass and the outputs of the second; none unless they are
    /// comparable.
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
            let [differences] = lanes::sums(before, after, |b, a| [(b - a).abs()]);
            max_abs = max_abs.max(lanes::greatest(before, after, |b, a| (b - a).abs()));
            sum += differences;
            count += before.len();
        }
        // A NaN among the logprobs shows in the sum alone.
        Some(Drift {
            max_abs: if sum.is_nan() { sum } else { max_abs },
            mean_abs: sum / count.max(1) as f64,
        })
    }
}
