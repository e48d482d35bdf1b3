use tinsmith_grad::{Ragged, Var};

use super::pairs::{margins, negative_log_sigmoid, score_beside, smoothed};
use crate::aggregate::Reduction;
use crate::at_caller;
use crate::config::config;
use crate::inputs::coefficients;

config! {
    /// Options of [`dpo`].
    pub struct DpoConfig {
        /// How much a unit of log ratio is worth; small values let the policy go far from the
        /// reference.
        beta: f64 = 0.1,
        /// The share of labels that are taken to be wrong (conservative DPO), from 0 to 0.5.
        label_smoothing: f64 = 0.0,
        /// Whether `S` and `R` are means over tokens instead of sums.
        length_average: bool = false,
        /// The mean over pairs, or their sum for a batch that is sent in parts.
        reduction: Reduction = Reduction::Mean,
    }
}

/// Direct preference optimization: `-ln σ(β h)` per pair; with label smoothing e,
/// `-(1-e) ln σ(β h) - e ln σ(-β h)`.
///
/// `lp`, `reference` and `weights` are `[tokens]` per sequence. Gradient on the chosen sequence:
/// `-β σ(-β h)·w/P`. Computed with a `log_sigmoid` that neither overflows nor underflows. Rafailov
/// et al., 2023 (arXiv:2305.18290); label smoothing: Mitchell, 2023. Watch it by
/// [`preference_metrics`](crate::preference_metrics) of the
/// [`implicit_reward`](crate::implicit_reward).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{DpoConfig, dpo};
///
/// let lp = ragged(&[vec![-1.0, -0.5], vec![-3.0]]); // one pair: chosen, rejected
/// let reference = ragged(&[vec![-1.0, -1.5], vec![-2.0]]);
/// let weights = ragged(&[vec![0.0, 1.0], vec![1.0]]);
/// let loss = dpo(&lp, &reference, &weights, &DpoConfig::default().beta(3f64.ln() / 2.0));
/// // h = 1 - (-1) = 2, so σ(β h) = σ(ln 3) = 3/4
/// assert!((loss.item()? - (4.0f64 / 3.0).ln()).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn dpo(lp: &Ragged, reference: &Ragged, weights: &Ragged, config: &DpoConfig) -> Var {
    at_caller! {
        coefficients!("dpo", lp; config.beta);
        let scores = score_beside("dpo", lp, reference, weights, config.length_average);
        let z = margins(&scores) * config.beta;
        let loss = smoothed("dpo", &z, config.label_smoothing, negative_log_sigmoid);
        config.reduction.apply(&loss)
    }
}
