//! A comparison and the selection it is made for, in one loop: losses are full of `if a < b { x } else { y }`, and a mask
//! that is written and read again costs as much as the arithmetic.

use super::loops::fill;
use super::{Arg, Binary, Real};
use pulp::{Simd, WithSimd};

/// `out = a op b ? x : y` for a comparison `op`.
pub(super) struct Choose<'a, T> {
    pub(super) op: Binary,
    pub(super) a: &'a [T],
    pub(super) b: Arg<'a, T>,
    pub(super) x: Arg<'a, T>,
    pub(super) y: Arg<'a, T>,
    pub(super) out: &'a mut [T],
}

impl<T: Real> WithSimd for Choose<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match self.op {
            Binary::Eq => self.by(|a, b| a == b),
            Binary::Ne => self.by(|a, b| a != b),
            Binary::Lt => self.by(|a, b| a < b),
            Binary::Le => self.by(|a, b| a <= b),
            Binary::Gt => self.by(|a, b| a > b),
            Binary::Ge => self.by(|a, b| a >= b),
            op => unreachable!("{op:?} is not a comparison"),
        }
    }
}

impl<T: Real> Choose<'_, T> {
    #[inline(always)]
    fn by(self, holds: impl Fn(T, T) -> bool) {
        let Choose {
            a, b, x, y, out, ..
        } = self;
        let n = out.len();
        let a = &a[..n];
        match b {
            Arg::Block(b) => {
                let b = &b[..n];
                choose(|i| holds(a[i], b[i]), x, y, out);
            }
            Arg::Number(b) => choose(|i| holds(a[i], b), x, y, out),
        }
    }
}

#[inline(always)]
fn choose<T: Real>(holds: impl Fn(usize) -> bool, x: Arg<T>, y: Arg<T>, out: &mut [T]) {
    let n = out.len();
    match (x, y) {
        (Arg::Block(x), Arg::Block(y)) => {
            let (x, y) = (&x[..n], &y[..n]);
            fill_either(out, |i| (holds(i), x[i], y[i]));
        }
        (Arg::Block(x), Arg::Number(y)) => {
            let x = &x[..n];
            fill_either(out, |i| (holds(i), x[i], y));
        }
        (Arg::Number(x), Arg::Block(y)) => {
            let y = &y[..n];
            fill_either(out, |i| (holds(i), x, y[i]));
        }
        (Arg::Number(x), Arg::Number(y)) => fill_either(out, |i| (holds(i), x, y)),
    }
}

/// Both values are read before one is chosen, so that the loop has no branch.
#[inline(always)]
fn fill_either<T: Copy>(out: &mut [T], at: impl Fn(usize) -> (bool, T, T)) {
    fill(out, |i| {
        let (holds, x, y) = at(i);
        if holds { x } else { y }
    });
}
