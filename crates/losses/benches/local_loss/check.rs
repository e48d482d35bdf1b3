//! That two rows compute the same thing.

use tinsmith_grad::Result;

use crate::batch::Batch;
use crate::ours::Leaves;
use crate::{Form, Loss, limit};

/// A loss, and its gradient per token, all sequences one after another.
pub struct Outcome {
    pub loss: f64,
    pub gradient: Vec<f32>,
}

pub fn of_ours(leaves: &Leaves, loss: Loss, form: Form, tokens: usize) -> Result<Outcome> {
    let mut gradient = vec![0.0; tokens];
    let loss = leaves.step(loss, form, &mut gradient)?.value();
    Ok(Outcome { loss, gradient })
}

pub fn of_fused(batch: &Batch) -> Outcome {
    let mut gradient = vec![0.0; batch.logprobs.len()];
    Outcome { loss: limit::fused_ppo(batch, &mut gradient), gradient }
}

/// Panics unless both losses and both gradients agree to 1e-4, the gradients in the sum of all
/// tokens: a ratio within rounding of PPO's bounds may be clipped by one and not by the other.
pub fn assert_same(row: &str, ours: &Outcome, other: &Outcome) {
    let loss_error = (ours.loss - other.loss).abs() / other.loss.abs();
    assert!(loss_error < 1e-4, "{row}: losses {} and {}", ours.loss, other.loss);

    assert_eq!(ours.gradient.len(), other.gradient.len(), "{row}: tokens with a gradient");
    let both = ours.gradient.iter().zip(&other.gradient);
    let error: f64 = both.map(|(a, b)| f64::from(a - b).abs()).sum();
    let size: f64 = other.gradient.iter().map(|&g| f64::from(g).abs()).sum();
    assert!(error < 1e-4 * size, "{row}: gradients differ by {error} of {size}");
}
