use tinsmith_grad::{Ragged, Var};

use crate::at_caller;

/// The variance of all logprobs of the batch: `Σ (l - mean)² / (n - correction)`. Gradient:
/// `2 (l - mean) / (n - correction)`.
///
/// `correction` is 1 for the unbiased estimate, 0 for the population's. Where `n <= correction` the
/// sum is divided by 0, as in PyTorch: NaN, or infinite if the logprobs differ.
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
