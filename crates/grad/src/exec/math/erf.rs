//! The error function.

use super::arith::clamp;
use super::exp::{pow2, reduce};
use super::polynomial::{mul_add, polynomial};
use pulp::Simd;

/// `erf(x) / x - 1` in `x^2` on `|x| <= 0.93`: minimax for the relative error, 9.0e-10 after
/// rounding to `f32` (this and the next by Remez exchange in 34 digits, coefficients rounded one
/// after the other and the rest refitted).
const NEAR: [f32; 7] = [
    0.128_379_17,
    -0.376_126_3,
    0.112_836_26,
    -0.026_855_731,
    0.005_192_405,
    -0.000_804_976_97,
    7.996_65e-5,
];

/// `-log(erfc(x)) / x` on `0.92 <= x <= 4`: minimax for the error of `erf`, 3.0e-9 after rounding
/// to `f32`.
const FAR: [f32; 6] =
    [1.128_510_7, 0.635_731_1, 0.105_244_43, -0.022_878_457, 0.003_211_270_3, -0.000_213_527_63];

/// `erf(x)`: an odd polynomial near 0; elsewhere `1 - e^-q(x)` with a polynomial `q`. Worst error
/// 1.19 ulp.
#[inline(always)]
pub(super) fn erf<S: Simd>(x: f32) -> f32 {
    let magnitude = x.abs();
    let near = mul_add::<S, _>(magnitude, polynomial::<S, _, _>(x * x, NEAR), magnitude);

    // From 4 on the result is 1.
    let magnitude4 = clamp(magnitude, 0.0, 4.0);
    let (n, p) = reduce::<S>(-magnitude4 * polynomial::<S, _, _>(magnitude4, FAR));
    let scale = pow2(n);
    let far = 1.0 - mul_add::<S, _>(p, scale, scale);

    let y = if magnitude < 0.925 { near } else { far };
    y.copysign(x)
}
