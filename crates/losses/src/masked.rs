//! What is masked takes no part, whatever stands there: NaN, infinities, values that overflow.
//!
//! A product with 0 does not do that, as 0 · NaN and 0 · ∞ are NaN, in the value and again in the
//! gradient. So values are selected, and before an op that can overflow, not after it. NaN where a
//! weight is not 0 stays NaN, so that it is found.

use tinsmith_grad::{DType, Ragged, Var};

/// `x·w`, and 0 where `w` is 0, whatever `x` is there. Its gradient is `w`.
#[track_caller]
pub(crate) fn masked(x: &Ragged, weights: &Ragged) -> Ragged {
    only(&weights.ne(0.0), x) * weights
}

/// `x` where the u8 mask is not 0, and 0 elsewhere, for ops that could overflow on what is masked.
#[track_caller]
pub(crate) fn only(mask: &Ragged, x: &Ragged) -> Ragged {
    mask.where_(x, 0.0)
}

/// `Σ w·x` of each sequence, `[n]`.
#[track_caller]
pub(crate) fn masked_sum_per_seq(x: &Ragged, weights: &Ragged) -> Var {
    masked(x, weights).sum_per_seq()
}

/// `Σ w·x / Σ w` of each sequence, `[n]`; 0 for a sequence without weight.
#[track_caller]
pub(crate) fn masked_mean_per_seq(x: &Ragged, weights: &Ragged) -> Var {
    masked_sum_per_seq(x, weights) / or_one(&total_per_seq(weights))
}

/// `Σ w` over all tokens, exactly 0 where weights of both signs cancel up to rounding.
#[track_caller]
pub(crate) fn total(weights: &Ragged) -> Var {
    without_rounding(weights.sum(), weights.abs().sum())
}

/// As [`total`], of each sequence: `[n]`.
#[track_caller]
pub(crate) fn total_per_seq(weights: &Ragged) -> Var {
    without_rounding(weights.sum_per_seq(), weights.abs().sum_per_seq())
}

/// `x`, but 1 where it is 0: what an empty sum is divided by.
#[track_caller]
pub(crate) fn or_one(x: &Var) -> Var {
    x.eq(0.0).select(1.0, x)
}

/// `sum`, or 0 where it is no more than the rounding of terms whose sizes add up to `size`.
#[track_caller]
fn without_rounding(sum: Var, size: Var) -> Var {
    let unit = match sum.dtype() {
        DType::F64 => f64::EPSILON,
        _ => f64::from(f32::EPSILON),
    };
    sum.abs().le(size * (16.0 * unit)).select(0.0, sum)
}
