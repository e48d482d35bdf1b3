use tinsmith_grad::{Ragged, Var};

use super::ratio::{capped, clipped_surrogate, sequence_log_ratio};
use crate::aggregate::{Aggregation, aggregate};
use crate::at_caller;
use crate::clip::Clip;
use crate::config::config;
use crate::inputs::{coefficients, per_seq, per_token, tokens};
use crate::kl::k3;
use crate::masked::only;

/// What the importance ratio of [`grpo`] is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RatioLevel {
    /// Each token has its own ratio.
    #[default]
    Token,
    /// The tokens of a sequence share the geometric mean of their ratios, and each keeps its own
    /// gradient (GSPO-token).
    Sequence,
}

config! {
    /// Options of [`grpo`]. The default is GRPO; [`dapo`](GrpoConfig::dapo) and
    /// [`gspo_token`](GrpoConfig::gspo_token) are the other rows of the table that Fireworks
    /// documents.
    pub struct GrpoConfig {
        /// Whether tokens or sequences have a ratio.
        ratio: RatioLevel = RatioLevel::Token,
        /// The bounds of the ratio.
        clip: Clip = Clip::ratio(0.8, 1.2),
        /// If c, the loss of a token with a negative advantage is at most `-c·A`; above 1.
        dual_clip: Option<f64> = None,
        /// If c, the log ratio is limited to plus and minus c, and has no gradient beyond.
        ratio_log_cap: Option<f64> = None,
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
        GrpoConfig::default().clip(Clip::ratio(0.8, 1.28)).kl_beta(0.0)
    }

    /// GSPO-token: one ratio a sequence, clipped to 1 - 3e-4..1 + 4e-4; no KL; mean over sequences
    /// of token means. Zheng et al., 2025 (arXiv:2507.18071).
    pub fn gspo_token() -> Self {
        GrpoConfig::default()
            .ratio(RatioLevel::Sequence)
            .clip(Clip::ratio(0.9997, 1.0004))
            .kl_beta(0.0)
            .aggregation(Aggregation::SeqMeanTokenMean)
    }
}

/// Group-relative policy optimization: `agg(-min(r·A, clip(r)·A) + β k3(ref))`, with a clipped
/// ratio `r` to `old`.
///
/// `lp`, `old`, `reference` and `weights` are `[tokens]` per sequence; `advantages` is `[n]`, one
/// number a sequence ([`advantages::normalized`](crate::advantages::normalized) makes them of a
/// group's rewards). `weights` is 1 on the answer's tokens; a token of weight 0 takes no part,
/// whatever its logprobs. k3 is [`kl_k3`](crate::kl_k3), agg one of [`Aggregation`]. Gradient per
/// token, before aggregation: [`ppo`](crate::ppo)'s plus `β (1 - e^(ref - l))`. Shao et al., 2024
/// (arXiv:2402.03300).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{GrpoConfig, grpo};
///
/// let ln2 = 2f64.ln();
/// let lp = ragged(&[vec![-9.0, -0.5, -1.0], vec![-0.5]]);
/// let old = ragged(&[vec![-1.0, -0.5 - ln2, -1.0], vec![-0.5 - ln2]]); // ratios -, 2, 1; 2
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
        coefficients!("grpo", lp; config.kl_beta);
        tokens!("grpo"; lp, old, weights);
        let active = weights.ne(0.0);
        let advantages = per_seq("grpo", "advantages", advantages, lp.num_seqs());
        let advantages = only(&active, &lp.expand(&advantages));
        let log_ratio = match config.ratio {
            RatioLevel::Token => lp - old,
            RatioLevel::Sequence => sequence_log_ratio(lp, old, weights),
        };
        let log_ratio = capped("grpo", log_ratio, config.ratio_log_cap);
        let gain = clipped_surrogate("grpo", &log_ratio, &advantages, config.clip, config.dual_clip);
        let loss = match reference {
            Some(reference) if config.kl_beta != 0.0 => {
                let reference = per_token("grpo", "reference", reference);
                k3(&only(&active, &(reference - lp))) * config.kl_beta - gain
            }
            _ => -gain,
        };
        aggregate(&loss, weights, config.aggregation)
    }
}
