//! The two element types.

use std::ops::{Add, Div, Mul, Neg, Sub};

use pulp::Simd;

use super::{Arg, loops};
use crate::graph::op::{BinaryOp, UnaryOp};

/// An element type of the kernels: `f32`, whose functions are this module's own, or `f64`, whose functions are the
/// standard library's.
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

    fn sqrt(self) -> Self;
    fn fused_mul_add(self, b: Self, c: Self) -> Self;

    /// `out = op(x)`, by the instructions of `S`.
    fn unary<S: Simd>(op: UnaryOp, x: &[Self], out: &mut [Self]);
    /// `out = op(a, b)`, by the instructions of `S`.
    fn binary<S: Simd>(op: BinaryOp, a: Arg<Self>, b: Arg<Self>, out: &mut [Self]);
}

macro_rules! real {
    ($($T:ident: $unary:ident, $binary:ident;)*) => {$(
        impl Real for $T {
            const ZERO: $T = 0.0;
            const ONE: $T = 1.0;
            const INFINITY: $T = $T::INFINITY;
            const NEG_INFINITY: $T = $T::NEG_INFINITY;

            #[inline(always)]
            fn sqrt(self) -> $T {
                $T::sqrt(self)
            }

            #[inline(always)]
            fn fused_mul_add(self, b: $T, c: $T) -> $T {
                self.mul_add(b, c)
            }

            #[inline(always)]
            fn unary<S: Simd>(op: UnaryOp, x: &[$T], out: &mut [$T]) {
                loops::$unary::<S>(op, x, out);
            }

            #[inline(always)]
            fn binary<S: Simd>(op: BinaryOp, a: Arg<$T>, b: Arg<$T>, out: &mut [$T]) {
                loops::$binary::<S>(op, a, b, out);
            }
        }
    )*};
}
real! {
    f32: unary_f32, binary_f32;
    f64: unary_f64, binary_f64;
}
