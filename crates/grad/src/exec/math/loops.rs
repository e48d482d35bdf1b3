//! The loops: each call becomes one loop per instruction set, which the compiler turns into vectors
//! because the functions inside have no branches.

use super::{Arg, Real, arith, erf, exp, hyper, log, pow, trig};
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
        pub(super) fn unary_f32<S: Simd>(op: UnaryOp, x: &[f32], out: &mut [f32]) {
            match op {
                $(UnaryOp::$Op $({ $($p),+ })? => {
                    $($(let $p = $p.get() as f32;)+)?
                    $how32(x, out, $f32);
                })*
            }
        }

        #[inline(always)]
        pub(super) fn unary_f64<S: Simd>(op: UnaryOp, x: &[f64], out: &mut [f64]) {
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
        pub(super) fn binary_f32<S: Simd>(op: BinaryOp, a: Arg<f32>, b: Arg<f32>, out: &mut [f32]) {
            match op {
                $(BinaryOp::$Op => zip(a, b, out, $f32),)*
            }
        }

        #[inline(always)]
        pub(super) fn binary_f64<S: Simd>(op: BinaryOp, a: Arg<f64>, b: Arg<f64>, out: &mut [f64]) {
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
        fn compare<T: Real>(op: CompareOp, a: Arg<T>, b: Arg<T>, out: &mut [T]) {
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
    pub(super) x: &'a [T],
    pub(super) out: &'a mut [T],
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
    pub(super) out: &'a mut [T],
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
    pub(super) out: &'a mut [T],
}

impl<T: Real> WithSimd for CompareCall<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        compare(self.op, self.a, self.b, self.out);
    }
}

pub(super) struct Select<'a, T> {
    pub(super) mask: &'a [T],
    pub(super) a: Arg<'a, T>,
    pub(super) b: Arg<'a, T>,
    pub(super) out: &'a mut [T],
}

impl<T: Real> WithSimd for Select<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Select { mask, a, b, out } = self;
        let n = out.len();
        let mask = &mask[..n];
        match (a, b) {
            (Arg::Block(a), Arg::Block(b)) => {
                let (a, b) = (&a[..n], &b[..n]);
                fill(out, |i| arith::select(mask[i], a[i], b[i]));
            }
            (Arg::Block(a), Arg::Number(b)) => {
                let a = &a[..n];
                fill(out, |i| arith::select(mask[i], a[i], b));
            }
            (Arg::Number(a), Arg::Block(b)) => {
                let b = &b[..n];
                fill(out, |i| arith::select(mask[i], a, b[i]));
            }
            (Arg::Number(a), Arg::Number(b)) => fill(out, |i| arith::select(mask[i], a, b)),
        }
    }
}

/// A function of each element.
#[inline(always)]
pub(super) fn each<T: Copy>(x: &[T], out: &mut [T], f: impl Fn(T) -> T) {
    let x = &x[..out.len()];
    fill(out, |i| f(x[i]));
}

/// A function of the whole block.
#[inline(always)]
fn block<T>(x: &[T], out: &mut [T], f: impl Fn(&[T], &mut [T])) {
    f(x, out);
}

#[inline(always)]
fn zip<T: Copy>(a: Arg<T>, b: Arg<T>, out: &mut [T], f: impl Fn(T, T) -> T) {
    let n = out.len();
    match (a, b) {
        (Arg::Block(a), Arg::Block(b)) => {
            let (a, b) = (&a[..n], &b[..n]);
            fill(out, |i| f(a[i], b[i]));
        }
        (Arg::Block(a), Arg::Number(b)) => {
            let a = &a[..n];
            fill(out, |i| f(a[i], b));
        }
        (Arg::Number(a), Arg::Block(b)) => {
            let b = &b[..n];
            fill(out, |i| f(a, b[i]));
        }
        (Arg::Number(a), Arg::Number(b)) => out.fill(f(a, b)),
    }
}

/// Every loop of a kernel. By index, over slices cut to one length, so that it has one exit: what could leave it elsewhere
/// would keep its last elements out of the vectors.
#[expect(clippy::needless_range_loop)]
#[inline(always)]
pub(super) fn fill<T>(out: &mut [T], at: impl Fn(usize) -> T) {
    for i in 0..out.len() {
        out[i] = at(i);
    }
}
