//! Estimates of the KL divergence from the logprobs of sampled tokens, and the penalty made of
//! them.
//!
//! With samples from the policy and `d = ref - l` these are the estimators of Schulman,
//! "Approximating KL divergence",
//! 2020. Each returns one value per token; average it with [`aggregate`](crate::aggregate) or a
//!       mean.

use tinsmith_grad::{Ragged, Var};

use crate::aggregate::{Aggregation, aggregate};
use crate::at_caller;
use crate::inputs::{alike, tokens};
use crate::masked::only;

/// The choice between [`kl_k1`], [`kl_k2`], [`kl_k3`] and [`kl_abs`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KlEstimator {
    /// `l - ref`.
    K1,
    /// `(ref - l)²/2`.
    K2,
    /// `e^(ref - l) - (ref - l) - 1`.
    #[default]
    K3,
    /// `|ref - l|`.
    Abs,
}

impl KlEstimator {
    /// The estimate from `d = ref - l`.
    #[track_caller]
    fn of(self, d: &Ragged) -> Ragged {
        match self {
            KlEstimator::K1 => -d,
            KlEstimator::K2 => d.square() * 0.5,
            KlEstimator::K3 => k3(d),
            KlEstimator::Abs => d.abs(),
        }
    }
}

/// The log ratio itself, `l - ref`: unbiased, of either sign, of high variance. Gradient: 1.
///
/// As a loss it does not pull towards the reference: its gradient is a constant push down on every
/// sampled token. Use it as a figure to watch, or inside of a reward.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-1.0, -2.0]]);
/// let reference = ragged(&[vec![-1.5, -2.0]]);
/// assert_eq!(tinsmith_losses::kl_k1(&lp, &reference).values().to_vec::<f64>()?, [0.5, 0.0]);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn kl_k1(lp: &Ragged, reference: &Ragged) -> Ragged {
    at_caller! {
        alike!("kl_k1"; lp, reference);
        KlEstimator::K1.of(&(reference - lp))
    }
}

/// Half the squared log ratio, `d²/2`: biased, of low variance. Gradient: `l - ref`, an unbiased
/// gradient of the KL.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-1.0, -2.0]]);
/// let reference = ragged(&[vec![-1.5, -2.0]]);
/// assert_eq!(tinsmith_losses::kl_k2(&lp, &reference).values().to_vec::<f64>()?, [0.125, 0.0]);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn kl_k2(lp: &Ragged, reference: &Ragged) -> Ragged {
    at_caller! {
        alike!("kl_k2"; lp, reference);
        KlEstimator::K2.of(&(reference - lp))
    }
}

/// `e^d - d - 1`: unbiased, never negative, of low variance near the reference. Gradient:
/// `1 - e^d`.
///
/// The KL term of GRPO (Shao et al., 2024, arXiv:2402.03300). Computed as `expm1(d) - d`, which
/// keeps its digits for small `d`. Infinite where a token is more likely to the reference by more
/// than e^88 in f32, e^709 in f64.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-1.0 - 2f64.ln(), -2.0]]);
/// let reference = ragged(&[vec![-1.0, -2.0]]);
/// let kl = tinsmith_losses::kl_k3(&lp, &reference).values().to_vec::<f64>()?;
/// assert!((kl[0] - 0.306_852_819_440_054_7).abs() < 1e-12 && kl[1] == 0.0); // 2 - ln 2 - 1
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn kl_k3(lp: &Ragged, reference: &Ragged) -> Ragged {
    at_caller! {
        alike!("kl_k3"; lp, reference);
        KlEstimator::K3.of(&(reference - lp))
    }
}

/// The size of the log ratio, `|d|`. Gradient: `sign(l - ref)`, 0 where they are equal.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-1.0, -2.0]]);
/// let reference = ragged(&[vec![-0.5, -2.5]]);
/// assert_eq!(tinsmith_losses::kl_abs(&lp, &reference).values().to_vec::<f64>()?, [0.5, 0.5]);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn kl_abs(lp: &Ragged, reference: &Ragged) -> Ragged {
    at_caller! {
        alike!("kl_abs"; lp, reference);
        KlEstimator::Abs.of(&(reference - lp))
    }
}

/// A KL estimate over the weighted tokens as one number, to add to a loss:
/// `loss + 0.001 * kl_penalty(...)`.
///
/// `lp`, `reference` and `weights` are `[tokens]` per sequence. A token of weight 0 takes no part,
/// whatever its logprobs, where the average of a plain [`kl_k3`] would have a gradient of 0 · ∞ if
/// it overflows there.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{Aggregation, KlEstimator, kl_penalty};
///
/// let lp = ragged(&[vec![-1.0, -2.0], vec![-3.0]]);
/// let reference = ragged(&[vec![-1.5, -4.0], vec![-2.0]]);
/// let answer = ragged(&[vec![0.0, 1.0], vec![1.0]]);
/// let kl = kl_penalty(&lp, &reference, &answer, KlEstimator::K2, Aggregation::TokenMean);
/// assert_eq!(kl.item()?, 1.25); // (2 + 0.5) / 2
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn kl_penalty(
    lp: &Ragged,
    reference: &Ragged,
    weights: &Ragged,
    estimator: KlEstimator,
    aggregation: Aggregation,
) -> Var {
    at_caller! {
        tokens!("kl_penalty"; lp, reference, weights);
        let d = only(&weights.ne(0.0), &(reference - lp));
        aggregate(&estimator.of(&d), weights, aggregation)
    }
}

/// The entropy of the policy per token as its samples show it: the mean of `-l` over the weighted
/// tokens.
///
/// An estimate, noisy for few tokens: the entropy itself needs the probabilities of all tokens, not
/// of the sampled one.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-9.0, -2.0], vec![-3.0]]);
/// let answer = ragged(&[vec![0.0, 1.0], vec![1.0]]);
/// assert_eq!(tinsmith_losses::sample_entropy(&lp, &answer).item()?, 2.5);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn sample_entropy(lp: &Ragged, weights: &Ragged) -> Var {
    at_caller! { aggregate(&-lp, weights, Aggregation::TokenMean) }
}

/// `e^d - d - 1`.
#[track_caller]
pub(crate) fn k3(d: &Ragged) -> Ragged {
    d.expm1() - d
}
