use tinsmith_grad::Ragged;

use super::LOG_CAP;
use super::rollout::{Rollout, ones_like};
use crate::aggregate::or_one;
use crate::at_caller;
use crate::config::config;

config! {
    /// The weight of truncated importance sampling, [`tis_weight`], which corrects for a sampler whose logprobs differ
    /// from the trainer's.
    pub struct TisConfig {
        /// The greatest weight.
        cap: f64 = 5.0,
        /// Whether each token has its weight, or all tokens of a sequence their geometric mean.
        level: TisLevel = TisLevel::Token,
        /// If h, tokens whose ratio is outside of `1/h..=h` are left out (IcePop); at token level only.
        icepop: Option<f64> = None,
    }
}

/// What the ratio of [`tis_weight`] is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TisLevel {
    /// Each token by itself.
    #[default]
    Token,
    /// The mean log ratio of a sequence's active tokens, for all of them.
    Sequence,
}

/// The weight of truncated importance sampling of each token, `clip(e^clip(old - q, ±20), 0, cap)`, with q the sampler's
/// logprobs; see [`TisConfig`] for its variants. It has no gradient; the weight of a token that is not active is of no
/// meaning.
///
/// Yao et al., 2025, "Your efficient RL framework secretly brings you off-policy RL training".
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::client::{Rollout, TisConfig, tis_weight};
///
/// let old = ragged(&[vec![-1.0, -1.0, -4.0]]);
/// let sampled = ragged(&[vec![-1.0, -4.0, -1.0]]); // ratios 1, e³, e^-3
/// let advantages = Var::from_vec(vec![1.0], &[1], &Device::Cpu);
/// let rollout = Rollout::new(&old, &advantages).sampled(&sampled);
/// let k = |config: TisConfig| tis_weight(&rollout, &config).values().to_vec::<f64>();
/// assert_eq!(k(TisConfig::default())?[..2], [1.0, 5.0]);
/// assert_eq!(k(TisConfig::default().icepop(2.0))?, [1.0, 0.0, 0.0]);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn tis_weight(rollout: &Rollout, config: &TisConfig) -> Ragged {
    at_caller! {
        let Some(sampled) = &rollout.sampled else { return ones_like(&rollout.old) };
        let log_ratio = (&rollout.old - sampled).clamp(-LOG_CAP, LOG_CAP);
        match (config.level, config.icepop) {
            (TisLevel::Sequence, _) => {
                let active = rollout.active();
                let mean = log_ratio.dot_per_seq(&active) / or_one(&active.sum_per_seq());
                rollout.old.expand(&mean.exp().clamp_max(config.cap))
            }
            (TisLevel::Token, None) => log_ratio.exp().clamp_max(config.cap),
            (TisLevel::Token, Some(h)) => {
                log_ratio.abs().gt(h.ln()).where_(0.0, log_ratio.exp().clamp_max(config.cap))
            }
        }
        .detach()
    }
}
