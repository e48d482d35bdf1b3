//! Reductions of a block. Whole chunks join element by element, what they leave is halved until 16 lanes remain, and element `i`
//! of the rest goes to lane `i % 16`: an order that depends on the length alone and that every vector width can follow, so the
//! same bits come out on every machine.

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
        let (chunks, rest) = self.x.as_chunks::<CHUNK>();
        sum(
            chunks.len(),
            rest.len(),
            |i| {
                let chunk = &chunks[i];
                move |j| chunk[j]
            },
            |j| rest[j],
        )
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
        let ((a, a_rest), (b, b_rest)) = (self.a.as_chunks::<CHUNK>(), self.b.as_chunks::<CHUNK>());
        sum(
            a.len(),
            a_rest.len(),
            |i| {
                let (a, b) = (&a[i], &b[i]);
                move |j| a[j] * b[j]
            },
            |j| a_rest[j] * b_rest[j],
        )
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

/// The sum of `chunks` chunks and `rest` elements after them.
#[inline(always)]
fn sum<T: Real, G: Fn(usize) -> T>(
    chunks: usize,
    rest: usize,
    chunk: impl Fn(usize) -> G,
    after: impl Fn(usize) -> T,
) -> f64 {
    let mut lanes = [0.0; LANES];
    if chunks > 0 {
        let mut sums = [0.0; CHUNK];
        for pair in 0..chunks / 2 {
            let (a, b) = (chunk(2 * pair), chunk(2 * pair + 1));
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum += a(j).into() + b(j).into();
            }
        }
        if chunks % 2 == 1 {
            let last = chunk(chunks - 1);
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum += last(j).into();
            }
        }
        lanes = halved(&sums, |a, b| a + b);
    }
    for j in 0..rest {
        lanes[j % LANES] += after(j).into();
    }
    join(lanes, |a, b| a + b)
}

/// Folds with `f`, which must not mind the order of its operands and leave them as they are when joined with `start`.
#[inline(always)]
fn fold<T: Real>(x: &[T], start: T, f: impl Fn(T, T) -> T) -> T {
    let (chunks, rest) = x.as_chunks::<CHUNK>();
    let mut best = [start; CHUNK];
    for chunk in chunks {
        for (best, &x) in best.iter_mut().zip(chunk) {
            *best = f(*best, x);
        }
    }
    let mut lanes = halved(&best, &f);
    for (j, &x) in rest.iter().enumerate() {
        lanes[j % LANES] = f(lanes[j % LANES], x);
    }
    join(lanes, f)
}

/// Element `i` with `i + 64`, then `i` with `i + 32`, then `i` with `i + 16`.
#[inline(always)]
fn halved<T: Real>(chunk: &Chunk<T>, f: impl Fn(T, T) -> T) -> [T; LANES] {
    let quarters: [T; CHUNK / 2] = std::array::from_fn(|i| f(chunk[i], chunk[i + CHUNK / 2]));
    let eighths: [T; CHUNK / 4] = std::array::from_fn(|i| f(quarters[i], quarters[i + CHUNK / 4]));
    std::array::from_fn(|i| f(eighths[i], eighths[i + LANES]))
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
