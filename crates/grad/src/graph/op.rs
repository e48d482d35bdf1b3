use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use candle_core::Tensor;
use smallvec::SmallVec;

use crate::error::Error;
use crate::graph::custom::CustomOp;
use crate::graph::dims::Dims;
use crate::graph::segments::Segments;
use crate::graph::table::{binary_ops, compare_ops, reduce_ops, unary_ops};

/// The primitives. Everything else in the crate is a composite of these, so a derivative rule and a
/// kernel exist for each of them and for nothing else.
///
/// A node's shape and dtype are stored beside its `Op`, so they are not repeated here. Two ops are
/// equal if they do the same to the same operands: kind and every parameter.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    /// Values given by the user.
    Leaf(Leaf),
    /// One number in every element. Of rank 0 it takes the dtype and device of what it meets.
    Full(Number),
    /// An op that could not be recorded; it has no value.
    Invalid(Shared<Error>),
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
    Custom(Shared<dyn CustomOp>),
}

macro_rules! unary_enum {
    ($($(#[$doc:meta])* $Op:ident = $method:ident($x:ident $(, $($p:ident),+)?) $columns:tt)*) => {
        /// A function of one operand.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum UnaryOp {
            $($Op $({ $($p: Number),+ })?,)*
        }

        impl UnaryOp {
            /// The name of the method that records this op.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(UnaryOp::$Op $({ $($p: _),+ })? => stringify!($method),)*
                }
            }

            fn parameters(self) -> Parameters {
                match self {
                    $(UnaryOp::$Op $({ $($p),+ })? => Parameters::from_iter([
                        $($((stringify!($p), Parameter::Number($p.get()))),+)?
                    ]),)*
                }
            }
        }
    };
}
unary_ops!(unary_enum);

macro_rules! plain_enum {
    ($(#[$of:meta])* $Enum:ident: $($(#[$doc:meta])* $Op:ident = $method:ident $columns:tt;)*) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum $Enum {
            $($Op,)*
        }

        impl $Enum {
            /// The name of the method that records this op.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $($Enum::$Op => stringify!($method),)*
                }
            }
        }
    };
}

macro_rules! binary_enum {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $args:tt $columns:tt)*) => {
        plain_enum! {
            /// A function of two operands.
            BinaryOp: $($Op = $method $args;)*
        }
    };
}
binary_ops!(binary_enum);

macro_rules! compare_enum {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $columns:tt)*) => {
        plain_enum! {
            /// A comparison of two operands.
            CompareOp: $($Op = $method $columns;)*
        }
    };
}
compare_ops!(compare_enum);

macro_rules! reduce_enum {
    ($($(#[$doc:meta])* $Op:ident = $all:ident, $dims:ident, $keepdim:ident, $per_seq:ident {
        gradient: $gradient:literal,
        of_nothing: $of_nothing:ident, $empty:literal,
        example: $of_all:literal, $of_columns:literal,
        neutral: $neutral:expr,
        join: $join:expr,
        agree: $agree:ident,
    })*) => {
        /// A reduction.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum ReduceOp {
            $($Op,)*
        }

        impl ReduceOp {
            /// The name of the method that records this op.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(ReduceOp::$Op => stringify!($all),)*
                }
            }

            fn per_seq_name(self) -> &'static str {
                match self {
                    $(ReduceOp::$Op => stringify!($per_seq),)*
                }
            }

            /// What leaves every value that it is joined with as it is.
            pub(crate) fn neutral(self) -> f64 {
                match self {
                    $(ReduceOp::$Op => $neutral,)*
                }
            }

            /// Two partial results as one.
            pub(crate) fn join(self, a: f64, b: f64) -> f64 {
                let join: fn(f64, f64) -> f64 = match self {
                    $(ReduceOp::$Op => $join,)*
                };
                join(a, b)
            }

            /// What a reduction of a whole tensor or dimension without elements is.
            pub(crate) fn of_nothing(self) -> OfNothing {
                match self {
                    $(ReduceOp::$Op => OfNothing::$of_nothing,)*
                }
            }
        }
    };
}
reduce_ops!(reduce_enum);

/// What a reduction of nothing is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfNothing {
    /// Its neutral element.
    Neutral,
    /// An error.
    Refused,
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
            Op::Reduce { op, dims: _ } => op.name(),
            Op::Broadcast => "broadcast_to",
            Op::Reshape => "reshape",
            Op::Permute(_) => "permute",
            Op::Narrow { dim: _, start: _ } => "narrow",
            Op::Pad { dim: _, before: _ } => "pad",
            Op::Cat { dim: _ } => "cat",
            Op::Flip(_) => "flip",
            Op::CumSum { dim: _ } => "cumsum",
            Op::Gather { dim: _ } => "gather",
            Op::ScatterAdd { dim: _ } => "scatter_add",
            Op::IndexSelect { dim: _ } => "index_select",
            Op::IndexAdd { dim: _ } => "index_add",
            Op::MatMul => "matmul",
            Op::SegmentReduce { op, segments: _ } => op.per_seq_name(),
            Op::SegmentExpand(_) => "expand",
            Op::Detach => "detach",
            Op::Custom(op) => op.0.name(),
        }
    }

    /// What the op knows beside its operands and the shape and dtype of its result, by name.
    pub(crate) fn parameters(&self) -> Parameters {
        use Parameter::{Dimensions, Error, Number, Sequences, Size};
        let one = |name, parameter| Parameters::from_iter([(name, parameter)]);
        match self {
            Op::Full(value) => one("", Number(value.get())),
            Op::Invalid(error) => one("", Error(error.0.clone())),
            Op::Unary(op) => op.parameters(),
            Op::Reduce { op: _, dims } | Op::Permute(dims) | Op::Flip(dims) => {
                one("dims", Dimensions(dims.clone()))
            }
            Op::Narrow { dim, start } => {
                Parameters::from_iter([("dim", Size(*dim)), ("start", Size(*start))])
            }
            Op::Pad { dim, before } => {
                Parameters::from_iter([("dim", Size(*dim)), ("before", Size(*before))])
            }
            Op::Cat { dim }
            | Op::CumSum { dim }
            | Op::Gather { dim }
            | Op::ScatterAdd { dim }
            | Op::IndexSelect { dim }
            | Op::IndexAdd { dim } => one("dim", Size(*dim)),
            Op::SegmentReduce { op: _, segments } | Op::SegmentExpand(segments) => {
                one("sequences", Sequences(segments.len()))
            }
            Op::Leaf(_)
            | Op::Cast
            | Op::Binary(_)
            | Op::Compare(_)
            | Op::Select
            | Op::Broadcast
            | Op::Reshape
            | Op::MatMul
            | Op::Detach
            | Op::Custom(_) => Parameters::new(),
        }
    }
}

pub(crate) type Parameters = SmallVec<[(&'static str, Parameter); 2]>;

/// A parameter of an op, to be shown.
pub(crate) enum Parameter {
    Number(f64),
    Size(usize),
    Dimensions(Dims),
    Sequences(usize),
    Error(Arc<Error>),
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Parameter::Number(number) => write!(f, "{number}"),
            Parameter::Size(size) | Parameter::Sequences(size) => write!(f, "{size}"),
            Parameter::Dimensions(dims) => write!(f, "{dims:?}"),
            Parameter::Error(error) => write!(f, "{error}"),
        }
    }
}

/// An f64 that is compared and hashed by its bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Number(u64);

impl Number {
    pub(crate) const fn new(value: f64) -> Number {
        Number(value.to_bits())
    }

    pub(crate) const fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Values given by the user.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Leaf {
    Tensor(Identified),
    /// Memory shared with whoever made the leaf.
    F32(Shared<[f32]>),
    F64(Shared<[f64]>),
}

impl Leaf {
    pub(crate) fn tensor(tensor: Tensor) -> Leaf {
        Leaf::Tensor(Identified(tensor))
    }
}

/// A tensor that is the same only as itself.
#[derive(Clone)]
pub(crate) struct Identified(pub(crate) Tensor);

impl PartialEq for Identified {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for Identified {}

impl Hash for Identified {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
    }
}

/// Something that is the same only if it is the same in memory.
pub(crate) struct Shared<T: ?Sized>(pub(crate) Arc<T>);

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<T: ?Sized> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::as_ptr(&self.0).addr() == Arc::as_ptr(&other.0).addr()
    }
}

impl<T: ?Sized> Eq for Shared<T> {}

impl<T: ?Sized> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).addr().hash(state);
    }
}
