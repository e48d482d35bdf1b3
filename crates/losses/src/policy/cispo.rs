use tinsmith_grad::{Ragged, Var};

use super::ratio::{capped, clipped_importance};
use crate::at_caller;
use crate::clip::Clip;
use crate::config::config;
use crate::inputs::tokens;

config! {
    /// Options of [`cispo`].
    pub struct CispoConfig {
        /// The bounds of the importance ratio. With a lower bound above 0, tokens that the policy
        /// has already left would keep a large weight.
        clip: Clip = Clip::ratio(0.0, 4.0),
        /// If c, the log ratio is limited to plus and minus c.
        ratio_log_cap: Option<f64> = None,
    }
}

/// Clipped importance weights on a policy gradient: `-Σ sg(clip(r))·l·A` with `r = e^(l - old)`.
///
/// `lp`, `old` and `advantages` are `[tokens]` per sequence. Gradient: `-clip(r)·A`; unlike
/// [`ppo`](crate::ppo)'s it never stops, it is only limited. A token with advantage 0 takes no
/// part, whatever its logprobs. MiniMax-M1, 2025 (arXiv:2506.13585); the `cispo` of Tinker and
/// Fireworks.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-0.5, -1.0]]);
/// let old = ragged(&[vec![-9.5, -1.0]]); // ratios e^9, limited to 4, and 1
/// let advantages = ragged(&[vec![1.0, -1.0]]);
/// let loss = tinsmith_losses::cispo(&lp, &old, &advantages, &Default::default());
/// assert!((loss.item()? - 1.0).abs() < 1e-12); // 4 · 0.5 · 1 + 1 · 1 · -1
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn cispo(lp: &Ragged, old: &Ragged, advantages: &Ragged, config: &CispoConfig) -> Var {
    at_caller! {
        tokens!("cispo"; lp, old, advantages);
        let log_ratio = capped("cispo", lp - old, config.ratio_log_cap);
        -clipped_importance("cispo", &log_ratio, lp, advantages, config.clip).sum()
    }
}
