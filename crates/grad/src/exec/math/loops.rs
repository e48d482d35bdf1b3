//! The loops: each call becomes one loop per instruction set, which the compiler turns into vectors
//! because the functions inside have no branches.

use super::{Arg, Binary, Real, Unary, arith};
use pulp::{Simd, WithSimd};

pub(super) struct UnaryCall<'a, T> {
    pub(super) op: Unary,
    pub(super) x: &'a [T],
    pub(super) out: &'a mut [T],
}

impl<T: Real> WithSimd for UnaryCall<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let UnaryCall { op, x, out } = self;
        match op {
            Unary::Neg => map(x, out, arith::neg),
            Unary::Abs => map(x, out, T::abs),
            Unary::Sign => map(x, out, arith::sign),
            Unary::Floor => map(x, out, T::floor),
            Unary::Ceil => map(x, out, T::ceil),
            Unary::Round => map(x, out, T::round),
            Unary::Square => map(x, out, arith::square),
            Unary::Recip => map(x, out, arith::recip),
            Unary::Sqrt => map(x, out, T::sqrt),
            Unary::Rsqrt => map(x, out, arith::rsqrt),
            Unary::Exp => map(x, out, T::exp::<S>),
            Unary::Expm1 => map(x, out, T::expm1::<S>),
            Unary::Log => map(x, out, T::log::<S>),
            Unary::Log1p => map(x, out, T::log1p::<S>),
            Unary::Sin => map(x, out, T::sin::<S>),
            Unary::Cos => map(x, out, T::cos::<S>),
            Unary::Tanh => map(x, out, T::tanh::<S>),
            Unary::Sigmoid => map(x, out, T::sigmoid::<S>),
            Unary::LogSigmoid => map(x, out, T::log_sigmoid::<S>),
            Unary::Erf => map(x, out, T::erf::<S>),
        }
    }
}

pub(super) struct BinaryCall<'a, T> {
    pub(super) op: Binary,
    pub(super) a: Arg<'a, T>,
    pub(super) b: Arg<'a, T>,
    pub(super) out: &'a mut [T],
}

impl<T: Real> WithSimd for BinaryCall<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let BinaryCall { op, a, b, out } = self;
        match op {
            Binary::Add => zip(a, b, out, arith::add),
            Binary::Sub => zip(a, b, out, arith::sub),
            Binary::Mul => zip(a, b, out, arith::mul),
            Binary::Div => zip(a, b, out, arith::div),
            Binary::Minimum => zip(a, b, out, arith::minimum),
            Binary::Maximum => zip(a, b, out, arith::maximum),
            Binary::Pow => zip(a, b, out, T::pow::<S>),
            Binary::Eq => zip(a, b, out, arith::eq),
            Binary::Ne => zip(a, b, out, arith::ne),
            Binary::Lt => zip(a, b, out, arith::lt),
            Binary::Le => zip(a, b, out, arith::le),
            Binary::Gt => zip(a, b, out, arith::gt),
            Binary::Ge => zip(a, b, out, arith::ge),
        }
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

pub(super) struct Clamp<'a, T> {
    pub(super) x: &'a [T],
    pub(super) lo: T,
    pub(super) hi: T,
    pub(super) out: &'a mut [T],
}

impl<T: Real> WithSimd for Clamp<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Clamp { x, lo, hi, out } = self;
        map(x, out, |x| arith::clamp(x, lo, hi));
    }
}

#[inline(always)]
fn map<T: Copy>(x: &[T], out: &mut [T], f: impl Fn(T) -> T) {
    let x = &x[..out.len()];
    fill(out, |i| f(x[i]));
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
