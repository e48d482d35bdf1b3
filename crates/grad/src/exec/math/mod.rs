//! Elementwise math and reductions on blocks, which are made of chunks of one size.
//!
//! The block interpreter keeps its registers in L1 and calls one kernel per instruction. Every
//! kernel here is a branchless scalar function in a plain loop, compiled once per instruction set
//! (AVX-512, AVX2 with FMA, NEON, the target's baseline) and chosen at run time by [`Kernels`]; the
//! compiler turns the loop into vectors. Chunks of a constant size leave no rest to be done in
//! another way: a fraction of the code, and **a value's result does not depend on its place in a
//! block**. Writing the scalar function has the merit that it reads as the mathematics it is.
//! Between instruction sets the transcendental functions may differ in the last bit (fused or
//! separate multiply-add); arithmetic, comparisons and reductions are the same bits everywhere.
//!
//! For `f32` every function is within 2 ulp of the true value and has the ends of C99 and PyTorch:
//! infinities, NaN, signed zeros, subnormals. Worst errors in the functions' docs were measured
//! over every input whose result is not trivial, on each x86 instruction set, against `f64`. For
//! `f64`, which serves gradient checks, the same interface leads to the standard library, compiled
//! for the baseline only.
//!
//! An output never overlaps an input, which Rust's slices guarantee and the loops rely on for their
//! speed: a register allocator gives each instruction a destination that is not among its operands.

mod arith;
mod choose;
mod erf;
mod exp;
mod hyper;
mod log;
mod loops;
mod pair;
mod polynomial;
mod pow;
mod real;
mod reduce;
mod trig;

#[cfg(test)]
#[path = "../../../tests/unit/math.rs"]
mod tests;

use crate::graph::op::{BinaryOp, CompareOp, ReduceOp, UnaryOp};
use loops::{BinaryCall, CompareCall, Select, UnaryCall};
use pulp::Arch;
use std::sync::OnceLock;

pub(crate) use choose::Then;
pub(crate) use pair::Step;
pub(crate) use real::Real;

/// Elements of a chunk: vectors of every width divide it.
pub(crate) const CHUNK: usize = 128;

/// What kernels work on.
pub(crate) type Chunk<T> = [T; CHUNK];

/// An operand: as many chunks as the result, or one of equal numbers for all of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg<'a, T> {
    Block(&'a [Chunk<T>]),
    Number(&'a Chunk<T>),
}

impl<'a, T> Arg<'a, T> {
    /// What is read for chunk `i` of the result.
    #[inline(always)]
    fn chunk(self, i: usize) -> &'a Chunk<T> {
        match self {
            Arg::Block(block) => &block[i],
            Arg::Number(number) => number,
        }
    }
}

/// The kernels of one instruction set. [`Kernels::get`] picks the best that this machine has.
///
/// All blocks of one call must have the same length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    arch: Arch,
}

impl Kernels {
    /// The best kernels for this machine, detected once.
    pub(crate) fn get() -> Kernels {
        static BEST: OnceLock<Kernels> = OnceLock::new();
        *BEST.get_or_init(|| Kernels { arch: Arch::new() })
    }

    /// The baseline, AVX2 and the best kernels of this machine, some of which may coincide.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Kernels> {
        let mut all = vec![Kernels { arch: Arch::Scalar }, Kernels::get()];
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        all.extend(pulp::x86::V3::try_new().map(|v3| Kernels { arch: Arch::V3(v3) }));
        all
    }

    /// `out = op(x)`.
    pub(crate) fn unary<T: Real>(self, op: UnaryOp, x: Arg<T>, out: &mut [Chunk<T>]) {
        T::dispatch(self.arch, UnaryCall { op, x, out });
    }

    /// `out = op(a, b)`.
    pub(crate) fn binary<T: Real>(self, op: BinaryOp, a: Arg<T>, b: Arg<T>, out: &mut [Chunk<T>]) {
        T::dispatch(self.arch, BinaryCall { op, a, b, out });
    }

    /// `out = a op b ? 1 : 0`.
    pub(crate) fn compare<T: Real>(
        self,
        op: CompareOp,
        a: Arg<T>,
        b: Arg<T>,
        out: &mut [Chunk<T>],
    ) {
        T::dispatch(self.arch, CompareCall { op, a, b, out });
    }

    /// `out = mask != 0 ? a : b`. Both are read, so the other side's NaN or infinity does no harm.
    pub(crate) fn select<T: Real>(self, mask: Arg<T>, a: Arg<T>, b: Arg<T>, out: &mut [Chunk<T>]) {
        T::dispatch(self.arch, Select { mask, a, b, out });
    }

    /// `out = a op b ? then(x) : y` for `compared` a and b and `values` x and y.
    pub(crate) fn choose<T: Real>(
        self,
        op: CompareOp,
        then: Then,
        compared: [Arg<T>; 2],
        values: [Arg<T>; 2],
        out: &mut [Chunk<T>],
    ) {
        T::dispatch(self.arch, choose::Choose { op, then, compared, values, out });
    }

    /// `out = (a first b) second c`, each rounded.
    pub(crate) fn pair<T: Real>(
        self,
        first: Step,
        second: Step,
        args: [Arg<T>; 3],
        out: &mut [Chunk<T>],
    ) {
        let pair = pair::Pair { first, second, args, out };
        T::dispatch(self.arch, pair);
    }

    /// A block in `f64`: its sum, accumulated in an order that depends on the length alone, or its
    /// largest or smallest element, NaN if there is one. The neutral element of `op` if `x` is
    /// empty.
    pub(crate) fn reduce<T: Real>(self, op: ReduceOp, x: &[T]) -> f64 {
        match op {
            ReduceOp::Sum => T::dispatch(self.arch, reduce::Sum { x }),
            ReduceOp::Max => T::dispatch(self.arch, reduce::Max { x }).into(),
            ReduceOp::Min => T::dispatch(self.arch, reduce::Min { x }).into(),
        }
    }

    /// The sum of `a * b`, with the bits of the sum of the block of products.
    pub(crate) fn dot<T: Real>(self, a: &[T], b: &[T]) -> f64 {
        T::dispatch(self.arch, reduce::Dot { a, b })
    }

    /// The sum of `x * by`, with the bits of the sum of the block of products.
    pub(crate) fn scaled_sum<T: Real>(self, x: &[T], by: T) -> f64 {
        T::dispatch(self.arch, reduce::Scaled { x, by })
    }
}
