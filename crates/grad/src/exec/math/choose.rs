//! A comparison and the selection it is made for, in one loop: losses are full of `if a < b { x }
//! else { y }`, and a mask that is written and read again costs as much as the arithmetic.

use super::{Arg, Chunk, Real};
use crate::graph::op::{CompareOp, Number};
use pulp::{Simd, WithSimd};
use std::hint::select_unpredictable;

/// What a choice does to the value that it takes if its comparison holds. Bounds are not NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Then {
    Nothing,
    Neg,
    Minimum(Number),
    Maximum(Number),
}

/// `a op b ? then(x) : y`
pub(super) struct Choose<'a, T> {
    pub(super) op: CompareOp,
    pub(super) then: Then,
    pub(super) compared: [Arg<'a, T>; 2],
    pub(super) values: [Arg<'a, T>; 2],
    pub(super) out: &'a mut [Chunk<T>],
}

impl<T: Real> WithSimd for Choose<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        let [a, b] = self.compared;
        if let CompareOp::Gt | CompareOp::Ge = self.op {
            self.compared = [b, a];
        }
        match self.op {
            CompareOp::Eq => self.choose(|a, b| a == b),
            CompareOp::Ne => self.choose(|a, b| a != b),
            CompareOp::Lt | CompareOp::Gt => self.choose(|a, b| a < b),
            CompareOp::Le | CompareOp::Ge => self.choose(|a, b| a <= b),
        }
    }
}

impl<T: Real> Choose<'_, T> {
    #[inline(always)]
    fn choose(self, holds: impl Fn(T, T) -> bool) {
        match self.then {
            Then::Nothing => self.by(holds, |x| x),
            Then::Neg => self.by(holds, |x| -x),
            Then::Minimum(bound) => {
                let bound = T::narrowed(bound.get());
                self.by(holds, |x| select_unpredictable(x >= bound, bound, x));
            }
            Then::Maximum(bound) => {
                let bound = T::narrowed(bound.get());
                self.by(holds, |x| select_unpredictable(x <= bound, bound, x));
            }
        }
    }

    #[inline(always)]
    fn by(self, holds: impl Fn(T, T) -> bool, then: impl Fn(T) -> T) {
        let ([a, b], [x, y]) = (self.compared, self.values);
        for (i, out) in self.out.iter_mut().enumerate() {
            let (compared, values) =
                (a.chunk(i).iter().zip(b.chunk(i)), x.chunk(i).iter().zip(y.chunk(i)));
            for ((out, (&a, &b)), (&x, &y)) in out.iter_mut().zip(compared).zip(values) {
                *out = select_unpredictable(holds(a, b), then(x), y);
            }
        }
    }
}
