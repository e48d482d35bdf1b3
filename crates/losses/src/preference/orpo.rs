use tinsmith_grad::{Ragged, Var};

use super::pairs::{negative_log_sigmoid, pairs, smoothed};
use crate::aggregate::Reduction;
use crate::at_caller;
use crate::config::config;
use crate::inputs::{coefficients, tokens};
use crate::masked::masked_sum_per_seq;

config! {
    /// Options of [`orpo`].
    pub struct OrpoConfig {
        /// The weight λ of the odds-ratio term.
        lambda: f64 = 1.0,
        /// The share of labels that are taken to be wrong, from 0 to 0.5; of the odds-ratio term
        /// alone.
        label_smoothing: f64 = 0.0,
        /// The sum or the mean over pairs.
        reduction: Reduction = Reduction::Sum,
    }
}

/// Odds-ratio preference optimization: `-v_c - λ ln σ(o)` per pair, imitation of the chosen
/// sequence and preference in one.
///
/// `lp` and `weights` are `[tokens]` per sequence. `v = Σ w·l / n` with `n = max(Σ w, 1)` is a
/// sequence's mean logprob; o the log odds ratio, see [`orpo_log_odds_ratio`]. Pairs are
/// interleaved; there is no reference. Gradient: chosen `-(w/n) (1 + λ σ(-o)/(1 - e^v))`, rejected
/// `+(w/n) λ σ(-o)/(1 - e^v)`, without the odds term where v is limited. Hong et al., 2024
/// (arXiv:2403.07691), in the form of Fireworks' cookbook.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![0.75f64.ln()], vec![0.5f64.ln()]]); // odds 3 and 1
/// let weights = ragged(&[vec![1.0], vec![1.0]]);
/// let loss = tinsmith_losses::orpo(&lp, &weights, &Default::default());
/// // -ln 0.75 - ln σ(ln 3) = 2 ln 4/3
/// assert!((loss.item()? - 2.0 * (4.0f64 / 3.0).ln()).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn orpo(lp: &Ragged, weights: &Ragged, config: &OrpoConfig) -> Var {
    at_caller! {
        coefficients!("orpo", lp; config.lambda);
        let means = mean_over_at_least_one(lp, weights);
        let (chosen, _) = pairs(&means);
        let odds = log_odds_ratio(&means);
        let preference = smoothed("orpo", &odds, config.label_smoothing, negative_log_sigmoid);
        config.reduction.apply(&(preference * config.lambda - chosen))
    }
}

/// The log odds ratio of each pair, `[P]`: `o = f(v_c) - f(v_r)` with `f(v) = ln(e^v / (1 - e^v))`.
///
/// v is limited to `-50..=-1e-6`, as a probability of 1 has infinite odds. The share above 0 is
/// [`orpo`]'s accuracy.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![0.75f64.ln()], vec![0.5f64.ln()]]);
/// let weights = ragged(&[vec![1.0], vec![1.0]]);
/// let odds = tinsmith_losses::orpo_log_odds_ratio(&lp, &weights).to_vec::<f64>()?;
/// assert!((odds[0] - 3f64.ln()).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn orpo_log_odds_ratio(lp: &Ragged, weights: &Ragged) -> Var {
    at_caller! { log_odds_ratio(&mean_over_at_least_one(lp, weights)) }
}

#[track_caller]
fn mean_over_at_least_one(lp: &Ragged, weights: &Ragged) -> Var {
    tokens!("orpo"; lp, weights);
    masked_sum_per_seq(lp, weights) / weights.sum_per_seq().clamp_min(1.0)
}

#[track_caller]
fn log_odds_ratio(means: &Var) -> Var {
    let v = means.clamp(-50.0, -1e-6);
    let (chosen, rejected) = pairs(&(&v - v.log1mexp()));
    chosen - rejected
}
