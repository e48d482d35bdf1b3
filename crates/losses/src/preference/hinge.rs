use tinsmith_grad::{Ragged, Var};

use super::pairs::{margins, score_beside, smoothed};
use crate::aggregate::Reduction;
use crate::at_caller;
use crate::config::config;
use crate::inputs::coefficients;

config! {
    /// Options of [`hinge`].
    pub struct HingeConfig {
        /// The margin that is enough is `1/β`.
        beta: f64 = 0.1,
        /// The share of labels that are taken to be wrong, from 0 to 0.5.
        label_smoothing: f64 = 0.0,
        /// Whether `S` and `R` are means over tokens instead of sums.
        length_average: bool = false,
        /// The mean or the sum over pairs.
        reduction: Reduction = Reduction::Mean,
    }
}

/// Hinge loss on the margin: `max(0, 1 - β h)` per pair, which is content with a margin of `1/β`.
///
/// `lp`, `reference` and `weights` are `[tokens]` per sequence. Gradient on the chosen sequence:
/// `-β·w/P` where `β h < 1`, else 0. SLiC-HF, Zhao et al., 2023 (arXiv:2305.10425), with a
/// reference as DPO has it.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{HingeConfig, hinge};
///
/// let lp = ragged(&[vec![-0.5], vec![-3.0], vec![-1.0], vec![-1.0]]);
/// let reference = ragged(&[vec![-1.5], vec![-2.0], vec![-1.0], vec![-1.0]]);
/// let weights = ragged(&vec![vec![1.0]; 4]);
/// let loss = hinge(&lp, &reference, &weights, &HingeConfig::default().beta(0.25));
/// assert_eq!(loss.item()?, 0.75); // margins 2 and 0: (0.5 + 1) / 2
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn hinge(lp: &Ragged, reference: &Ragged, weights: &Ragged, config: &HingeConfig) -> Var {
    at_caller! {
        coefficients!("hinge", lp; config.beta);
        let scores = score_beside("hinge", lp, reference, weights, config.length_average);
        let z = margins(&scores) * config.beta;
        let loss = smoothed("hinge", &z, config.label_smoothing, |z| (1.0 - z).relu());
        config.reduction.apply(&loss)
    }
}
