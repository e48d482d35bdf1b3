//! A comparison and the selection it is made for, in one loop: losses are full of `if a < b { x } else { y }`, and a mask
//! that is written and read again costs as much as the arithmetic.

use super::loops::fill;
use super::{Arg, Real, arith};
use crate::graph::op::CompareOp;
use pulp::{Simd, WithSimd};
use std::hint::select_unpredictable;

/// `a op b ? taken(x) : y`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice<T> {
    pub(crate) op: CompareOp,
    pub(crate) taken: Taken<T>,
}

/// What is done to a value that is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Taken<T> {
    AsIs,
    Negated,
    /// The smaller of it and a bound.
    AtMost(T),
    /// The larger of it and a bound.
    AtLeast(T),
}

pub(super) struct Choose<'a, T> {
    pub(super) choice: Choice<T>,
    pub(super) compared: [Arg<'a, T>; 2],
    pub(super) values: [Arg<'a, T>; 2],
    pub(super) out: &'a mut [T],
}

impl<T: Real> WithSimd for Choose<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let n = self.out.len();
        match (self.values[0], self.choice.taken) {
            (Arg::Number(x), taken) => {
                let x = taken.of(x);
                self.choose(|_| x);
            }
            (Arg::Block(x), Taken::AsIs) => {
                let x = &x[..n];
                self.choose(|i| x[i]);
            }
            (Arg::Block(x), Taken::Negated) => {
                let x = &x[..n];
                self.choose(|i| -x[i]);
            }
            (Arg::Block(x), Taken::AtMost(bound)) => {
                let x = &x[..n];
                self.choose(|i| arith::minimum(x[i], bound));
            }
            (Arg::Block(x), Taken::AtLeast(bound)) => {
                let x = &x[..n];
                self.choose(|i| arith::maximum(x[i], bound));
            }
        }
    }
}

impl<T: Real> Choose<'_, T> {
    #[inline(always)]
    fn choose(self, x: impl Fn(usize) -> T) {
        match self.choice.op {
            CompareOp::Eq => self.by(|a, b| a == b, x),
            CompareOp::Ne => self.by(|a, b| a != b, x),
            CompareOp::Lt => self.by(|a, b| a < b, x),
            CompareOp::Le => self.by(|a, b| a <= b, x),
            CompareOp::Gt => self.by(|a, b| a > b, x),
            CompareOp::Ge => self.by(|a, b| a >= b, x),
        }
    }

    #[inline(always)]
    fn by(self, holds: impl Fn(T, T) -> bool, x: impl Fn(usize) -> T) {
        let [a, b] = self.compared;
        let (y, out) = (self.values[1], self.out);
        let n = out.len();
        match (a, b) {
            (Arg::Block(a), Arg::Block(b)) => {
                let (a, b) = (&a[..n], &b[..n]);
                pick(|i| holds(a[i], b[i]), x, y, out);
            }
            (Arg::Block(a), Arg::Number(b)) => {
                let a = &a[..n];
                pick(|i| holds(a[i], b), x, y, out);
            }
            (Arg::Number(a), Arg::Block(b)) => {
                let b = &b[..n];
                pick(|i| holds(a, b[i]), x, y, out);
            }
            (Arg::Number(a), Arg::Number(b)) => {
                let holds = holds(a, b);
                pick(|_| holds, x, y, out);
            }
        }
    }
}

#[inline(always)]
fn pick<T: Real>(holds: impl Fn(usize) -> bool, x: impl Fn(usize) -> T, y: Arg<T>, out: &mut [T]) {
    match y {
        Arg::Block(y) => {
            let y = &y[..out.len()];
            fill(out, |i| select_unpredictable(holds(i), x(i), y[i]));
        }
        Arg::Number(y) => fill(out, |i| select_unpredictable(holds(i), x(i), y)),
    }
}

impl<T: Real> Taken<T> {
    fn of(self, x: T) -> T {
        match self {
            Taken::AsIs => x,
            Taken::Negated => -x,
            Taken::AtMost(bound) => arith::minimum(x, bound),
            Taken::AtLeast(bound) => arith::maximum(x, bound),
        }
    }
}
