//! From one value per token to one number.

use tinsmith_grad::{Ragged, Var};

use crate::at_caller;
use crate::inputs::{out_of_range, tokens};
use crate::masked::{masked, masked_sum_per_seq, or_one, total, total_per_seq};

/// How [`aggregate`] makes one number of a batch of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Aggregation {
    /// The sum over all tokens: what the trainers' built-in losses do. Long answers and big batches
    /// weigh more.
    #[default]
    Sum,
    /// The mean over all active tokens of the batch (DAPO): each token weighs the same, long
    /// answers weigh more.
    TokenMean,
    /// The mean over active sequences of their token sums.
    SeqMeanTokenSum,
    /// The mean over active sequences of their token means (GRPO's paper, GSPO): each sequence
    /// weighs the same.
    SeqMeanTokenMean,
    /// The sum over all tokens over a constant, such as sequences times the most tokens that one
    /// may have (Dr. GRPO, Liu et al., 2025, arXiv:2503.20783): each token weighs the same in every
    /// batch, whatever the lengths; above 0.
    SumOver(f64),
}

/// How a loss with one value per pair of sequences makes one number of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reduction {
    /// The mean.
    Mean,
    /// The sum, for a batch that is sent in parts.
    Sum,
}

impl Reduction {
    pub(crate) fn apply(self, values: &Var) -> Var {
        match self {
            Reduction::Mean => values.sum() / values.elem_count().max(1) as f64,
            Reduction::Sum => values.sum(),
        }
    }
}

/// One number from a value per token, weighted: see [`Aggregation`] for the ways.
///
/// `x` and `weights` are `[tokens]` per sequence. A mask of 0 and 1 is the usual weight; in a mean,
/// weights divide as well as multiply. Where the weight is 0, `x` takes no part whatever it is; its
/// gradient there is 0, so what `x` was computed from must be finite for that to remain 0. A
/// sequence whose weights sum to 0 does not count as a sequence, and a batch without any weight
/// gives 0 with gradients of 0, where a plain division would give NaN.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{Aggregation::*, aggregate};
///
/// let x = ragged(&[vec![1.0, 2.0, 3.0], vec![6.0], vec![100.0]]);
/// let mask = ragged(&[vec![0.0, 1.0, 1.0], vec![1.0], vec![0.0]]);
/// assert_eq!(aggregate(&x, &mask, Sum).item()?, 11.0); // 2 + 3 + 6
/// assert!((aggregate(&x, &mask, TokenMean).item()? - 11.0 / 3.0).abs() < 1e-15);
/// // (5 + 6) / 2 and (2.5 + 6) / 2: the third does not count
/// assert_eq!(aggregate(&x, &mask, SeqMeanTokenSum).item()?, 5.5);
/// assert_eq!(aggregate(&x, &mask, SeqMeanTokenMean).item()?, 4.25);
/// assert_eq!(aggregate(&x, &mask, SumOver(4.0)).item()?, 2.75);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn aggregate(x: &Ragged, weights: &Ragged, how: Aggregation) -> Var {
    at_caller! {
        tokens!("aggregate"; x, weights);
        let sum = || masked(x, weights).sum();
        let per_seq = || masked_sum_per_seq(x, weights);
        let weight = || total_per_seq(weights);
        let active = || or_one(&weight().ne(0.0).to_dtype(x.values().dtype()).sum());
        match how {
            Aggregation::Sum => sum(),
            Aggregation::TokenMean => sum() / or_one(&total(weights)),
            Aggregation::SeqMeanTokenSum => per_seq().sum() / active(),
            Aggregation::SeqMeanTokenMean => (per_seq() / or_one(&weight())).sum() / active(),
            Aggregation::SumOver(constant) if constant > 0.0 && constant.is_finite() => sum() / constant,
            Aggregation::SumOver(constant) => {
                let why = format!("a sum cannot be divided by {constant}; it must be above 0 and finite");
                out_of_range("aggregate", why).into()
            }
        }
    }
}
