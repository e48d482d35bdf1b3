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
        let rows = out.iter_mut().zip(mask);
        match (a, b) {
            (Arg::Block(a), Arg::Block(b)) => {
                for (((out, &mask), &a), &b) in rows.zip(a).zip(b) {
                    *out = arith::select(mask, a, b);
                }
            }
            (Arg::Block(a), Arg::Number(b)) => {
                for ((out, &mask), &a) in rows.zip(a) {
                    *out = arith::select(mask, a, b);
                }
            }
            (Arg::Number(a), Arg::Block(b)) => {
                for ((out, &mask), &b) in rows.zip(b) {
                    *out = arith::select(mask, a, b);
                }
            }
            (Arg::Number(a), Arg::Number(b)) => {
                for (out, &mask) in rows {
                    *out = arith::select(mask, a, b);
                }
            }
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
        for (out, &x) in out.iter_mut().zip(x) {
            *out = arith::clamp(x, lo, hi);
        }
    }
}

#[inline(always)]
fn map<T: Copy>(x: &[T], out: &mut [T], f: impl Fn(T) -> T) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = f(x);
    }
}

#[inline(always)]
fn zip<T: Copy>(a: Arg<T>, b: Arg<T>, out: &mut [T], f: impl Fn(T, T) -> T) {
    match (a, b) {
        (Arg::Block(a), Arg::Block(b)) => {
            for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                *out = f(a, b);
            }
        }
        (Arg::Block(a), Arg::Number(b)) => {
            for (out, &a) in out.iter_mut().zip(a) {
                *out = f(a, b);
            }
        }
        (Arg::Number(a), Arg::Block(b)) => {
            for (out, &b) in out.iter_mut().zip(b) {
                *out = f(a, b);
            }
        }
        (Arg::Number(a), Arg::Number(b)) => out.fill(f(a, b)),
    }
}
