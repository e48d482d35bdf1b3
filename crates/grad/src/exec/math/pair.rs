//! Two steps of arithmetic in one loop: what lies between them is not written and read again.

use super::{Arg, Chunk, Real};
use crate::graph::op::BinaryOp;
use pulp::{Simd, WithSimd};

/// One instruction of arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Add,
    Sub,
    Mul,
}

impl Step {
    pub(crate) fn of(op: BinaryOp) -> Option<Step> {
        match op {
            BinaryOp::Add => Some(Step::Add),
            BinaryOp::Sub => Some(Step::Sub),
            BinaryOp::Mul => Some(Step::Mul),
            BinaryOp::Div | BinaryOp::Pow | BinaryOp::Maximum | BinaryOp::Minimum => None,
        }
    }
}

/// `(a first b) second c`, each rounded.
pub(super) struct Pair<'a, T> {
    pub(super) first: Step,
    pub(super) second: Step,
    pub(super) args: [Arg<'a, T>; 3],
    pub(super) out: &'a mut [Chunk<T>],
}

impl<T: Real> WithSimd for Pair<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match self.first {
            Step::Add => self.then(|a, b| a + b),
            Step::Sub => self.then(|a, b| a - b),
            Step::Mul => self.then(|a, b| a * b),
        }
    }
}

impl<T: Real> Pair<'_, T> {
    #[inline(always)]
    fn then(self, first: impl Fn(T, T) -> T) {
        match self.second {
            Step::Add => self.each(|a, b, c| first(a, b) + c),
            Step::Sub => self.each(|a, b, c| first(a, b) - c),
            Step::Mul => self.each(|a, b, c| first(a, b) * c),
        }
    }

    #[inline(always)]
    fn each(self, f: impl Fn(T, T, T) -> T) {
        let [a, b, c] = self.args;
        for (i, out) in self.out.iter_mut().enumerate() {
            let (a, b, c) = (a.chunk(i), b.chunk(i), c.chunk(i));
            for (((out, &a), &b), &c) in out.iter_mut().zip(a).zip(b).zip(c) {
                *out = f(a, b, c);
            }
        }
    }
}
