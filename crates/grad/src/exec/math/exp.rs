//! `exp` and `expm1`: range reduction by `ln 2` (Cody and Waite), then a polynomial.

use super::Chunk;
use super::arith::clamp;
use super::polynomial::{mul_add, polynomial};
use pulp::Simd;
use std::f32::consts::LOG2_E;

/// Adding 1.5 * 2^23 rounds an `f32` below 2^22 to an integer, which then sits in the low bits.
const ROUND: f32 = 12_582_912.0;

/// `ln 2` in two parts. The first has 9 significant bits, so its product with an exponent is exact.
pub(super) const LN_2_HI: f32 = 355.0 / 512.0;
pub(super) const LN_2_LO: f32 = -2.121_944_4e-4;

/// `(expm1(r) - r) / r^2` on `|r| <= ln 2 / 2`: minimax for the error relative to `expm1(r)`,
/// 4.7e-10 after rounding to `f32` (Remez exchange in 34 digits, coefficients rounded one after the
/// other and the rest refitted).
const EXPM1: [f32; 6] =
    [0.5, 0.166_666_66, 0.041_666_467, 0.008_333_644, 0.001_393_504_2, 0.000_196_636_17];

/// `2^n` for `-126 <= n <= 127`.
#[inline(always)]
pub(super) fn pow2(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// The integer `n` and `expm1(r)` with `x = n ln 2 + r`, `|r| <= ln 2 / 2`, for `|x| < 2^20`. NaN
/// gives some `n` and NaN.
#[inline(always)]
pub(super) fn reduce<S: Simd>(x: f32) -> (i32, f32) {
    let (rounded, expm1) = reduce_to::<S>(x, ROUND);
    (rounded.wrapping_sub(ROUND.to_bits()) as i32, expm1)
}

/// As [`reduce`], with the bits of `n + round` in place of `n`.
#[inline(always)]
fn reduce_to<S: Simd>(x: f32, round: f32) -> (u32, f32) {
    let rounded = mul_add::<S, _>(x, LOG2_E, round);
    let n = rounded - round;
    let r = mul_add::<S, _>(n, -LN_2_HI, x);
    let r = mul_add::<S, _>(n, -LN_2_LO, r);
    let expm1 = mul_add::<S, _>(r * r, polynomial::<S, _, _>(r, EXPM1), r);
    (rounded.to_bits(), expm1)
}

/// `e^x` of a chunk. Worst error 0.98 ulp.
#[inline(always)]
pub(super) fn exp<S: Simd>(x: &Chunk<f32>, out: &mut Chunk<f32>) {
    let mut farthest = 0;
    for (out, &x) in out.iter_mut().zip(x) {
        farthest = farthest.max(x.to_bits() & 0x7fff_ffff);
        *out = exp_near::<S>(x);
    }
    if farthest > NEAR.to_bits() {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = exp_any::<S>(x);
        }
    }
}

/// Up to here `e^x` and `e^-x` are normal numbers.
const NEAR: f32 = 87.0;

/// `e^x` for `|x| <= NEAR`, the same bits as [`exp_any`].
#[inline(always)]
fn exp_near<S: Simd>(x: f32) -> f32 {
    // What rounds to an integer also adds the exponent's bias: its low bits, moved up, are 2^n.
    let (rounded, expm1) = reduce_to::<S>(x, ROUND + 127.0);
    (1.0 + expm1) * f32::from_bits(rounded << 23)
}

/// `e^x`. The power of two is applied in two steps, so that results become subnormal, zero or
/// infinite by rounding.
#[inline(always)]
pub(super) fn exp_any<S: Simd>(x: f32) -> f32 {
    // Beyond these bounds the result is 0 or infinity; between them `n` fits `pow2`.
    let (n, expm1) = reduce::<S>(clamp(x, -104.0, 89.0));
    let half = n >> 1;
    (1.0 + expm1) * pow2(half) * pow2(n.wrapping_sub(half))
}

/// `e^x - 1 = 2^n (expm1(r) + 1) - 1`, doubled at the end so that 2^128 is never formed. Worst
/// error 1.46 ulp.
#[inline(always)]
pub(super) fn expm1<S: Simd>(x: f32) -> f32 {
    let (n, expm1) = reduce::<S>(clamp(x, -20.0, 89.0));
    let scale = pow2(n.wrapping_sub(1));
    let y = mul_add::<S, _>(expm1, scale, scale - 0.5);
    // Zeros keep their sign and subnormals their last bit.
    if x.abs() < f32::EPSILON / 2.0 { x } else { y + y }
}
