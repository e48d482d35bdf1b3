use tinsmith_grad::{Ragged, Var};

use crate::at_caller;
use crate::config::config;
use crate::inputs::{coefficients, tokens};
use crate::masked::masked;

config! {
    /// Options of [`dro`] and [`recipes::dro`](crate::recipes::dro).
    pub struct DroConfig {
        /// How strongly the policy is held near the one that sampled.
        beta: f64 = 0.05,
    }
}

/// Direct reward optimization: `-Σ (l·A - β/2 (l - old)²)`, a policy gradient held back by a
/// square, with no ratio.
///
/// `lp`, `old` and `advantages` are `[tokens]` per sequence. Gradient: `-A + β (l - old)`. The
/// square acts on every token, those without advantage included: the form has no mask, and a NaN
/// anywhere is NaN in the loss. [`recipes::dro`](crate::recipes::dro) has one. Richemond et al.,
/// 2024 (arXiv:2405.19107); the `dro` of Tinker and Fireworks.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{DroConfig, dro};
///
/// let lp = ragged(&[vec![-0.5, -1.0]]);
/// let old = ragged(&[vec![-2.5, -1.0]]);
/// let advantages = ragged(&[vec![1.0, -1.0]]);
/// let loss = dro(&lp, &old, &advantages, &DroConfig::default().beta(0.25));
/// assert_eq!(loss.item()?, 0.0); // -(-0.5 - 0.125 · 4 + 1)
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn dro(lp: &Ragged, old: &Ragged, advantages: &Ragged, config: &DroConfig) -> Var {
    at_caller! {
        coefficients!("dro", lp; config.beta);
        tokens!("dro"; lp, old, advantages);
        ((lp - old).square() * (config.beta / 2.0) - masked(lp, advantages)).sum()
    }
}
