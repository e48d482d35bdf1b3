//! `log` and `log1p`: exponent and mantissa, then a polynomial on the mantissa's distance from 1.

use super::exp::{LN_2_HI, LN_2_LO};
use super::polynomial::{mul_add, polynomial};
use pulp::Simd;

/// `(log1p(f) - f + f^2 / 2) / f^3` on `|f| <= 1/3`: minimax for the error relative to `log1p(f)`,
/// 9.2e-10 after rounding to `f32` (Remez exchange in 34 digits, coefficients rounded one after the
/// other and the rest refitted).
const LOG1P: [f32; 9] = [
    0.333_333_34,
    -0.249_998_1,
    0.199_997_65,
    -0.166_800_86,
    0.142_989_53,
    -0.121_878_61,
    0.108_219_64,
    -0.128_825_63,
    0.117_294_5,
];

/// The mantissa's range is `[2/3, 4/3)`: symmetric around 1, and 1 itself has exponent 0.
const TWO_THIRDS: i32 = (2.0f32 / 3.0).to_bits() as i32;
const EXPONENT: i32 = 0xff80_0000_u32 as i32;

/// `exponent * ln 2 + log1p(f)` for `|f| <= 1/3`, the small terms first.
#[inline(always)]
fn join<S: Simd>(exponent: f32, f: f32) -> f32 {
    let square = f * f;
    let small = mul_add::<S, _>(square * f, polynomial::<S, _, _>(f, LOG1P), exponent * LN_2_LO);
    let small = mul_add::<S, _>(square, -0.5, small);
    mul_add::<S, _>(exponent, LN_2_HI, f + small)
}

/// The natural logarithm: `-inf` at either zero, NaN below. Worst error 0.81 ulp.
#[inline(always)]
pub(super) fn log<S: Simd>(x: f32) -> f32 {
    let subnormal = x < f32::MIN_POSITIVE;
    let normal = if subnormal { x * 8_388_608.0 } else { x };
    let shift = if subnormal { -23.0 } else { 0.0 };

    let bits = (normal.to_bits() as i32).wrapping_sub(TWO_THIRDS);
    let exponent = (bits >> 23) as f32 + shift;
    let mantissa = f32::from_bits((bits & !EXPONENT).wrapping_add(TWO_THIRDS) as u32);
    let y = join::<S>(exponent, mantissa - 1.0);

    let y = if x < f32::INFINITY { y } else { x };
    let y = if x < 0.0 { f32::NAN } else { y };
    if x == 0.0 { f32::NEG_INFINITY } else { y }
}

/// `log(1 + x)`. The exponent is that of the rounded `1 + x`; the mantissa comes from `x` itself,
/// so that nothing of it is lost. Worst error 1.53 ulp.
#[inline(always)]
pub(super) fn log1p<S: Simd>(x: f32) -> f32 {
    let bits = ((1.0 + x).to_bits() as i32).wrapping_sub(TWO_THIRDS) & EXPONENT;
    // 2^-exponent, by way of 4 because 2^-128 has no exponent bits to subtract from.
    let scale = 0.25 * f32::from_bits((4.0f32.to_bits() as i32).wrapping_sub(bits) as u32);
    let y = join::<S>((bits >> 23) as f32, mul_add::<S, _>(x, scale, scale - 1.0));

    let y = if x < f32::INFINITY { y } else { x };
    let y = if x < -1.0 { f32::NAN } else { y };
    let y = if x == -1.0 { f32::NEG_INFINITY } else { y };
    // Zeros keep their sign.
    if x.abs() < f32::EPSILON / 2.0 { x } else { y }
}

/// `log(1 + t)` for `0 <= t <= 1`, where no end needs care. NaN stays NaN.
#[inline(always)]
pub(super) fn log1p_unit<S: Simd>(t: f32) -> f32 {
    let third = 1.0 / 3.0;
    let exponent = if t > third { 1.0 } else { 0.0 };
    let f = if t > third { 0.5 * t - 0.5 } else { t };
    join::<S>(exponent, f)
}
