use tinsmith_grad::Ragged;

use super::rollout::{Rollout, ones_like};
use super::tis::{TisConfig, TisLevel};
use crate::at_caller;
use crate::inputs::{out_of_range, positive, refused};
use crate::masked::{masked_mean_per_seq, only};

/// The weight of truncated importance sampling of each token,
/// `clip(e^clip(old - q, ±20), 0, cap)`, with q the sampler's logprobs; see [`TisConfig`] for its
/// variants, which the [`Rollout`] holds. It has no gradient; a token that is not active has the
/// weight of a ratio of 1.
///
/// Yao et al., 2025, "Your efficient RL framework secretly brings you off-policy RL training".
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::recipes::{Rollout, TisConfig, tis_weight};
///
/// let old = ragged(&[vec![-1.0, -1.0, -4.0]]);
/// let sampled = ragged(&[vec![-1.0, -4.0, -1.0]]); // ratios 1, e³, e^-3
/// let advantages = Var::from_vec(vec![1.0], &[1], &Device::Cpu);
/// let rollout = Rollout::new(&old, &advantages).sampled(&sampled);
/// let k = |config| tis_weight(&rollout.clone().tis(config)).values().to_vec::<f64>();
/// assert_eq!(k(TisConfig::default())?[..2], [1.0, 5.0]);
/// assert_eq!(k(TisConfig::default().icepop(2.0))?, [1.0, 0.0, 0.0]);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn tis_weight(rollout: &Rollout) -> Ragged {
    at_caller! {
        let Some(sampled) = &rollout.sampled else { return ones_like(&rollout.old) };
        let TisConfig { cap, log_cap, level, icepop } = rollout.tis;
        if !(cap >= 0.0 && icepop.is_none_or(|h| h >= 1.0)) {
            let why = format!("the cap is {cap}, IcePop's bound {icepop:?}; they must be at least 0 and 1");
            return refused(sampled, out_of_range("tis_weight", why));
        }
        let log_cap = match positive("tis_weight", "log_cap", log_cap) {
            Ok(log_cap) => log_cap,
            Err(error) => return refused(sampled, error),
        };
        let log_ratio = rollout.on_active(&(&rollout.old - sampled)).clamp(-log_cap, log_cap);
        match (level, icepop) {
            (TisLevel::Sequence, _) => {
                let mean = masked_mean_per_seq(&log_ratio, &rollout.active());
                rollout.old.expand(&mean.exp().clamp_max(cap))
            }
            (TisLevel::Token, None) => log_ratio.exp().clamp_max(cap),
            (TisLevel::Token, Some(h)) => {
                log_ratio.abs().gt(h.ln()).where_(0.0, log_ratio.exp().clamp_max(cap))
            }
        }
        .detach()
    }
}

/// `gain` times [`tis_weight`], which takes no part where the advantage is 0.
#[track_caller]
pub(super) fn weighted(gain: &Ragged, advantages: &Ragged, rollout: &Rollout) -> Ragged {
    match rollout.sampled {
        Some(_) => gain * only(&advantages.ne(0.0), &tis_weight(rollout)),
        None => gain.clone(),
    }
}
