use tinsmith_grad::{Ragged, Var};

use super::pairs::{margins, score_beside, smoothed};
use crate::aggregate::Reduction;
use crate::at_caller;
use crate::config::config;
use crate::inputs::positive_finite;

config! {
    /// Options of [`ipo`].
    pub struct IpoConfig {
        /// The margin that is aimed at is `1/(2β)`.
        beta: f64 = 0.1,
        /// The share of labels that are taken to be wrong, from 0 to 0.5.
        label_smoothing: f64 = 0.0,
        /// Whether `S` and `R` are means over tokens, so that the margin does not depend on length.
        length_average: bool = true,
        /// The mean or the sum over pairs.
        reduction: Reduction = Reduction::Mean,
    }
}

/// Identity preference optimization: `(h - 1/(2β))²` per pair, which aims at a margin instead of at
/// infinity.
///
/// `lp`, `reference` and `weights` are `[tokens]` per sequence. Gradient on the chosen sequence:
/// `2 (h - 1/(2β))·w/P`, over its length where lengths are averaged. Azar et al., 2023
/// (arXiv:2310.12036).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{IpoConfig, ipo};
///
/// let lp = ragged(&[vec![-1.0, -0.5], vec![-3.0]]);
/// let reference = ragged(&[vec![-1.5, -1.0], vec![-2.0]]);
/// let weights = ragged(&[vec![1.0, 1.0], vec![1.0]]);
/// let loss = ipo(&lp, &reference, &weights, &IpoConfig::default().beta(0.5));
/// assert_eq!(loss.item()?, 0.25); // h = 0.5 - (-1) = 1.5, aimed at 1
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn ipo(lp: &Ragged, reference: &Ragged, weights: &Ragged, config: &IpoConfig) -> Var {
    at_caller! {
        let h = margins(&score_beside("ipo", lp, reference, weights, config.length_average));
        let aim = match positive_finite("ipo", "beta", config.beta) {
            Ok(beta) => 0.5 / beta,
            Err(error) => return error.into(),
        };
        let loss = smoothed("ipo", &h, config.label_smoothing, |h| (h - aim).square());
        config.reduction.apply(&loss)
    }
}
