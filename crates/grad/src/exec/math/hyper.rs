//! `tanh`, `sigmoid` and their relatives, all from `e^x = 2^n (1 + p)` with `p = expm1(r)` of the
//! reduced argument.

use super::arith::clamp;
use super::exp::{exp_any, pow2, reduce};
use super::log::log1p_unit;
use super::polynomial::{mul_add, polynomial};
use pulp::Simd;

/// `(tanh(x) - x) / x^3` in `x^2` on `|x| <= 0.625`: minimax for the relative error, 4.6e-9 after
/// rounding to `f32` (Remez exchange in 34 digits, coefficients rounded one after the other and the
/// rest refitted).
const TANH: [f32; 5] =
    [-0.333_332_8, 0.133_314_06, -0.053_736_515, 0.020_628_167, -0.005_692_296_7];

/// `tanh(x)`: an odd polynomial near 0; elsewhere `1 - 2 / (e^2x + 1)`, written with `s = 2^-n` as
/// `1 - 2 s / (1 + s + p)`. Worst error 1.21 ulp.
#[inline(always)]
pub(super) fn tanh<S: Simd>(x: f32) -> f32 {
    let magnitude = x.abs();
    let square = x * x;
    let near = mul_add::<S, _>(magnitude * square, polynomial::<S, _, _>(square, TANH), magnitude);

    // From 10 on the result is 1.
    let (n, p) = reduce::<S>(2.0 * clamp(magnitude, 0.0, 10.0));
    let s = pow2(n.wrapping_neg());
    let far = 1.0 - 2.0 * s / (1.0 + s + p);

    let y = if magnitude < 0.625 { near } else { far };
    y.copysign(x)
}

/// `1 / (1 + e^-x)`, written `s / (s + 1 + p)` with `s = 2^-n`. The power of two is applied in two
/// steps, so that results become subnormal or zero by rounding (PyTorch's are 0 already below
/// -88.7). Worst error 1.71 ulp.
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(x: f32) -> f32 {
    let (n, p) = reduce::<S>(clamp(-x, -30.0, 104.0));
    let half = n >> 1;
    let (s, t) = (pow2(half.wrapping_neg()), pow2(half.wrapping_sub(n)));
    // What rounding takes from `1 + s t` goes to `p`; without it 2^-24 is lost whole, and 2.4 ulp.
    let sum = 1.0 + s * t;
    let lost = s * t - (sum - 1.0);
    s / (sum + (p + lost)) * t
}

/// `log(sigmoid(x)) = min(x, 0) - log1p(e^-|x|)`. Worst error 1.83 ulp.
#[inline(always)]
pub(super) fn log_sigmoid<S: Simd>(x: f32) -> f32 {
    let negative = if x < 0.0 { x } else { 0.0 };
    negative - log1p_unit::<S>(exp_any::<S>(-x.abs()))
}
