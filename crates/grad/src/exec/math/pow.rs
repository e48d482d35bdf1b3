//! `pow`, computed in `f64` because an error in the logarithm is multiplied by up to 150.

use super::arith::clamp;
use super::polynomial::{mul_add, polynomial};
use pulp::Simd;

/// `log2((1 + s) / (1 - s)) / s` in `s^2` on `|s| <= 0.1717`: minimax for the relative error,
/// 2.7e-14 (this and the next by Remez exchange in 34 digits).
const LOG2: [f64; 6] = [
    2.885390081777849,
    0.9617966941150113,
    0.5770779418517934,
    0.4122093073712706,
    0.3199033146809252,
    0.2829359282718406,
];

/// `2^f` on `|f| <= 1/2`: minimax for the relative error among those that are 1 at 0, 2.4e-10.
const EXP2: [f64; 8] = [
    1.0,
    0.6931471838168833,
    0.24022650920789637,
    0.055504003753279026,
    0.009618056918718011,
    0.0013341950972398406,
    0.000154613678065949,
    1.3359841391700069e-05,
];

/// Adding 1.5 * 2^52 rounds an `f64` below 2^51 to an integer, which then sits in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// The mantissa's range is `[sqrt(1/2), sqrt(2))`.
const SQRT_HALF: i32 = std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32;

/// `log2(x)` for `x >= 0`: -inf at 0, NaN and infinity as they are.
#[inline(always)]
fn log2<S: Simd>(x: f32) -> f64 {
    let subnormal = x < f32::MIN_POSITIVE;
    let normal = if subnormal { x * 8_388_608.0 } else { x };
    let shift = if subnormal { -23 } else { 0 };

    let bits = (normal.to_bits() as i32).wrapping_sub(SQRT_HALF);
    let exponent = (bits >> 23).wrapping_add(shift);
    let mantissa = f64::from(f32::from_bits((bits & 0x7f_ffff).wrapping_add(SQRT_HALF) as u32));
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let y = mul_add::<S, _>(s, polynomial::<S, _, _>(s * s, LOG2), f64::from(exponent));

    let y = if x < f32::INFINITY { y } else { f64::from(x) };
    if x == 0.0 { f64::NEG_INFINITY } else { y }
}

/// `2^x` to the precision of `f32`; beyond the clamp an `f32` is 0 or infinite.
#[inline(always)]
fn exp2<S: Simd>(x: f64) -> f64 {
    let x = clamp(x, -160.0, 140.0);
    let rounded = x + ROUND;
    let f = x - (rounded - ROUND);
    polynomial::<S, _, _>(f, EXP2) * f64::from_bits(rounded.to_bits().wrapping_add(1023) << 52)
}

/// `x^y = 2^(y log2 |x|)`, rounded to `f32` once, then the sign and the special cases of C99's
/// `pow`. Worst error 0.504 ulp (1.5e8 random pairs).
#[inline(always)]
pub(super) fn pow<S: Simd>(x: f32, y: f32) -> f32 {
    let magnitude = exp2::<S>(f64::from(y) * log2::<S>(x.abs())) as f32;

    // Every f32 from 2^24 on is an even integer, infinity counted in.
    let within = f64::from(if y.abs() < 16_777_216.0 { y } else { 0.0 });
    let rounded = within + ROUND;
    let integer = rounded - ROUND == within;
    let odd = integer & (rounded.to_bits() & 1 == 1);

    let one = (y == 0.0) | (x == 1.0) | ((x == -1.0) & (y.abs() == f32::INFINITY));
    let magnitude = if one { 1.0 } else { magnitude };
    let undefined = (x < 0.0) & (x > f32::NEG_INFINITY) & !integer;
    let magnitude = if undefined { f32::NAN } else { magnitude };
    if odd & x.is_sign_negative() { -magnitude } else { magnitude }
}
