//! The two element types.

use std::ops::{Add, Div, Mul, Neg, Sub};

use pulp::{Arch, Scalar, Simd, WithSimd};

use super::{Arg, Chunk, loops};
use crate::graph::op::{BinaryOp, UnaryOp};

/// An element type of the kernels: `f32`, whose functions are this module's own, or `f64`, whose
/// functions are the standard library's.
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

    fn narrowed(wide: f64) -> Self;
    fn sqrt(self) -> Self;
    fn fused_mul_add(self, b: Self, c: Self) -> Self;

    /// Runs `op` on the instructions of `arch`, or those that this type is compiled for.
    fn dispatch<Op: WithSimd>(arch: Arch, op: Op) -> Op::Output;
    /// `out = op(x)`, by the instructions of `S`.
    fn unary<S: Simd>(op: UnaryOp, x: Arg<Self>, out: &mut [Chunk<Self>]);
    /// `out = op(a, b)`, by the instructions of `S`.
    fn binary<S: Simd>(op: BinaryOp, a: Arg<Self>, b: Arg<Self>, out: &mut [Chunk<Self>]);
}

macro_rules! real {
    ($($T:ident: $unary:ident, $binary:ident, |$arch:ident, $op:ident| $dispatch:expr;)*) => {$(
        impl Real for $T {
            const ZERO: $T = 0.0;
            const ONE: $T = 1.0;
            const INFINITY: $T = $T::INFINITY;
            const NEG_INFINITY: $T = $T::NEG_INFINITY;

            #[inline(always)]
            fn narrowed(wide: f64) -> $T {
                wide as $T
            }

            #[inline(always)]
            fn sqrt(self) -> $T {
                $T::sqrt(self)
            }

            #[inline(always)]
            fn fused_mul_add(self, b: $T, c: $T) -> $T {
                self.mul_add(b, c)
            }

            #[inline(always)]
            fn dispatch<Op: WithSimd>($arch: Arch, $op: Op) -> Op::Output {
                $dispatch
            }

            #[inline(always)]
            fn unary<S: Simd>(op: UnaryOp, x: Arg<$T>, out: &mut [Chunk<$T>]) {
                loops::$unary::<S>(op, x, out);
            }

            #[inline(always)]
            fn binary<S: Simd>(op: BinaryOp, a: Arg<$T>, b: Arg<$T>, out: &mut [Chunk<$T>]) {
                loops::$binary::<S>(op, a, b, out);
            }
        }
    )*};
}
real! {
    f32: unary_f32, binary_f32, |arch, op| arch.dispatch(op);
    f64: unary_f64, binary_f64, |_arch, op| op.with_simd(Scalar::new());
}
