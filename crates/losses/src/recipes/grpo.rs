use tinsmith_grad::{Ragged, Var};

use super::rollout::{Rollout, log_ratio};
use super::weight::weighted;
use crate::at_caller;
use crate::clip::Clip;
use crate::config::config;
use crate::inputs::coefficients;
use crate::kl::k3;
use crate::policy::ratio::clipped_surrogate;

config! {
    /// Options of [`grpo`].
    pub struct GrpoRecipe {
        /// The bounds of the ratio.
        clip: Clip = Clip::eps(0.2),
        /// If c, the loss of a token with a negative advantage is at most `-c·A`; above 1.
        dual_clip: Option<f64> = None,
        /// The weight of the KL to the reference, if the rollout has one.
        kl_beta: f64 = 0.001,
    }
}

config! {
    /// Options of [`dapo`].
    pub struct DapoRecipe {
        /// The bounds of the ratio.
        clip: Clip = Clip::eps_low_high(0.2, 0.28),
        /// If c, the loss of a token with a negative advantage is at most `-c·A` (dual clip: Ye et
        /// al., 2020, arXiv:1912.09729); above 1.
        dual_clip: Option<f64> = None,
    }
}

/// Group-relative policy optimization: per active token
/// `max(-r·A, -clip(r)·A)·k + β k3(ref)`.
///
/// `r = e^d` with `d` the limited [`log_ratio`], k is [`tis_weight`](super::tis_weight). Gradient:
/// `-r·A·k` where neither limit acts, plus `β (1 - e^(ref - l))`. See the [module](crate::recipes)
/// for an example; [`crate::grpo`] is the form with an aggregation.
#[track_caller]
pub fn grpo(lp: &Ragged, rollout: &Rollout, config: &GrpoRecipe) -> Var {
    at_caller! {
        coefficients!("grpo", lp; config.kl_beta);
        let loss = clipped(lp, rollout, config.clip, config.dual_clip);
        match &rollout.reference {
            Some(reference) if config.kl_beta != 0.0 => {
                loss + k3(&rollout.on_active(&(reference - lp))).sum() * config.kl_beta
            }
            _ => loss,
        }
    }
}

/// Decoupled clip: [`grpo`] with a wider upper bound, no KL, and an optional bound on the loss of
/// bad tokens.
///
/// Yu et al., 2025 (arXiv:2503.14476).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::recipes::{DapoRecipe, Rollout, dapo};
///
/// let lp = ragged(&[vec![-0.5], vec![-0.5]]);
/// let old = ragged(&[vec![-3.5], vec![-3.5]]); // ratios e³
/// let advantages = Var::from_vec(vec![1.0, -1.0], &[2], &Device::Cpu);
/// let config = DapoRecipe::default().dual_clip(3.0);
/// let loss = dapo(&lp, &Rollout::new(&old, &advantages), &config);
/// assert!((loss.item()? - (-1.28 + 3.0)).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn dapo(lp: &Ragged, rollout: &Rollout, config: &DapoRecipe) -> Var {
    at_caller! { clipped(lp, rollout, config.clip, config.dual_clip) }
}

#[track_caller]
fn clipped(lp: &Ragged, rollout: &Rollout, clip: Clip, dual_clip: Option<f64>) -> Var {
    let advantages = rollout.active_advantages();
    let log_ratio = log_ratio(lp, rollout);
    let gain = clipped_surrogate("rollout", &log_ratio, &advantages, clip, dual_clip);
    -weighted(&gain, &advantages, rollout).sum()
}
