//! The two losses that the custom-loss documentation of Tinker and Fireworks begins with.

use tinsmith_grad::{Ragged, Var};

use crate::at_caller;

/// The sum of squared logprobs: `Σ l²`. Gradient: `2l`.
///
/// It pulls every target token's probability towards 1; of use to see a custom loss work, not to train a model.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-3.0, -0.5], vec![-2.0]]);
/// assert_eq!(tinsmith_losses::logprob_squared(&lp).item()?, 13.25); // 9 + 0.25 + 4
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn logprob_squared(lp: &Ragged) -> Var {
    at_caller! { lp.square().sum() }
}

/// The variance of all logprobs of the batch: `Σ (l - mean)² / (n - correction)`. Gradient: `2 (l - mean) / (n - correction)`.
///
/// `correction` is 1 for the unbiased estimate, 0 for the population's. NaN where `n <= correction`, as in PyTorch.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-1.0, -2.0], vec![-3.0]]);
/// assert_eq!(tinsmith_losses::variance(&lp, 1.0).item()?, 1.0); // (1 + 0 + 1) / 2
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn variance(lp: &Ragged, correction: f64) -> Var {
    at_caller! { lp.values().reshape(&[lp.values().elem_count()]).var_dims(&[0], correction) }
}
