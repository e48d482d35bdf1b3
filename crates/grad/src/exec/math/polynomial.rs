//! Multiply-add and polynomials, the stuff that the functions are made of.

use super::Real;
use pulp::Simd;

/// `a * b + c`: in one rounding where the instruction set has it, else in two (never a call to a
/// software `fma`).
#[inline(always)]
pub(super) fn mul_add<S: Simd, T: Real>(a: T, b: T, c: T) -> T {
    if S::IS_SCALAR || cfg!(target_family = "wasm") { a * b + c } else { a.fused_mul_add(b, c) }
}

/// The polynomial `c[0] + c[1] x + c[2] x^2 + ..`, by Horner's rule.
#[inline(always)]
pub(super) fn polynomial<S: Simd, T: Real, const N: usize>(x: T, c: [T; N]) -> T {
    let mut sum = c[N - 1];
    for i in (0..N - 1).rev() {
        sum = mul_add::<S, _>(sum, x, c[i]);
    }
    sum
}
