//! The two element types: `f32`, whose functions are this module's own, and `f64`, whose functions
//! are the standard library's.

use super::{erf, exp, hyper, log, pow, trig};
use pulp::Simd;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// An element type of the kernels: `f32` or `f64`.
///
/// The functions that are generic over an instruction set `S` compute with its fused multiply-add
/// where it has one.
pub(crate) trait Real:
    Copy
    + PartialOrd
    + Into<f64>
    + Neg<Output = Self>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
{
    const ZERO: Self;
    const ONE: Self;
    const INFINITY: Self;
    const NEG_INFINITY: Self;

    fn abs(self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    fn round(self) -> Self;
    fn sqrt(self) -> Self;
    fn fused_mul_add(self, b: Self, c: Self) -> Self;
    fn std_sin(self) -> Self;
    fn std_cos(self) -> Self;

    fn exp<S: Simd>(self) -> Self;
    fn expm1<S: Simd>(self) -> Self;
    fn log<S: Simd>(self) -> Self;
    fn log1p<S: Simd>(self) -> Self;
    fn sin<S: Simd>(self) -> Self;
    fn cos<S: Simd>(self) -> Self;
    fn tanh<S: Simd>(self) -> Self;
    fn sigmoid<S: Simd>(self) -> Self;
    fn log_sigmoid<S: Simd>(self) -> Self;
    fn erf<S: Simd>(self) -> Self;
    fn pow<S: Simd>(self, y: Self) -> Self;

    /// Replaces the sines and cosines of arguments that are too large for the vector code.
    fn redo_large(x: &[Self], out: &mut [Self], f: fn(Self) -> Self);
}

macro_rules! shared {
    ($T:ident) => {
        const ZERO: $T = 0.0;
        const ONE: $T = 1.0;
        const INFINITY: $T = $T::INFINITY;
        const NEG_INFINITY: $T = $T::NEG_INFINITY;
        shared!($T: abs => abs, floor => floor, ceil => ceil, round => round_ties_even);
        shared!($T: sqrt => sqrt, std_sin => sin, std_cos => cos);

        #[inline(always)]
        fn fused_mul_add(self, b: $T, c: $T) -> $T {
            self.mul_add(b, c)
        }
    };
    ($T:ident: $($name:ident => $std:ident),*) => {$(
        #[inline(always)]
        fn $name(self) -> $T {
            $T::$std(self)
        }
    )*};
}

macro_rules! per_instruction_set {
    ($T:ident: $($name:ident($($y:ident)?) => $f:expr),* $(,)?) => {$(
        #[inline(always)]
        fn $name<S: Simd>(self $(, $y: $T)?) -> $T {
            $f(self $(, $y)?)
        }
    )*};
}

impl Real for f32 {
    shared!(f32);

    per_instruction_set! { f32:
        exp() => exp::exp::<S>,
        expm1() => exp::expm1::<S>,
        log() => log::log::<S>,
        log1p() => log::log1p::<S>,
        sin() => trig::sin::<S>,
        cos() => trig::cos::<S>,
        tanh() => hyper::tanh::<S>,
        sigmoid() => hyper::sigmoid::<S>,
        log_sigmoid() => hyper::log_sigmoid::<S>,
        erf() => erf::erf::<S>,
        pow(y) => pow::pow::<S>,
    }

    fn redo_large(x: &[f32], out: &mut [f32], f: fn(f32) -> f32) {
        trig::redo_large(x, out, f);
    }
}

impl Real for f64 {
    shared!(f64);

    per_instruction_set! { f64:
        exp() => f64::exp,
        expm1() => f64::exp_m1,
        log() => f64::ln,
        log1p() => f64::ln_1p,
        sin() => f64::sin,
        cos() => f64::cos,
        tanh() => f64::tanh,
        sigmoid() => |x: f64| 1.0 / (1.0 + (-x).exp()),
        log_sigmoid() => |x: f64| x.min(0.0) - (-x.abs()).exp().ln_1p(),
        erf() => libm::erf,
        pow(y) => f64::powf,
    }

    fn redo_large(_: &[f64], _: &mut [f64], _: fn(f64) -> f64) {}
}
