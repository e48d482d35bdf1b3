use tinsmith_grad::{Ragged, Var};

use super::ratio::{capped, weighted_ratio};
use crate::at_caller;
use crate::config::config;
use crate::inputs::tokens;

config! {
    /// Options of [`importance_sampling`].
    pub struct ImportanceSamplingConfig {
        /// If c, the log ratio is limited to plus and minus c, and has no gradient beyond.
        ratio_log_cap: Option<f64> = None,
    }
}

/// Policy gradient corrected for sampling from an older policy: `-Σ r·A` with `r = e^(l - old)`.
///
/// `lp`, `old` and `advantages` are `[tokens]` per sequence. Gradient: `-r·A`. A token with
/// advantage 0 takes no part, whatever its logprobs; elsewhere a ratio that overflows (log ratio
/// above 88 in f32, 709 in f64) makes the loss infinite, as the objective has no bound: see
/// [`ppo`](crate::ppo), or limit the log ratio. The `importance_sampling` of Tinker, Fireworks and
/// SkyRL.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::importance_sampling;
///
/// let lp = ragged(&[vec![-0.5, -1.0]]);
/// let old = ragged(&[vec![-0.5 - 2f64.ln(), -1.0]]); // ratios 2 and 1
/// let advantages = ragged(&[vec![3.0, -1.0]]);
/// let loss = importance_sampling(&lp, &old, &advantages, &Default::default());
/// assert!((loss.item()? + 5.0).abs() < 1e-12); // -(2 · 3 - 1)
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn importance_sampling(
    lp: &Ragged,
    old: &Ragged,
    advantages: &Ragged,
    config: &ImportanceSamplingConfig,
) -> Var {
    at_caller! {
        tokens!("importance_sampling"; lp, old, advantages);
        let log_ratio = capped("importance_sampling", lp - old, config.ratio_log_cap);
        -weighted_ratio(&log_ratio, advantages).sum()
    }
}
