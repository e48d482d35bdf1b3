use tinsmith_grad::{Ragged, Var};

use super::rollout::Rollout;
use super::weight::weighted;
use crate::at_caller;
use crate::clip::Clip;
use crate::config::config;
use crate::inputs::{positive, refused, tokens};
use crate::policy::ratio::{clipped_surrogate, sequence_log_ratio};

config! {
    /// Options of [`gspo`].
    pub struct GspoRecipe {
        /// The bounds of the sequence's ratio.
        clip: Clip = Clip::eps(0.2),
        /// If c, the loss of a token with a negative advantage is at most `-c·A`; above 1.
        dual_clip: Option<f64> = None,
        /// The sequence's log ratio is limited to this from above; above 0.
        seq_ratio_log_cap: f64 = 10.0,
    }
}

/// Group sequence policy optimization: [`grpo`](super::grpo) without KL and with the ratio
/// `e^min(l - sg(l) + sg(mean(l - old)), cap)`.
///
/// The mean runs over **all** tokens of the response, those that are masked included; only the
/// prompt takes no part in it. Gradient: as [`crate::gspo`]'s, times k. Zheng et al., 2025
/// (arXiv:2507.18071).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{Clip, recipes::{GspoRecipe, Rollout, gspo}};
///
/// let lp = ragged(&[vec![-0.5, -0.5]]);
/// let old = ragged(&[vec![-0.5 - 4f64.ln(), -0.5]]); // mean log ratio ln 2
/// let advantages = Var::from_vec(vec![1.0], &[1], &Device::Cpu);
/// let config = GspoRecipe::default().clip(Clip::eps(2.0));
/// let loss = gspo(&lp, &Rollout::new(&old, &advantages), &config);
/// assert!((loss.item()? + 4.0).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn gspo(lp: &Ragged, rollout: &Rollout, config: &GspoRecipe) -> Var {
    at_caller! {
        let log_ratio = gspo_log_ratio(lp, rollout, config);
        let advantages = rollout.active_advantages();
        let (clip, dual_clip) = (config.clip, config.dual_clip);
        let gain = clipped_surrogate("rollout", &log_ratio, &advantages, clip, dual_clip);
        -weighted(&gain, &advantages, rollout).sum()
    }
}

/// The log ratio of [`gspo`]: of each sequence, on each of its tokens.
#[track_caller]
pub fn gspo_log_ratio(lp: &Ragged, rollout: &Rollout, config: &GspoRecipe) -> Ragged {
    at_caller! {
        tokens!("rollout"; lp);
        let log_ratio = sequence_log_ratio(lp, &rollout.old, &rollout.response());
        match positive("rollout", "seq_ratio_log_cap", config.seq_ratio_log_cap) {
            Ok(cap) => log_ratio.clamp_max(cap),
            Err(error) => refused(&log_ratio, error),
        }
    }
}
