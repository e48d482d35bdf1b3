use tinsmith_grad::{Ragged, Var};

use crate::aggregate::Reduction;
use crate::at_caller;
use crate::config::config;
use crate::inputs::{coefficients, out_of_range, positive};

/// What [`l1_with`] is taken of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MagnitudeTarget {
    /// The logprobs.
    #[default]
    Logprobs,
    /// The probabilities, `e^l`.
    Probs,
}

/// What [`l2_with`] measures distances from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Center {
    /// From 0.
    #[default]
    Zero,
    /// From the mean of all elements, with its gradient.
    Mean,
    /// From a number.
    At(f64),
}

config! {
    /// Options of [`l1_with`].
    pub struct L1Config {
        /// A factor.
        lambda: f64 = 1.0,
        /// Logprobs or probabilities.
        target: MagnitudeTarget = MagnitudeTarget::Logprobs,
        /// The sum or the mean over elements.
        reduction: Reduction = Reduction::Sum,
    }
}

config! {
    /// Options of [`l2_with`].
    pub struct L2Config {
        /// A factor.
        lambda: f64 = 1.0,
        /// Where the square is 0.
        center: Center = Center::Zero,
        /// If c, distances are limited to ±c before they are squared, so that far values have no
        /// gradient; above 0.
        clip: Option<f64> = None,
        /// The sum or the mean over elements.
        reduction: Reduction = Reduction::Sum,
    }
}

config! {
    /// Options of [`elastic_net`].
    pub struct ElasticNetConfig {
        /// A factor.
        lambda: f64 = 1.0,
        /// The share of the absolute value; the square has the rest.
        l1_ratio: f64 = 0.5,
        /// The sum or the mean over elements.
        reduction: Reduction = Reduction::Sum,
    }
}

config! {
    /// Options of [`output_magnitude`].
    pub struct OutputMagnitudeConfig {
        /// The magnitude that is aimed at.
        target: f64 = 1.0,
        /// `Mean` for the root of the mean square, `Sum` for that of the sum: the L2 norm.
        reduction: Reduction = Reduction::Mean,
    }
}

/// `Σ |l|`: constant push towards 0. Gradient: the sign of l, 0 at 0. See [`l1_with`] for options.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// assert_eq!(tinsmith_losses::regularize::l1(&ragged(&[vec![-3.0, -0.5], vec![-2.0]])).item()?, 5.5);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn l1(lp: &Ragged) -> Var {
    l1_with(lp, &L1Config::default())
}

/// [`l1`] with a factor, of logprobs or probabilities, summed or averaged.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{Reduction, regularize::{L1Config, l1_with}};
///
/// let lp = ragged(&[vec![-3.0, -1.0]]);
/// let config = L1Config::default().lambda(0.5).reduction(Reduction::Mean);
/// assert_eq!(l1_with(&lp, &config).item()?, 1.0);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn l1_with(lp: &Ragged, config: &L1Config) -> Var {
    at_caller! {
        coefficients!("l1", lp; config.lambda);
        let size = match config.target {
            MagnitudeTarget::Logprobs => lp.abs(),
            MagnitudeTarget::Probs => lp.exp(),
        };
        config.reduction.apply(size.values()) * config.lambda
    }
}

/// `Σ l²`: push towards 0 in proportion. Gradient: `2l`. See [`l2_with`] for options.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// assert_eq!(tinsmith_losses::regularize::l2(&ragged(&[vec![-3.0, -0.5], vec![-2.0]])).item()?, 13.25);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn l2(lp: &Ragged) -> Var {
    l2_with(lp, &L2Config::default())
}

/// [`l2`] of the distance from a center, with a factor and a limit, summed or averaged.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::regularize::{Center, L2Config, l2_with};
///
/// let lp = ragged(&[vec![-9.0, -2.0]]);
/// let config = L2Config::default().center(Center::At(-1.0)).clip(3.0);
/// assert_eq!(l2_with(&lp, &config).item()?, 10.0); // 3² + 1²
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn l2_with(lp: &Ragged, config: &L2Config) -> Var {
    at_caller! {
        coefficients!("l2", lp; config.lambda);
        let x = lp.values();
        let distance = match config.center {
            Center::Zero => x.clone(),
            Center::Mean => x - x.mean(),
            Center::At(center) => x - center,
        };
        let distance = match config.clip {
            Some(clip) => match positive("l2", "clip", clip) {
                Ok(clip) => distance.clamp(-clip, clip),
                Err(error) => return error.into(),
            },
            None => distance,
        };
        config.reduction.apply(&distance.square()) * config.lambda
    }
}

/// A mixture of [`l1`] and [`l2`]: `λ (a Σ |l| + (1 - a) Σ l²)`. Gradient:
/// `λ (a sign(l) + 2 (1 - a) l)`.
///
/// Zou and Hastie, 2005.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-3.0, -1.0]]);
/// assert_eq!(tinsmith_losses::regularize::elastic_net(&lp, &Default::default()).item()?, 7.0); // (4 + 10) / 2
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn elastic_net(lp: &Ragged, config: &ElasticNetConfig) -> Var {
    at_caller! {
        coefficients!("elastic_net", lp; config.lambda);
        let x = lp.values();
        if !(0.0..=1.0).contains(&config.l1_ratio) {
            let why = format!("`l1_ratio` is {}; it is a share from 0 to 1", config.l1_ratio);
            return out_of_range("elastic_net", why).into();
        }
        let mixture = x.abs() * config.l1_ratio + x.square() * (1.0 - config.l1_ratio);
        config.reduction.apply(&mixture) * config.lambda
    }
}

/// Keeps the size of the logprobs near a target: `(rms(l) - target)²`, over all elements.
///
/// Gradient: `2 (rms - target)·l/(n rms)`, 0 where all are 0.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-3.0; 4]]);
/// assert_eq!(tinsmith_losses::regularize::output_magnitude(&lp, &Default::default()).item()?, 4.0); // (3 - 1)²
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn output_magnitude(lp: &Ragged, config: &OutputMagnitudeConfig) -> Var {
    at_caller! {
        coefficients!("output_magnitude", lp; config.target);
        let norm = lp.values().norm();
        let magnitude = match config.reduction {
            Reduction::Sum => norm,
            Reduction::Mean => norm / (lp.values().elem_count().max(1) as f64).sqrt(),
        };
        (magnitude - config.target).square()
    }
}
