use std::sync::Arc;

use candle_core::Tensor;

use crate::error::Error;
use crate::graph::custom::CustomOp;
use crate::graph::dims::Dims;
use crate::graph::segments::Segments;

/// The primitives. Everything else in the crate is a composite of these, so a derivative rule and a kernel exist
/// for each of them and for nothing else.
///
/// A node's shape and dtype are stored beside its `Op`, so they are not repeated here.
#[derive(Clone)]
pub(crate) enum Op {
    /// Values given by the user.
    Leaf(Tensor),
    /// One number in every element. Of rank 0 it takes the dtype and device of what it meets.
    Full(f64),
    /// An op that could not be recorded; it has no value.
    Invalid(Arc<Error>),
    Cast,
    Unary(UnaryOp),
    /// Operands broadcast to the node's shape.
    Binary(BinaryOp),
    /// As `Binary`; the result is a u8 mask of 0 and 1.
    Compare(CompareOp),
    /// `inputs[0] != 0 ? inputs[1] : inputs[2]`, all three broadcast.
    Select,
    /// Over `dims`, which the node's shape keeps with size 1 or leaves out.
    Reduce {
        op: ReduceOp,
        dims: Dims,
    },
    Broadcast,
    Reshape,
    Permute(Dims),
    Narrow {
        dim: usize,
        start: usize,
    },
    /// Zeros before and after the input along `dim`.
    Pad {
        dim: usize,
        before: usize,
    },
    Cat {
        dim: usize,
    },
    Flip(Dims),
    CumSum {
        dim: usize,
    },
    /// inputs: x, index
    Gather {
        dim: usize,
    },
    /// inputs: x, index, src
    ScatterAdd {
        dim: usize,
    },
    /// inputs: x, index (rank 1)
    IndexSelect {
        dim: usize,
    },
    /// inputs: x, index (rank 1), src
    IndexAdd {
        dim: usize,
    },
    /// Of the last two dimensions; the leading ones broadcast.
    MatMul,
    /// `[rows, ..]` to `[segments, ..]`.
    SegmentReduce {
        op: ReduceOp,
        segments: Segments,
    },
    /// `[segments, ..]` to `[rows, ..]`.
    SegmentExpand(Segments),
    Detach,
    Custom(Arc<dyn CustomOp>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum UnaryOp {
    Neg,
    Exp,
    Expm1,
    Log,
    Log1p,
    Sqrt,
    Rsqrt,
    Abs,
    Sign,
    Tanh,
    Sigmoid,
    LogSigmoid,
    Erf,
    Sin,
    Cos,
    Square,
    Recip,
    Floor,
    Ceil,
    Round,
    Powf(f64),
    Clamp { lo: f64, hi: f64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Maximum,
    Minimum,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ReduceOp {
    Sum,
    Max,
    Min,
}

impl Op {
    /// The name of the method that records this op.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Op::Leaf(_) => "leaf",
            Op::Full(_) => "full",
            Op::Invalid(_) => "invalid",
            Op::Cast => "to_dtype",
            Op::Unary(op) => op.name(),
            Op::Binary(op) => op.name(),
            Op::Compare(op) => op.name(),
            Op::Select => "select",
            Op::Reduce { op, .. } => op.name(),
            Op::Broadcast => "broadcast_to",
            Op::Reshape => "reshape",
            Op::Permute(_) => "permute",
            Op::Narrow { .. } => "narrow",
            Op::Pad { .. } => "pad",
            Op::Cat { .. } => "cat",
            Op::Flip(_) => "flip",
            Op::CumSum { .. } => "cumsum",
            Op::Gather { .. } => "gather",
            Op::ScatterAdd { .. } => "scatter_add",
            Op::IndexSelect { .. } => "index_select",
            Op::IndexAdd { .. } => "index_add",
            Op::MatMul => "matmul",
            Op::SegmentReduce { op, .. } => op.per_seq_name(),
            Op::SegmentExpand(_) => "expand",
            Op::Detach => "detach",
            Op::Custom(op) => op.name(),
        }
    }
}

impl UnaryOp {
    pub(crate) fn name(self) -> &'static str {
        match self {
            UnaryOp::Neg => "neg",
            UnaryOp::Exp => "exp",
            UnaryOp::Expm1 => "expm1",
            UnaryOp::Log => "log",
            UnaryOp::Log1p => "log1p",
            UnaryOp::Sqrt => "sqrt",
            UnaryOp::Rsqrt => "rsqrt",
            UnaryOp::Abs => "abs",
            UnaryOp::Sign => "sign",
            UnaryOp::Tanh => "tanh",
            UnaryOp::Sigmoid => "sigmoid",
            UnaryOp::LogSigmoid => "log_sigmoid",
            UnaryOp::Erf => "erf",
            UnaryOp::Sin => "sin",
            UnaryOp::Cos => "cos",
            UnaryOp::Square => "square",
            UnaryOp::Recip => "recip",
            UnaryOp::Floor => "floor",
            UnaryOp::Ceil => "ceil",
            UnaryOp::Round => "round",
            UnaryOp::Powf(_) => "powf",
            UnaryOp::Clamp { .. } => "clamp",
        }
    }
}

impl BinaryOp {
    pub(crate) fn name(self) -> &'static str {
        match self {
            BinaryOp::Add => "add",
            BinaryOp::Sub => "sub",
            BinaryOp::Mul => "mul",
            BinaryOp::Div => "div",
            BinaryOp::Pow => "pow",
            BinaryOp::Maximum => "maximum",
            BinaryOp::Minimum => "minimum",
        }
    }
}

impl CompareOp {
    pub(crate) fn name(self) -> &'static str {
        match self {
            CompareOp::Eq => "eq",
            CompareOp::Ne => "ne",
            CompareOp::Lt => "lt",
            CompareOp::Le => "le",
            CompareOp::Gt => "gt",
            CompareOp::Ge => "ge",
        }
    }
}

impl ReduceOp {
    pub(crate) fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Max => "max",
            ReduceOp::Min => "min",
        }
    }

    fn per_seq_name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum_per_seq",
            ReduceOp::Max => "max_per_seq",
            ReduceOp::Min => "min_per_seq",
        }
    }
}
