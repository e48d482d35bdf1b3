//! The fused executor: CPU, f32 or f64.
//!
//! `plan.rs` divides the graph into passes over memory, `evaluation.rs` carries the plan out,
//! `kernel.rs` forms and binds the kernels of a pass, `simplify.rs` and `compile.rs` turn them into
//! linear programs, which `program.rs` caches by structure, `run.rs` interprets those block by
//! block on the functions of `math`. Ops that are not elementwise, and nodes of another dtype, go
//! to the reference executor.

mod cache;
mod compile;
mod evaluation;
mod item;
mod kernel;
mod partial;
mod plan;
mod pool;
mod program;
mod rows;
mod run;
mod simplify;

use candle_core::CpuStorage;

use self::pool::Pool;
use super::math::Real;
use crate::graph::element::{Element, Floats};
use crate::graph::op::Leaf;

pub(super) use evaluation::evaluate;
pub(super) use plan::Plan;

/// An element type of this executor.
pub(super) trait Scalar: Real + Element + Default + Send + Sync + 'static {
    fn of(storage: &CpuStorage) -> Option<&[Self]>;
    /// The memory of a leaf that is shared with its maker.
    fn of_leaf(leaf: &Leaf) -> Option<&[Self]>;
    fn pool() -> Pool<Self>;
    /// `floats` as numbers of this type, or else given back.
    fn own(floats: Floats<'_>) -> (Option<&mut [Self]>, Option<Floats<'_>>);
}

impl Scalar for f32 {
    fn of(storage: &CpuStorage) -> Option<&[f32]> {
        storage.as_slice().ok()
    }

    fn of_leaf(leaf: &Leaf) -> Option<&[f32]> {
        match leaf {
            Leaf::F32(data) => Some(&data.0),
            Leaf::F64(_) | Leaf::Tensor(_) => None,
        }
    }

    fn pool() -> Pool<f32> {
        pool::of_f32()
    }

    fn own(floats: Floats<'_>) -> (Option<&mut [f32]>, Option<Floats<'_>>) {
        match floats {
            Floats::F32(own) => (Some(own), None),
            other => (None, Some(other)),
        }
    }
}

impl Scalar for f64 {
    fn of(storage: &CpuStorage) -> Option<&[f64]> {
        storage.as_slice().ok()
    }

    fn of_leaf(leaf: &Leaf) -> Option<&[f64]> {
        match leaf {
            Leaf::F64(data) => Some(&data.0),
            Leaf::F32(_) | Leaf::Tensor(_) => None,
        }
    }

    fn pool() -> Pool<f64> {
        pool::of_f64()
    }

    fn own(floats: Floats<'_>) -> (Option<&mut [f64]>, Option<Floats<'_>>) {
        match floats {
            Floats::F64(own) => (Some(own), None),
            other => (None, Some(other)),
        }
    }
}
