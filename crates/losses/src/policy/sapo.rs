use tinsmith_grad::{Ragged, Var};

use super::ratio::{capped, importance};
use crate::aggregate::{Aggregation, aggregate};
use crate::at_caller;
use crate::config::config;
use crate::inputs::{per_seq, positive_finite, tokens};
use crate::masked::only;

config! {
    /// Options of [`sapo`].
    pub struct SapoConfig {
        /// The temperature of the gate where the advantage is positive; above 0.
        tau_pos: f64 = 1.0,
        /// The temperature of the gate elsewhere; above 0. Greater, since negative advantages
        /// destabilize more.
        tau_neg: f64 = 1.05,
        /// If c, the log ratio is limited to plus and minus c, and has no gradient beyond.
        ratio_log_cap: Option<f64> = None,
        /// How tokens become one number.
        aggregation: Aggregation = Aggregation::SeqMeanTokenMean,
    }
}

/// Soft adaptive policy optimization: `agg(-f(r)·A)` with the gate `f(r) = (4/τ) σ(τ (r - 1))` in
/// place of a clip.
///
/// `lp`, `old` and `weights` are `[tokens]` per sequence, `advantages` is `[n]`; τ is `tau_pos` for
/// a positive advantage, else `tau_neg`. A token of weight 0 takes no part, whatever its logprobs.
/// Gradient per token, before aggregation: `-4 σ(x) σ(-x)·r·A` with `x = τ (r - 1)`: that of
/// [`importance_sampling`](crate::importance_sampling) at `r = 1`, and fading away from there on
/// both sides. Gao et al. (Qwen), 2025 (arXiv:2511.20347).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-0.5], vec![-0.5]]);
/// let old = ragged(&[vec![-0.5], vec![-0.5 - (1.0 + 3f64.ln()).ln()]]); // ratios 1, 1 + ln 3
/// let advantages = Var::from_vec(vec![1.0, 2.0], &[2], &Device::Cpu);
/// let answer = ragged(&[vec![1.0], vec![1.0]]);
/// let loss = tinsmith_losses::sapo(&lp, &old, &advantages, &answer, &Default::default());
/// assert!((loss.item()? - -(2.0 + 2.0 * 3.0) / 2.0).abs() < 1e-12); // 4 σ(0) and 4 σ(ln 3)
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn sapo(
    lp: &Ragged,
    old: &Ragged,
    advantages: &Var,
    weights: &Ragged,
    config: &SapoConfig,
) -> Var {
    at_caller! {
        tokens!("sapo"; lp, old, weights);
        let tau = |name, tau| positive_finite("sapo", name, tau);
        let (pos, neg) = match (tau("tau_pos", config.tau_pos), tau("tau_neg", config.tau_neg)) {
            (Ok(pos), Ok(neg)) => (pos, neg),
            (Err(error), _) | (_, Err(error)) => return error.into(),
        };
        let active = weights.ne(0.0);
        let advantages = per_seq("sapo", "advantages", advantages, lp.num_seqs());
        let advantages = only(&active, &lp.expand(&advantages));
        let log_ratio = only(&advantages.ne(0.0), &(lp - old));
        let log_ratio = capped("sapo", log_ratio, config.ratio_log_cap);
        // Beyond this ratio the gate is flat to the last bit, and its gradient 0, where an infinite
        // ratio would make it 0 · ∞.
        let flat = (1.0 + 800.0 / pos.min(neg)).ln();
        let distance = importance(&log_ratio.clamp_max(flat)) - 1.0;
        let gate = |tau: f64| (&distance * tau).sigmoid() * (4.0 / tau);
        let gate = advantages.gt(0.0).where_(gate(pos), gate(neg));
        aggregate(&-(gate * advantages), weights, config.aggregation)
    }
}
