use tinsmith_grad::{Ragged, Var};

use super::ratio::{capped, weighted_ratio};
use crate::aggregate::{Aggregation, aggregate};
use crate::at_caller;
use crate::config::config;
use crate::inputs::{out_of_range, per_seq, tokens};
use crate::masked::only;

/// What [`dppo`] measures the policy's distance from the old one by: a divergence between the two
/// coins "this token or another", as only the sampled token's probability is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Divergence {
    /// Total variation, `|p - q|`.
    #[default]
    TotalVariation,
    /// KL(old ‖ policy), `q ln(q/p) + (1 - q) ln((1 - q)/(1 - p))`.
    Kl,
}

config! {
    /// Options of [`dppo`].
    pub struct DppoConfig {
        /// The measure.
        divergence: Divergence = Divergence::TotalVariation,
        /// The greatest divergence that a token may have and still be pushed on: 0.2 suits total
        /// variation, 0.05 KL.
        threshold: f64 = 0.2,
        /// If c, the log ratio is limited to plus and minus c, and has no gradient beyond.
        ratio_log_cap: Option<f64> = None,
        /// How tokens become one number.
        aggregation: Aggregation = Aggregation::TokenMean,
    }
}

/// Divergence proximal policy optimization: `agg(-M·r·A)`, where M leaves out the tokens whose
/// probability has moved too far already, in the direction in which they would be pushed.
///
/// `lp`, `old` and `weights` are `[tokens]` per sequence, `advantages` is `[n]`. With `p = e^l` and
/// `q = e^old`, M is 0 where the divergence of p from q is above the threshold and `A > 0, p > q`
/// or `A < 0, p < q`; else 1, without gradient. So a rare token may grow many times over, where
/// [`ppo`](crate::ppo)'s ratio would stop it, and a common one cannot fall far. Gradient per token,
/// before aggregation: `-M·r·A`. A token of weight 0 takes no part, whatever its logprobs. The
/// binary forms of Qi et al., 2026 (arXiv:2602.04879).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![0.04f64.ln(), 0.9f64.ln(), 0.3f64.ln()]]);
/// let old = ragged(&[vec![0.01f64.ln(), 0.6f64.ln(), 0.6f64.ln()]]); // ratios 4, 1.5, 0.5
/// let advantages = Var::from_vec(vec![1.0], &[1], &Device::Cpu);
/// let answer = ragged(&[vec![1.0; 3]]);
/// let loss = tinsmith_losses::dppo(&lp, &old, &advantages, &answer, &Default::default());
/// assert!((loss.item()? - -(4.0 + 0.0 + 0.5) / 3.0).abs() < 1e-12); // the second has gone too far
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn dppo(
    lp: &Ragged,
    old: &Ragged,
    advantages: &Var,
    weights: &Ragged,
    config: &DppoConfig,
) -> Var {
    at_caller! {
        tokens!("dppo"; lp, old, weights);
        if !(0.0..=f64::INFINITY).contains(&config.threshold) {
            let why = format!("the threshold is {}; it must be 0 or more", config.threshold);
            return out_of_range("dppo", why).into();
        }
        let active = weights.ne(0.0);
        let advantages = per_seq("dppo", "advantages", advantages, lp.num_seqs());
        let advantages = only(&active, &lp.expand(&advantages));
        let log_ratio = lp - old;
        // The direction in which the probability has gone, in the advantage's own: above 0 is away.
        let away = advantages.sign() * log_ratio.detach().sign();
        let far = divergence(&lp.detach(), old, config.divergence).gt(config.threshold);
        let advantages = far.where_(away.gt(0.0).where_(0.0, &advantages), &advantages);
        let log_ratio = capped("dppo", log_ratio, config.ratio_log_cap);
        aggregate(&-weighted_ratio(&log_ratio, &advantages), weights, config.aggregation)
    }
}

/// The divergence of each token's probability from the old one; constant.
#[track_caller]
fn divergence(lp: &Ragged, old: &Ragged, by: Divergence) -> Ragged {
    match by {
        Divergence::TotalVariation => (lp.exp() - old.exp()).abs(),
        Divergence::Kl => {
            // A probability of 1 leaves none for another token: it would be 0 · ln 0.
            let rest = |l: &Ragged| l.clamp_max(-1e-7).log1mexp();
            let q = old.exp();
            &q * (old - lp) + (1.0 - &q) * (rest(old) - rest(lp))
        }
    }
}
