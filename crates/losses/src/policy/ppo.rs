use tinsmith_grad::{Ragged, Var};

use super::ratio::{capped, clipped_surrogate};
use crate::at_caller;
use crate::clip::Clip;
use crate::config::config;
use crate::inputs::tokens;

config! {
    /// Options of [`ppo`].
    pub struct PpoConfig {
        /// The bounds of the importance ratio.
        clip: Clip = Clip::ratio(0.8, 1.2),
        /// If c, the loss of a token with a negative advantage is at most `-c·A` (dual clip: Ye et
        /// al., 2020, arXiv:1912.09729); above 1.
        dual_clip: Option<f64> = None,
        /// If c, the log ratio is limited to plus and minus c, and has no gradient beyond.
        ratio_log_cap: Option<f64> = None,
    }
}

/// Proximal policy optimization's clipped objective: `-Σ min(r·A, clip(r)·A)` with
/// `r = e^(l - old)`.
///
/// `lp`, `old` and `advantages` are `[tokens]` per sequence. Gradient: `-r·A` where `A > 0` and
/// `r <= high`, or `A < 0` and `r >= low`; else 0. The branch that is not chosen takes no part in
/// the gradient, so a clipped ratio may overflow; a negative advantage on an overflowing ratio is
/// infinite, as the objective has no bound there but by `dual_clip` or `ratio_log_cap`. A token
/// with advantage 0 takes no part, whatever its logprobs. Schulman et al., 2017 (arXiv:1707.06347);
/// the `ppo` of Tinker, Fireworks and SkyRL. [`clipped`](crate::clipped) tells which tokens lie
/// outside the bounds.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-0.5, -0.5, -0.5]]);
/// let old = ragged(&[vec![-0.5 - 2f64.ln(), -0.5 - 2f64.ln(), -0.5]]); // ratios 2, 2, 1
/// let advantages = ragged(&[vec![1.0, -1.0, 1.0]]);
/// let loss = tinsmith_losses::ppo(&lp, &old, &advantages, &Default::default());
/// assert!((loss.item()? - -(1.2 - 2.0 + 1.0)).abs() < 1e-12);
/// assert_eq!(loss.backward(&[lp.values()])?[0].to_vec1::<f64>()?[0], 0.0); // clipped
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn ppo(lp: &Ragged, old: &Ragged, advantages: &Ragged, config: &PpoConfig) -> Var {
    at_caller! {
        tokens!("ppo"; lp, old, advantages);
        let log_ratio = capped("ppo", lp - old, config.ratio_log_cap);
        -clipped_surrogate("ppo", &log_ratio, advantages, config.clip, config.dual_clip).sum()
    }
}
