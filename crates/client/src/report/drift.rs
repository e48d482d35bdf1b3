use serde::Serialize;

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
}

/// A drift that is being gathered.
#[derive(Debug, Default)]
pub(super) struct Distances {
    pub max_abs: f64,
    pub sum: f64,
    pub count: usize,
}

impl Distances {
    pub fn drift(&self) -> Drift {
        // A NaN among the logprobs shows in the sum alone.
        Drift {
            max_abs: if self.sum.is_nan() { self.sum } else { self.max_abs },
            mean_abs: self.sum / self.count.max(1) as f64,
        }
    }
}
