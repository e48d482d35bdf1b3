//! Group-relative policy optimisation and its relatives, as the published tables of methods give them.

use tinsmith_grad::{Ragged, Var};

use crate::aggregate::{Aggregation, aggregate};
use crate::at_caller;
use crate::config::config;
use crate::kl::k3;
use crate::policy::{clipped_surrogate, sequence_log_ratio};
use crate::sequence::sequence_logprob;

/// What the importance ratio of [`grpo`] is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RatioLevel {
    /// Each token has its own ratio.
    #[default]
    Token,
    /// The tokens of a sequence share the geometric mean of their ratios, and each keeps its own gradient (GSPO-token).
    Sequence,
}

config! {
    /// Options of [`grpo`]. The default is GRPO; [`dapo`](GrpoConfig::dapo) and [`gspo_token`](GrpoConfig::gspo_token) are the
    /// other rows of the table that Fireworks documents.
    pub struct GrpoConfig {
        /// Whether tokens or sequences have a ratio.
        ratio: RatioLevel = RatioLevel::Token,
        /// The lower bound of the ratio.
        clip_low: f64 = 0.8,
        /// The upper bound of the ratio.
        clip_high: f64 = 1.2,
        /// The weight of the KL term; it takes effect if a reference is given.
        kl_beta: f64 = 0.001,
        /// How tokens become one number.
        aggregation: Aggregation = Aggregation::TokenMean,
    }
}

impl GrpoConfig {
    /// DAPO: ratios clipped to 0.8..1.28, so that rare tokens may grow; no KL; mean over tokens.
    /// Yu et al., 2025 (arXiv:2503.14476).
    pub fn dapo() -> Self {
        GrpoConfig::default().clip_high(1.28).kl_beta(0.0)
    }

    /// GSPO-token: one ratio a sequence, clipped to 1 - 3e-4..1 + 4e-4; no KL; mean over sequences of token means.
    /// Zheng et al., 2025 (arXiv:2507.18071).
    pub fn gspo_token() -> Self {
        GrpoConfig::default()
            .ratio(RatioLevel::Sequence)
            .clip_low(0.9997)
            .clip_high(1.0004)
            .kl_beta(0.0)
            .aggregation(Aggregation::SeqMeanTokenMean)
    }
}

/// Group-relative policy optimisation: `agg(-min(r·A, clip(r)·A) + β k3(ref))`, with a clipped ratio `r` to `old`.
///
/// `lp`, `old`, `reference` and `weights` are `[tokens]` per sequence; `advantages` is `[n]`, one number a sequence
/// ([`advantages::normalized`](crate::advantages::normalized) makes them of a group's rewards). `weights` is 1 on the answer's
/// tokens; a token of weight 0 takes no part, whatever its logprobs. k3 is [`kl_k3`](crate::kl_k3), agg one of
/// [`Aggregation`].
/// Gradient per token, before aggregation: [`ppo`](crate::ppo)'s plus `β (1 - e^(ref - l))`.
/// Shao et al., 2024 (arXiv:2402.03300).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{GrpoConfig, grpo};
///
/// let lp = ragged(&[vec![-9.0, -0.5, -1.0], vec![-0.5]]);
/// let old = ragged(&[vec![-1.0, -0.5 - 2f64.ln(), -1.0], vec![-0.5 - 2f64.ln()]]); // ratios -, 2, 1; 2
/// let answer = ragged(&[vec![0.0, 1.0, 1.0], vec![1.0]]);
/// let advantages = Var::from_vec(vec![1.0, -1.0], &[2], &Device::Cpu);
/// let loss = grpo(&lp, &old, None, &advantages, &answer, &GrpoConfig::default());
/// assert!((loss.item()? - -(1.2 + 1.0 - 2.0) / 3.0).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn grpo(
    lp: &Ragged,
    old: &Ragged,
    reference: Option<&Ragged>,
    advantages: &Var,
    weights: &Ragged,
    config: &GrpoConfig,
) -> Var {
    at_caller! {
        let active = weights.ne(0.0);
        let advantages = active.where_(lp.expand(advantages), 0.0);
        let log_ratio = match config.ratio {
            RatioLevel::Token => lp - old,
            RatioLevel::Sequence => sequence_log_ratio(lp, old, weights),
        };
        let gain = clipped_surrogate(&log_ratio, &advantages, config.clip_low, config.clip_high);
        let per_token = match reference {
            Some(reference) if config.kl_beta != 0.0 => {
                k3(&active.where_(reference - lp, 0.0)) * config.kl_beta - gain
            }
            _ => -gain,
        };
        aggregate(&per_token, weights, config.aggregation)
    }
}

/// Policy gradient with a KL penalty, in one step of sampling: `(1/N) Σ_i [-A_i Σ w·l + β Σ w·(l - ref)]`.
///
/// `advantages` is `[n]`; there is no ratio and no clipping, so it is right only for the first update after sampling.
/// Gradient: `w (β - A_i)/N`. The KL is [`kl_k1`](crate::kl_k1), whose gradient is a constant push down on the sampled tokens and
/// not a pull towards the reference; [`grpo`] has the better one. The GRPO example of Fireworks' documentation, where β is
/// 0.001.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-1.0, -0.5], vec![-2.0]]);
/// let reference = ragged(&[vec![-1.0, -1.5], vec![-2.0]]);
/// let weights = ragged(&[vec![0.0, 1.0], vec![1.0]]);
/// let advantages = Var::from_vec(vec![1.0, -0.5], &[2], &Device::Cpu);
/// let loss = tinsmith_losses::reinforce_kl(&lp, &reference, &advantages, &weights, 0.25);
/// assert_eq!(loss.item()?, -0.125); // (0.5 - 1 + 0.25 · (1 + 0)) / 2
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn reinforce_kl(
    lp: &Ragged,
    reference: &Ragged,
    advantages: &Var,
    weights: &Ragged,
    beta: f64,
) -> Var {
    at_caller! {
        let reward = sequence_logprob(lp, weights) * advantages;
        let kl = sequence_logprob(&(lp - reference), weights) * beta;
        (kl - reward).mean()
    }
}
