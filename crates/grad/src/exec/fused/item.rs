//! The values of a schedule.

use candle_core::DType;
use smallvec::SmallVec;

use super::program::KernelOp;
use crate::graph::dims::Dims;
use crate::graph::op::{Number, ReduceOp};
use crate::graph::segments::Segments;
use crate::graph::var::Var;

pub(super) type ItemId = u32;

/// One value of the schedule. Graph nodes that only rename a value (reshape, detach, a broadcast of
/// one number) have none.
pub(super) struct Item {
    pub(super) kind: Kind,
    pub(super) inputs: SmallVec<[ItemId; 3]>,
    pub(super) len: usize,
    pub(super) stage: u32,
    pub(super) is_stored: bool,
    /// Elementwise steps behind it that would be computed again.
    pub(super) cost: u32,
}

pub(super) enum Kind {
    /// The plan's leaf of that number, in memory from the start.
    Leaf(usize),
    Constant(Number),
    Map(KernelOp),
    /// `inputs[0]` has one element for each row; each becomes all elements of its row.
    Expand(Rows),
    /// One element for each row.
    Reduce(ReduceOp, Rows),
    /// Consecutive elements of `inputs[0]`.
    View {
        offset: usize,
    },
    /// The inputs' elements one after another.
    Cat,
    /// An op for the reference executor.
    Fallback(Box<Fallback>),
    /// `inputs[0]` of shape `from` broadcast to `to`, where that is not one of the forms that a
    /// kernel reads in place.
    Broadcast {
        from: Vec<usize>,
        to: Vec<usize>,
    },
}

/// What the reference executor has to know of a node.
pub(super) struct Fallback {
    pub(super) node: Var,
    pub(super) operands: Vec<(Dims, DType)>,
}

/// How the elements of a kernel divide into rows that are reduced or expanded.
#[derive(Clone, PartialEq)]
pub(super) enum Rows {
    One,
    Of(usize),
    Segments(Segments),
}

impl Item {
    /// Whether kernels over `len` elements can compute this, as opposed to only read it from
    /// memory.
    pub(super) fn is_inside(&self, len: usize) -> bool {
        self.len == len && matches!(self.kind, Kind::Map(_) | Kind::Expand(_))
    }

    /// The rows that this expands or reduces.
    pub(super) fn rows(&self) -> &Rows {
        match &self.kind {
            Kind::Expand(rows) | Kind::Reduce(_, rows) => rows,
            _ => unreachable!("rows are named by what reduces or expands them"),
        }
    }

    /// Whether this is computed into an array of its own, if it is stored.
    pub(super) fn is_written(&self) -> bool {
        let is_computed =
            matches!(self.kind, Kind::Map(_) | Kind::Expand(_) | Kind::Reduce(..) | Kind::Cat);
        is_computed && self.len != 1
    }

    /// The first stage that can read this from memory.
    pub(super) fn available(&self) -> u32 {
        match self.kind {
            Kind::Leaf(_) | Kind::Constant(_) => 0,
            Kind::View { .. } => self.stage,
            _ => self.stage + 1,
        }
    }
}
