//! Reductions of a block. Element `i` goes to lane `i % 16`, and the lanes join pairwise: an order
//! that depends on the length alone and that every vector width can follow, so the same bits come
//! out on every machine.

use super::{Arg, Real};
use pulp::{Simd, WithSimd};

const LANES: usize = 16;

pub(super) struct Sum<'a, T> {
    pub(super) x: &'a [T],
}

impl<T: Real> WithSimd for Sum<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let mut lanes = [0.0; LANES];
        let (rows, rest) = self.x.as_chunks();
        let add = |lane: f64, x: T| lane + x.into();
        for row in rows {
            step(&mut lanes, row, add);
        }
        step(&mut lanes, &padded(rest, T::ZERO), add);
        join(&mut lanes, |a, b| a + b)
    }
}

/// The sum of products, each rounded to `T` first.
pub(super) struct Dot<'a, T> {
    pub(super) a: &'a [T],
    pub(super) b: Arg<'a, T>,
}

impl<T: Real> WithSimd for Dot<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let mut lanes = [0.0; LANES];
        let (rows, rest) = self.a.as_chunks();
        let rest = padded(rest, T::ZERO);
        match self.b {
            Arg::Block(b) => {
                let (others, other_rest) = b.as_chunks();
                for (row, other) in rows.iter().zip(others) {
                    add_products(&mut lanes, row, other);
                }
                add_products(&mut lanes, &rest, &padded(other_rest, T::ZERO));
            }
            Arg::Number(b) => {
                let others = [b; LANES];
                for row in rows {
                    add_products(&mut lanes, row, &others);
                }
                let count = self.a.len() % LANES;
                add_products(&mut lanes, &rest, &padded(&others[..count], T::ZERO));
            }
        }
        join(&mut lanes, |a, b| a + b)
    }
}

#[inline(always)]
fn add_products<T: Real>(lanes: &mut [f64; LANES], a: &[T; LANES], b: &[T; LANES]) {
    for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
        *lane += (a * b).into();
    }
}

/// Folds with `f`, which must not mind the order of its operands and leave them as they are when
/// joined with `start`.
pub(super) struct Fold<'a, T, F> {
    pub(super) x: &'a [T],
    pub(super) start: T,
    pub(super) f: F,
}

impl<T: Real, F: Fn(T, T) -> T> WithSimd for Fold<'_, T, F> {
    type Output = T;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> T {
        let Fold { x, start, f } = self;
        let mut lanes = [start; LANES];
        let (rows, rest) = x.as_chunks();
        for row in rows {
            step(&mut lanes, row, &f);
        }
        step(&mut lanes, &padded(rest, start), &f);
        join(&mut lanes, &f)
    }
}

#[inline(always)]
fn step<A: Copy, T: Copy>(lanes: &mut [A; LANES], row: &[T; LANES], f: impl Fn(A, T) -> A) {
    for (lane, &x) in lanes.iter_mut().zip(row) {
        *lane = f(*lane, x);
    }
}

/// The last, incomplete row.
#[inline(always)]
fn padded<T: Copy>(rest: &[T], padding: T) -> [T; LANES] {
    let mut row = [padding; LANES];
    row[..rest.len()].copy_from_slice(rest);
    row
}

/// Lane `i` with lane `i + 8`, then `i` with `i + 4`, and so on.
#[inline(always)]
fn join<T: Copy>(lanes: &mut [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}
