use tinsmith_grad::{Ragged, Var};

use super::rollout::{Rollout, log_ratio};
use super::weight::weighted;
use crate::at_caller;
use crate::clip::Clip;
use crate::config::config;
use crate::policy::ratio::clipped_importance;

config! {
    /// Options of [`cispo`].
    pub struct CispoRecipe {
        /// The bounds of the ratio.
        clip: Clip = Clip::eps_low_high(0.2, 0.28),
    }
}

/// Clipped importance weights on a policy gradient: per active token `-sg(clip(r))·l·A·k`.
///
/// Gradient: `-clip(r)·A·k`. MiniMax-M1, 2025 (arXiv:2506.13585), with two-sided bounds.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::recipes::{Rollout, cispo};
///
/// let lp = ragged(&[vec![-0.5]]);
/// let old = ragged(&[vec![-3.5]]);
/// let advantages = Var::from_vec(vec![1.0], &[1], &Device::Cpu);
/// let loss = cispo(&lp, &Rollout::new(&old, &advantages), &Default::default());
/// assert!((loss.item()? - 0.64).abs() < 1e-12); // 1.28 · 0.5
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn cispo(lp: &Ragged, rollout: &Rollout, config: &CispoRecipe) -> Var {
    at_caller! {
        let (log_ratio, advantages) = (log_ratio(lp, rollout), rollout.active_advantages());
        let gain = clipped_importance("rollout", &log_ratio, lp, &advantages, config.clip);
        -weighted(&gain, &advantages, rollout).sum()
    }
}
