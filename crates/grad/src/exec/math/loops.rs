//! The loops: one for each op and instruction set, which the compiler turns into vectors because
//! the functions inside have no branches and chunks have one size.

use super::{Arg, Chunk, Real, arith, erf, exp, hyper, log, pow, trig};
use crate::graph::op::{BinaryOp, CompareOp, UnaryOp};
use crate::graph::table::{binary_ops, compare_ops, unary_ops};
use pulp::{Simd, WithSimd};

macro_rules! unary_blocks {
    ($($(#[$doc:meta])* $Op:ident = $method:ident($x:ident $(, $($p:ident),+)?) {
        example: $parameters:tt $of:tt => $is:tt, candle: $tensor:expr,
        f32: $how32:ident($f32:expr), f64: $how64:ident($f64:expr),
        $($columns:tt)*
    })*) => {
        #[inline(always)]
        pub(super) fn unary_f32<S: Simd>(op: UnaryOp, x: Arg<f32>, out: &mut [Chunk<f32>]) {
            match op {
                $(UnaryOp::$Op $({ $($p),+ })? => {
                    $($(let $p = $p.get() as f32;)+)?
                    $how32(x, out, $f32);
                })*
            }
        }

        #[expect(clippy::extra_unused_type_parameters, reason = "the signature of both dtypes")]
        #[inline(always)]
        pub(super) fn unary_f64<S: Simd>(op: UnaryOp, x: Arg<f64>, out: &mut [Chunk<f64>]) {
            match op {
                $(UnaryOp::$Op $({ $($p),+ })? => {
                    $($(let $p = $p.get();)+)?
                    $how64(x, out, $f64);
                })*
            }
        }
    };
}
unary_ops!(unary_blocks);

macro_rules! binary_blocks {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $args:tt {
        form: $form:tt, candle: $tensor:expr,
        each: $f32:expr, $f64:expr,
        $($columns:tt)*
    })*) => {
        #[inline(always)]
        pub(super) fn binary_f32<S: Simd>(op: BinaryOp, a: Arg<f32>, b: Arg<f32>, out: &mut [Chunk<f32>]) {
            match op {
                $(BinaryOp::$Op => zip(a, b, out, $f32),)*
            }
        }

        #[expect(clippy::extra_unused_type_parameters, reason = "the signature of both dtypes")]
        #[inline(always)]
        pub(super) fn binary_f64<S: Simd>(op: BinaryOp, a: Arg<f64>, b: Arg<f64>, out: &mut [Chunk<f64>]) {
            match op {
                $(BinaryOp::$Op => zip(a, b, out, $f64),)*
            }
        }
    };
}
binary_ops!(binary_blocks);

macro_rules! compare_blocks {
    ($($(#[$doc:meta])* $Op:ident = $method:ident { sign: $sign:tt, $($columns:tt)* })*) => {
        #[inline(always)]
        fn compare<T: Real>(op: CompareOp, a: Arg<T>, b: Arg<T>, out: &mut [Chunk<T>]) {
            match op {
                $(CompareOp::$Op => {
                    zip(a, b, out, |a, b| if a $sign b { T::ONE } else { T::ZERO });
                })*
            }
        }
    };
}
compare_ops!(compare_blocks);

pub(super) struct UnaryCall<'a, T> {
    pub(super) op: UnaryOp,
    pub(super) x: Arg<'a, T>,
    pub(super) out: &'a mut [Chunk<T>],
}

impl<T: Real> WithSimd for UnaryCall<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        T::unary::<S>(self.op, self.x, self.out);
    }
}

pub(super) struct BinaryCall<'a, T> {
    pub(super) op: BinaryOp,
    pub(super) a: Arg<'a, T>,
    pub(super) b: Arg<'a, T>,
    pub(super) out: &'a mut [Chunk<T>],
}

impl<T: Real> WithSimd for BinaryCall<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        T::binary::<S>(self.op, self.a, self.b, self.out);
    }
}

pub(super) struct CompareCall<'a, T> {
    pub(super) op: CompareOp,
    pub(super) a: Arg<'a, T>,
    pub(super) b: Arg<'a, T>,
    pub(super) out: &'a mut [Chunk<T>],
}

impl<T: Real> WithSimd for CompareCall<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        compare(self.op, self.a, self.b, self.out);
    }
}

pub(super) struct Select<'a, T> {
    pub(super) mask: Arg<'a, T>,
    pub(super) a: Arg<'a, T>,
    pub(super) b: Arg<'a, T>,
    pub(super) out: &'a mut [Chunk<T>],
}

impl<T: Real> WithSimd for Select<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Select { mask, a, b, out } = self;
        for (i, out) in out.iter_mut().enumerate() {
            let (mask, a, b) = (mask.chunk(i), a.chunk(i), b.chunk(i));
            for (((out, &mask), &a), &b) in out.iter_mut().zip(mask).zip(a).zip(b) {
                *out = arith::select(mask, a, b);
            }
        }
    }
}

/// A function of each element.
#[inline(always)]
pub(super) fn each<T: Copy>(x: Arg<T>, out: &mut [Chunk<T>], f: impl Fn(T) -> T) {
    for (i, out) in out.iter_mut().enumerate() {
        for (out, &x) in out.iter_mut().zip(x.chunk(i)) {
            *out = f(x);
        }
    }
}

/// A function of each chunk.
#[inline(always)]
fn block<T: Copy>(x: Arg<T>, out: &mut [Chunk<T>], f: impl Fn(&Chunk<T>, &mut Chunk<T>)) {
    for (i, out) in out.iter_mut().enumerate() {
        f(x.chunk(i), out);
    }
}

#[inline(always)]
fn zip<T: Copy>(a: Arg<T>, b: Arg<T>, out: &mut [Chunk<T>], f: impl Fn(T, T) -> T) {
    match b {
        // Held in a processor's register rather than read again and again.
        Arg::Number(b) => each(a, out, |a| f(a, b[0])),
        Arg::Block(b) => {
            for ((i, out), b) in out.iter_mut().enumerate().zip(b) {
                for ((out, &a), &b) in out.iter_mut().zip(a.chunk(i)).zip(b) {
                    *out = f(a, b);
                }
            }
        }
    }
}
