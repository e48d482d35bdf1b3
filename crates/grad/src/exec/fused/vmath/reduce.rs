//! Reductions of a block. Element `i` goes to lane `i % 16`, and the lanes join pairwise: an order
//! that depends on the length alone and that every vector width can follow, so the same bits come
//! out on every machine.

use super::Real;
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
