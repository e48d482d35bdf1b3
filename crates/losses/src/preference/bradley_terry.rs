use tinsmith_grad::{Ragged, Var};

use super::pairs::{margins, negative_log_sigmoid, score, smoothed};
use crate::aggregate::Reduction;
use crate::at_caller;
use crate::config::config;
use crate::inputs::coefficients;

config! {
    /// Options of [`bradley_terry`].
    pub struct BradleyTerryConfig {
        /// How much a unit of score is worth.
        beta: f64 = 1.0,
        /// The share of labels that are taken to be wrong, from 0 to 0.5.
        label_smoothing: f64 = 0.0,
        /// Whether the score is the mean over tokens instead of the sum.
        length_average: bool = false,
        /// The mean or the sum over pairs.
        reduction: Reduction = Reduction::Mean,
    }
}

/// Bradley-Terry likelihood of the preferences: `-ln σ(β (S_c - S_r))` per pair, on the sequences'
/// own logprobs.
///
/// `lp` and `weights` are `[tokens]` per sequence. Gradient on the chosen sequence:
/// `-β σ(β (S_r - S_c))·w/P`. Bradley and Terry, 1952; the pairwise custom loss of Fireworks'
/// documentation.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-1.0, -0.5], vec![-1.5 - 3f64.ln()]]);
/// let weights = ragged(&[vec![1.0, 1.0], vec![1.0]]);
/// let loss = tinsmith_losses::bradley_terry(&lp, &weights, &Default::default());
/// assert!((loss.item()? - (4.0f64 / 3.0).ln()).abs() < 1e-12); // σ(ln 3) = 3/4
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn bradley_terry(lp: &Ragged, weights: &Ragged, config: &BradleyTerryConfig) -> Var {
    at_caller! {
        coefficients!("bradley_terry", lp; config.beta);
        let z = margins(&score("bradley_terry", lp, weights, config.length_average)) * config.beta;
        let loss = smoothed("bradley_terry", &z, config.label_smoothing, negative_log_sigmoid);
        config.reduction.apply(&loss)
    }
}
