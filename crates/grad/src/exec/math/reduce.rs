//! Reductions of a block. Whole chunks join element by element, what they leave is halved until 16
//! lanes remain, and element `i` of the rest goes to lane `i % 16`: an order that depends on the
//! length alone and that every vector width can follow, so the same bits come out on every machine.

use super::{CHUNK, Chunk, Real, arith};
use pulp::{Simd, WithSimd};

const LANES: usize = 16;

pub(super) struct Sum<'a, T> {
    pub(super) x: &'a [T],
}

impl<T: Real> WithSimd for Sum<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        sum(self.x, self.x, |x, _| x)
    }
}

/// The sum of products, each rounded to `T` first.
pub(super) struct Dot<'a, T> {
    pub(super) a: &'a [T],
    pub(super) b: &'a [T],
}

impl<T: Real> WithSimd for Dot<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        sum(self.a, self.b, |a, b| a * b)
    }
}

/// The sum of products with one number, each rounded to `T` first.
pub(super) struct Scaled<'a, T> {
    pub(super) x: &'a [T],
    pub(super) by: T,
}

impl<T: Real> WithSimd for Scaled<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        sum(self.x, self.x, |x, _| x * self.by)
    }
}

pub(super) struct Max<'a, T> {
    pub(super) x: &'a [T],
}

impl<T: Real> WithSimd for Max<'_, T> {
    type Output = T;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> T {
        fold(self.x, T::NEG_INFINITY, arith::maximum)
    }
}

pub(super) struct Min<'a, T> {
    pub(super) x: &'a [T],
}

impl<T: Real> WithSimd for Min<'_, T> {
    type Output = T;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> T {
        fold(self.x, T::INFINITY, arith::minimum)
    }
}

#[inline(always)]
fn sum<T: Real>(a: &[T], b: &[T], term: impl Fn(T, T) -> T) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<CHUNK>(), b.as_chunks::<CHUNK>());
    let mut lanes = [0.0; LANES];
    if !a.is_empty() {
        let mut sums = [0.0; CHUNK];
        // Two at once, as sums that are kept in memory are read and written each time.
        let (a_pairs, a_last) = a.as_chunks::<2>();
        let (b_pairs, b_last) = b.as_chunks::<2>();
        for ([a, c], [b, d]) in a_pairs.iter().zip(b_pairs) {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum += term(a[i], b[i]).into() + term(c[i], d[i]).into();
            }
        }
        for (a, b) in a_last.iter().zip(b_last) {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum += term(a[i], b[i]).into();
            }
        }
        lanes = halved(sums, |a, b| a + b);
    }
    let ((a, a_rest), (b, b_rest)) = (a_rest.as_chunks(), b_rest.as_chunks());
    let add = |lanes: &mut [f64; LANES], a: &[T; LANES], b: &[T; LANES]| {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += term(a, b).into();
        }
    };
    for (a, b) in a.iter().zip(b) {
        add(&mut lanes, a, b);
    }
    if !a_rest.is_empty() {
        add(&mut lanes, &padded(a_rest), &padded(b_rest));
    }
    join(lanes, |a, b| a + b)
}

/// The last, incomplete row of lanes.
#[inline(always)]
fn padded<T: Real>(rest: &[T]) -> [T; LANES] {
    let mut row = [T::ZERO; LANES];
    row[..rest.len()].copy_from_slice(rest);
    row
}

/// Folds with `f`, which must not mind the order of its operands and leave them as they are when
/// joined with `start`.
#[inline(always)]
fn fold<T: Real>(x: &[T], start: T, f: impl Fn(T, T) -> T) -> T {
    let (chunks, rest) = x.as_chunks::<CHUNK>();
    let mut best = [start; CHUNK];
    for chunk in chunks {
        for (best, &x) in best.iter_mut().zip(chunk) {
            *best = f(*best, x);
        }
    }
    let mut lanes = halved(best, &f);
    for (j, &x) in rest.iter().enumerate() {
        lanes[j % LANES] = f(lanes[j % LANES], x);
    }
    join(lanes, f)
}

/// Element `i` with `i + 64`, then `i` with `i + 32`, then `i` with `i + 16`.
#[inline(always)]
fn halved<T: Real>(mut chunk: Chunk<T>, f: impl Fn(T, T) -> T) -> [T; LANES] {
    let (low, high) = chunk.split_at_mut(CHUNK / 2);
    join_halves(low, high, &f);
    let (low, high) = low.split_at_mut(CHUNK / 4);
    join_halves(low, high, &f);
    let (low, high) = low.split_at_mut(LANES);
    join_halves(low, high, &f);
    std::array::from_fn(|i| low[i])
}

#[inline(always)]
fn join_halves<T: Real>(low: &mut [T], high: &[T], f: impl Fn(T, T) -> T) {
    for (low, &high) in low.iter_mut().zip(high) {
        *low = f(*low, high);
    }
}

/// Lane `i` with lane `i + 8`, then `i` with `i + 4`, and so on.
#[inline(always)]
fn join<T: Copy>(mut lanes: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}
