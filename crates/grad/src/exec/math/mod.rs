//! Elementwise math and reductions on blocks: slices in, slices out.
//!
//! The block interpreter keeps its registers in L1 and calls one kernel per instruction. Every
//! kernel here is a branchless scalar function in a plain loop, compiled once per instruction set
//! (AVX-512, AVX2 with FMA, NEON, the target's baseline) and chosen at run time by [`Kernels`]; the
//! compiler turns the loop into vectors. Writing the scalar function has two merits: it reads as
//! the mathematics it is, and the tail of a block computes exactly what its body does, so **a
//! value's result depends neither on its place in a block nor on the block's length**. Between
//! instruction sets the transcendental functions may differ in the last bit (fused or separate
//! multiply-add); arithmetic, comparisons and reductions are the same bits everywhere.
//!
//! For `f32` every function is within 2 ulp of the true value and has the ends of C99 and PyTorch:
//! infinities, NaN, signed zeros, subnormals. Worst errors in the functions' docs were measured over
//! every input whose result is not trivial, on each x86 instruction set, against `f64`. For `f64`,
//! which serves gradient checks, the same interface leads to the standard library.
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
mod polynomial;
mod pow;
mod real;
mod reduce;
mod trig;

#[cfg(test)]
mod tests;

use crate::graph::op::{BinaryOp, CompareOp, UnaryOp};
use loops::{BinaryCall, CompareCall, Select, UnaryCall};
use pulp::{Arch, Simd, WithSimd};
use std::sync::OnceLock;

pub(crate) use choose::{Choice, Taken};
pub(crate) use real::Real;

/// An operand: one value per element, or one number for the whole block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg<'a, T> {
    Block(&'a [T]),
    Number(T),
}

impl<'a, T> From<&'a [T]> for Arg<'a, T> {
    fn from(block: &'a [T]) -> Self {
        Arg::Block(block)
    }
}

impl<T: Real> From<T> for Arg<'_, T> {
    fn from(number: T) -> Self {
        Arg::Number(number)
    }
}

/// The kernels of one instruction set. [`Kernels::get`] picks the best that this machine has.
///
/// All slices of one call must have the same length; in release builds the shortest one counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels<D = Arch> {
    arch: D,
}

/// Where the code for an instruction set begins: at each call, or around many of them.
pub(crate) trait Dispatch: Copy {
    fn dispatch<Op: WithSimd>(self, op: Op) -> Op::Output;
}

impl Dispatch for Arch {
    fn dispatch<Op: WithSimd>(self, op: Op) -> Op::Output {
        Arch::dispatch(self, op)
    }
}

/// Within the code of instruction set `S`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inside<S>(S);

impl<S: Simd> Dispatch for Inside<S> {
    #[inline(always)]
    fn dispatch<Op: WithSimd>(self, op: Op) -> Op::Output {
        op.with_simd(self.0)
    }
}

/// Many calls of kernels in a row.
pub(crate) trait Calls {
    fn make(self, kernels: Kernels<impl Dispatch>);
}

struct Enter<C>(C);

impl<C: Calls> WithSimd for Enter<C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.0.make(Kernels { arch: Inside(simd) });
    }
}

impl Kernels {
    /// The best kernels for this machine, detected once.
    pub(crate) fn get() -> Kernels {
        static BEST: OnceLock<Kernels> = OnceLock::new();
        *BEST.get_or_init(|| Kernels { arch: Arch::new() })
    }

    /// Makes all of `calls` within the code of one instruction set, which saves entering it for each.
    pub(crate) fn within(self, calls: impl Calls) {
        self.arch.dispatch(Enter(calls));
    }

    /// The baseline, AVX2 and the best kernels of this machine, some of which may coincide.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Kernels> {
        let mut all = vec![Kernels { arch: Arch::Scalar }, Kernels::get()];
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        all.extend(pulp::x86::V3::try_new().map(|v3| Kernels { arch: Arch::V3(v3) }));
        all
    }
}

impl<D: Dispatch> Kernels<D> {
    /// `out = op(x)`.
    #[inline(always)]
    pub(crate) fn unary<T: Real>(self, op: UnaryOp, x: &[T], out: &mut [T]) {
        debug_assert_eq!(x.len(), out.len());
        self.arch.dispatch(UnaryCall { op, x, out });
    }

    /// `out = op(a, b)`.
    #[inline(always)]
    pub(crate) fn binary<T: Real>(self, op: BinaryOp, a: Arg<T>, b: Arg<T>, out: &mut [T]) {
        debug_assert!(fits(a, out) && fits(b, out));
        self.arch.dispatch(BinaryCall { op, a, b, out });
    }

    /// `out = a op b ? 1 : 0`.
    #[inline(always)]
    pub(crate) fn compare<T: Real>(self, op: CompareOp, a: Arg<T>, b: Arg<T>, out: &mut [T]) {
        debug_assert!(fits(a, out) && fits(b, out));
        self.arch.dispatch(CompareCall { op, a, b, out });
    }

    /// `out = mask != 0 ? a : b`. Both are read, so the other side's NaN or infinity does no harm.
    #[inline(always)]
    pub(crate) fn select<T: Real>(self, mask: &[T], a: Arg<T>, b: Arg<T>, out: &mut [T]) {
        debug_assert!(mask.len() == out.len() && fits(a, out) && fits(b, out));
        self.arch.dispatch(Select { mask, a, b, out });
    }

    /// `out = a op b ? taken(x) : y` for `compared` a and b and `values` x and y.
    #[inline(always)]
    pub(crate) fn choose<T: Real>(
        self,
        choice: Choice<T>,
        compared: [Arg<T>; 2],
        values: [Arg<T>; 2],
        out: &mut [T],
    ) {
        debug_assert!(compared.into_iter().chain(values).all(|arg| fits(arg, out)));
        self.arch.dispatch(choose::Choose {
            choice,
            compared,
            values,
            out,
        });
    }

    /// The sum of a block, accumulated in `f64` in an order that depends on the length alone.
    #[inline(always)]
    pub(crate) fn sum<T: Real>(self, x: &[T]) -> f64 {
        self.arch.dispatch(reduce::Sum { x })
    }

    /// The sum of `a * b`, with the bits of the sum of the block of products.
    #[inline(always)]
    pub(crate) fn dot<T: Real>(self, a: &[T], b: Arg<T>) -> f64 {
        debug_assert!(fits(b, a));
        self.arch.dispatch(reduce::Dot { a, b })
    }

    /// The largest element; NaN if there is one; negative infinity if `x` is empty.
    #[inline(always)]
    pub(crate) fn max<T: Real>(self, x: &[T]) -> T {
        self.arch.dispatch(reduce::Fold {
            x,
            start: T::NEG_INFINITY,
            f: arith::maximum::<T>,
        })
    }

    /// The smallest element; NaN if there is one; infinity if `x` is empty.
    #[inline(always)]
    pub(crate) fn min<T: Real>(self, x: &[T]) -> T {
        self.arch.dispatch(reduce::Fold {
            x,
            start: T::INFINITY,
            f: arith::minimum::<T>,
        })
    }
}

fn fits<T>(arg: Arg<T>, out: &[T]) -> bool {
    match arg {
        Arg::Block(x) => x.len() == out.len(),
        Arg::Number(_) => true,
    }
}
