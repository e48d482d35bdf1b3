use tinsmith_grad::{Ragged, Var};

use super::pairs::{margins, negative_log_sigmoid, score, smoothed};
use crate::aggregate::Reduction;
use crate::at_caller;
use crate::config::config;
use crate::inputs::coefficients;

config! {
    /// Options of [`simpo`].
    pub struct SimpoConfig {
        /// How much a unit of mean logprob is worth.
        beta: f64 = 2.0,
        /// The margin that is aimed at, after scaling by `beta`.
        gamma: f64 = 0.5,
        /// The share of labels that are taken to be wrong, from 0 to 0.5; such a label turns the
        /// whole argument of σ round, γ included, as in TRL.
        label_smoothing: f64 = 0.0,
        /// The mean or the sum over pairs.
        reduction: Reduction = Reduction::Mean,
    }
}

/// Simple preference optimization: `-ln σ(β (S_c/n_c - S_r/n_r) - γ)` per pair. It needs no
/// reference.
///
/// `lp` and `weights` are `[tokens]` per sequence; n is the sum of a sequence's weights. Gradient
/// on the chosen sequence: `-β σ(-z)·w/(n_c P)` with z the argument of σ. Meng et al., 2024
/// (arXiv:2405.14734).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-1.0, -0.5], vec![-1.0]]);
/// let weights = ragged(&[vec![1.0, 1.0], vec![1.0]]);
/// // 2 · (-0.75 + 1) - 0.5 = 0, and σ(0) = 1/2
/// let loss = tinsmith_losses::simpo(&lp, &weights, &Default::default());
/// assert!((loss.item()? - 2f64.ln()).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn simpo(lp: &Ragged, weights: &Ragged, config: &SimpoConfig) -> Var {
    at_caller! {
        coefficients!("simpo", lp; config.beta, config.gamma);
        let z = margins(&score("simpo", lp, weights, true)) * config.beta - config.gamma;
        let loss = smoothed("simpo", &z, config.label_smoothing, negative_log_sigmoid);
        config.reduction.apply(&loss)
    }
}
