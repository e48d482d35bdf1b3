//! `sin` and `cos`: reduction by `pi / 2` in `f64`, then a polynomial in `f32`.

use super::Chunk;
use super::polynomial::{mul_add, polynomial};
use pulp::Simd;
use std::f64::consts::FRAC_2_PI;

/// `pi / 2` in two parts (from fdlibm). The first has 25 significant bits, so its product with the
/// quadrant is exact.
const PI_2_HI: f64 = 1.570_796_310_901_641_8;
const PI_2_LO: f64 = 1.589_325_477_352_819_7e-8;

/// Adding 1.5 * 2^52 rounds an `f64` below 2^51 to an integer, which then sits in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// `(sin(r) - r) / r^3` and `(cos(r) - 1 + r^2 / 2) / r^4` in `r^2` on `|r| <= pi / 4`: minimax for
/// the relative error, 4.0e-9 and 1.2e-10 after rounding to `f32` (Remez exchange in 34 digits,
/// coefficients rounded one after the other and the rest refitted).
const SIN: [f32; 3] = [-0.166_666_55, 0.008_332_189, -0.000_195_182_83];
const COS: [f32; 3] = [0.041_666_646, -0.001_388_731, 2.443_232_7e-5];

/// Above this `redo_large` takes over.
const LARGE: f32 = 100_000_000.0;

/// `sin(x + quadrants * pi / 2)`.
#[inline(always)]
fn sin_shifted<S: Simd>(x: f32, quadrants: u64) -> f32 {
    let wide = f64::from(x);
    let rounded = mul_add::<S, _>(wide, FRAC_2_PI, ROUND);
    let n = rounded - ROUND;
    let r = mul_add::<S, _>(n, -PI_2_LO, mul_add::<S, _>(n, -PI_2_HI, wide)) as f32;
    let quadrant = rounded.to_bits().wrapping_add(quadrants) as u32;

    let square = r * r;
    let sin = mul_add::<S, _>(square * r, polynomial::<S, _, _>(square, SIN), r);
    let cos = mul_add::<S, _>(
        square * square,
        polynomial::<S, _, _>(square, COS),
        mul_add::<S, _>(square, -0.5, 1.0),
    );
    let y = if quadrant & 1 == 0 { sin } else { cos };
    f32::from_bits(y.to_bits() ^ ((quadrant & 2) << 30))
}

/// `sin(x)` for `|x| <= LARGE`; NaN stays NaN. Worst error 1.58 ulp.
#[inline(always)]
fn sin_within<S: Simd>(x: f32) -> f32 {
    // The sum in the quadrant's cosine term turns -0 into 0.
    let y = sin_shifted::<S>(x, 0);
    if x == 0.0 { x } else { y }
}

/// `cos(x)` for `|x| <= LARGE`; NaN stays NaN. Worst error 1.59 ulp.
#[inline(always)]
fn cos_within<S: Simd>(x: f32) -> f32 {
    sin_shifted::<S>(x, 1)
}

/// `sin(x)` of a chunk.
#[inline(always)]
pub(super) fn sin<S: Simd>(x: &Chunk<f32>, out: &mut Chunk<f32>) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = sin_within::<S>(x);
    }
    redo_large(x, out, f32::sin);
}

/// `cos(x)` of a chunk.
#[inline(always)]
pub(super) fn cos<S: Simd>(x: &Chunk<f32>, out: &mut Chunk<f32>) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = cos_within::<S>(x);
    }
    redo_large(x, out, f32::cos);
}

/// Computes `f` one by one for the arguments above `LARGE`, whose reduction needs more digits of pi
/// than an `f64` pair has.
fn redo_large(x: &Chunk<f32>, out: &mut Chunk<f32>, f: fn(f32) -> f32) {
    // A fold rather than `any`, which would stop early and so go one by one.
    if x.iter().fold(false, |found, x| found | (x.abs() > LARGE)) {
        for (out, &x) in out.iter_mut().zip(x).filter(|(_, x)| x.abs() > LARGE) {
            *out = f(x);
        }
    }
}
