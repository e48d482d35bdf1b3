//! Arithmetic, comparisons and selection: one instruction or two each, the same bits on every
//! machine.

use super::Real;
use std::hint::select_unpredictable;

#[inline(always)]
pub(super) fn add<T: Real>(a: T, b: T) -> T {
    a + b
}

#[inline(always)]
pub(super) fn sub<T: Real>(a: T, b: T) -> T {
    a - b
}

#[inline(always)]
pub(super) fn mul<T: Real>(a: T, b: T) -> T {
    a * b
}

#[inline(always)]
pub(super) fn div<T: Real>(a: T, b: T) -> T {
    a / b
}

#[inline(always)]
pub(super) fn neg<T: Real>(x: T) -> T {
    -x
}

#[inline(always)]
pub(super) fn square<T: Real>(x: T) -> T {
    x * x
}

/// Two correctly rounded steps; worst error 1.50 ulp.
#[inline(always)]
pub(super) fn rsqrt<T: Real>(x: T) -> T {
    T::ONE / x.sqrt()
}

#[inline(always)]
pub(super) fn sign<T: Real>(x: T) -> T {
    let one_if = |holds: bool| if holds { T::ONE } else { T::ZERO };
    one_if(x > T::ZERO) - one_if(x < T::ZERO)
}

// A loop with a branch in it is not turned into vectors. `x != x` is `x.is_nan()`, `|` is `||`
// without a branch; an `if` would become one where LLVM delays the loads of its sides until it
// knows which is wanted.
#[expect(clippy::eq_op, reason = "tells NaN without a branch")]
#[inline(always)]
pub(super) fn minimum<T: Real>(a: T, b: T) -> T {
    select_unpredictable((a < b) | (a != a), a, b)
}

#[expect(clippy::eq_op, reason = "tells NaN without a branch")]
#[inline(always)]
pub(super) fn maximum<T: Real>(a: T, b: T) -> T {
    select_unpredictable((a > b) | (a != a), a, b)
}

/// `min(max(x, lo), hi)`, NaN if any of them is.
#[expect(clippy::eq_op, reason = "`lo != lo` is `lo.is_nan()`, without a branch")]
#[inline(always)]
pub(super) fn clamp<T: Real>(x: T, lo: T, hi: T) -> T {
    let x = if (x < lo) | (lo != lo) { lo } else { x };
    if (x > hi) | (hi != hi) { hi } else { x }
}

#[inline(always)]
pub(super) fn leaky_relu<T: Real>(x: T, slope: T) -> T {
    if x > T::ZERO { x } else { x * slope }
}

#[inline(always)]
pub(super) fn select<T: Real>(mask: T, a: T, b: T) -> T {
    select_unpredictable(mask != T::ZERO, a, b)
}
