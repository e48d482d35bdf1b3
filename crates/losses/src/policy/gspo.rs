use tinsmith_grad::{Ragged, Var};

use super::ratio::{capped, clipped_surrogate, sequence_log_ratio};
use crate::at_caller;
use crate::clip::Clip;
use crate::config::config;
use crate::inputs::tokens;
use crate::masked::only;

config! {
    /// Options of [`gspo`]. The trainers do not publish their defaults; these are the bounds of the
    /// method's paper, narrow because the mean log ratio of a sequence varies much less than that
    /// of a token.
    pub struct GspoConfig {
        /// The bounds of the sequence's importance ratio.
        clip: Clip = Clip::ratio(0.9997, 1.0004),
        /// If c, the loss of a token with a negative advantage is at most `-c·A`; above 1.
        dual_clip: Option<f64> = None,
        /// If c, the sequence's log ratio is limited to plus and minus c.
        ratio_log_cap: Option<f64> = None,
    }
}

/// Group sequence policy optimization: [`ppo`](crate::ppo) with one ratio a sequence,
/// `-Σ min(r·A, clip(r)·A)`.
///
/// All are `[tokens]` per sequence. `r_t = e^m·e^(l - sg(l))` has the value `e^m` on every token of
/// a sequence and a gradient on each, where `m` is the mean of `sg(l) - old` over the tokens with
/// `ratio_mask != 0`. Gradient: `-e^m·A` under PPO's condition on `e^m`, else 0. A token outside
/// the mask takes no part in the mean, one with advantage 0 none in the sum, whatever its logprobs;
/// a sequence with an empty mask contributes 0. Zheng et al., 2025 (arXiv:2507.18071); the `gspo`
/// of Tinker and Fireworks, where the mask is called `sequence_ratio_mask`.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{Clip, GspoConfig, gspo};
///
/// let lp = ragged(&[vec![-7.0, -0.5, -0.5]]);
/// let old = ragged(&[vec![-1.0, -0.5 - 4f64.ln(), -0.5]]);
/// let answer = ragged(&[vec![0.0, 1.0, 1.0]]); // log ratios ln 4 and 0: their mean is ln 2
/// let advantages = ragged(&[vec![0.0, 1.0, 1.0]]);
/// let config = GspoConfig::default().clip(Clip::eps(2.0));
/// let loss = gspo(&lp, &old, &advantages, &answer, &config);
/// assert!((loss.item()? + 4.0).abs() < 1e-12); // -(2 + 2)
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn gspo(
    lp: &Ragged,
    old: &Ragged,
    advantages: &Ragged,
    ratio_mask: &Ragged,
    config: &GspoConfig,
) -> Var {
    at_caller! {
        tokens!("gspo"; lp, old, advantages, ratio_mask);
        let dtype = lp.values().dtype();
        let mask = ratio_mask.ne(0.0).to_dtype(dtype);
        let counted = lp.expand(&mask.sum_per_seq()).ne(0.0);
        let log_ratio = capped("gspo", sequence_log_ratio(lp, old, &mask), config.ratio_log_cap);
        let advantages = only(&counted, advantages);
        -clipped_surrogate("gspo", &log_ratio, &advantages, config.clip, config.dual_clip).sum()
    }
}
