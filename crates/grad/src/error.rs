use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use candle_core::DType;

/// What every fallible call of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Where in the user's source an op was recorded. Prints as `file:line:column`.
pub type Loc = &'static Location<'static>;

/// What went wrong, in which op, and on which line of the caller's source.
///
/// Recording an op never fails: the op returns a [`Var`](crate::Var) that carries the error, later
/// ops pass the first one on, and the call that evaluates returns it.
///
/// ```
/// use tinsmith_grad::{Device, Error, Var};
///
/// let a = Var::from_vec(vec![1f32, 2.0], &[2], &Device::Cpu);
/// let b = Var::from_vec(vec![1f32, 2.0, 3.0], &[3], &Device::Cpu);
/// let loss = (&a * &b).sum(); // no panic and no `?` here
/// let error = loss.item().unwrap_err();
/// assert!(matches!(error, Error::Shape { op: "mul", .. }));
/// assert!(error.to_string().starts_with("mul: shapes [2] and [3] do not broadcast"));
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operands' shapes do not fit the op.
    #[error("{op}: {} {why} (recorded at {at})", ShapeList(.shapes))]
    Shape {
        /// The op's name, as the method that records it.
        op: &'static str,
        /// The operands' shapes, in order.
        shapes: Vec<Vec<usize>>,
        /// What does not fit, and what would.
        why: String,
        /// The line that recorded the op.
        at: Loc,
    },
    /// The operands' dtypes do not fit the op.
    #[error("{op}: {why}, got {dtypes:?} (recorded at {at})")]
    DType {
        /// The op's name.
        op: &'static str,
        /// The operands' dtypes, in order.
        dtypes: Vec<DType>,
        /// What does not fit, and what would.
        why: &'static str,
        /// The line that recorded the op.
        at: Loc,
    },
    /// The operands lie on different devices.
    #[error(
        "{op}: operands on different devices, {devices} (recorded at {at}); move one with Tensor::to_device"
    )]
    Device {
        /// The op's name.
        op: &'static str,
        /// The devices met.
        devices: String,
        /// The line that recorded the op.
        at: Loc,
    },
    /// An argument that is not a tensor is out of its range: a dimension, a length, a permutation.
    #[error("{op}: {why} (recorded at {at})")]
    Argument {
        /// The op's name.
        op: &'static str,
        /// What is out of range, and the range.
        why: String,
        /// The line that recorded the op.
        at: Loc,
    },
    /// Two ragged batches differ in the length of a sequence.
    #[error(
        "{op}: sequence {seq} has {left} rows on the left and {right} on the right (recorded at {at}); \
         align them with Ragged::truncate_to"
    )]
    SequenceLength {
        /// The op's name.
        op: &'static str,
        /// The first sequence whose lengths differ.
        seq: usize,
        /// Its length in the left operand.
        left: usize,
        /// Its length in the right operand.
        right: usize,
        /// The line that recorded the op.
        at: Loc,
    },
    /// An index tensor points outside of the dimension it indexes. Found on evaluation.
    #[error("{op}: index {index} is outside of a dimension of size {size} (recorded at {at})")]
    Index {
        /// The op's name.
        op: &'static str,
        /// The first index that is out of range.
        index: i64,
        /// The size of the indexed dimension.
        size: usize,
        /// The line that recorded the op.
        at: Loc,
    },
    /// `backward` was asked of a root that is not a single number.
    #[error(
        "backward: the root has shape {shape:?}, not one number ({op}, recorded at {at}); \
         reduce it with .sum() or .mean(), or give a seed of that shape"
    )]
    NotScalar {
        /// The op that made the root.
        op: &'static str,
        /// The root's shape.
        shape: Vec<usize>,
        /// The line that recorded the root.
        at: Loc,
    },
    /// The root does not depend on a leaf whose gradient was asked for.
    #[error(
        "backward: the root does not depend on leaf {index}{} of shape {shape:?} (made at {at}), so it has no \
         gradient; use the leaf in the loss, or ask for zeros with Backward::allow_unused", Label(.label)
    )]
    Unused {
        /// Position of the leaf in the list that was asked for.
        index: usize,
        /// The leaf's label, if it has one.
        label: Option<String>,
        /// The leaf's shape.
        shape: Vec<usize>,
        /// The line that made the leaf.
        at: Loc,
    },
    /// The first value that is NaN or infinite, in the order the graph was recorded.
    #[error(
        "{op}{} gives {value} at index {index:?}{} (recorded at {at}){}",
        Label(.label), Place(.seq, .row), Phase(.backward)
    )]
    NonFinite {
        /// The op that made the value; for a value of the gradient, the forward op that it is the
        /// derivative of.
        op: &'static str,
        /// The label of that op's result, if it has one.
        label: Option<String>,
        /// NaN, inf or -inf.
        value: f64,
        /// Where in the op's result.
        index: Vec<usize>,
        /// The sequence, if the value lies on a [`Ragged`](crate::Ragged) batch or was computed
        /// from one sequence of it.
        seq: Option<usize>,
        /// The row in that sequence; `None` for a value that belongs to all of it.
        row: Option<usize>,
        /// Whether the op belongs to the gradient rather than to the loss.
        backward: bool,
        /// The line that recorded the op; for an op of the gradient, the forward op it
        /// differentiates.
        at: Loc,
    },
    /// The tensor library refused an op that had looked right when it was recorded.
    #[error("{op}: {source} (recorded at {at})")]
    Backend {
        /// The op's name.
        op: &'static str,
        /// What candle said.
        source: Arc<candle_core::Error>,
        /// The line that recorded the op.
        at: Loc,
    },
    /// A [`CustomOp`](crate::CustomOp) broke its contract.
    #[error("custom op {op}: {why} (recorded at {at})")]
    Custom {
        /// The custom op's name.
        op: &'static str,
        /// What it did.
        why: String,
        /// The line that recorded the op.
        at: Loc,
    },
    /// A gradient check found the derivative wrong.
    #[error(
        "gradcheck: {op} at {at}: the derivative by input {input} {} is {} analytically and {} numerically",
        Along(.index), Short(*.analytic), Short(*.numeric)
    )]
    Gradcheck {
        /// The op that made the function's result.
        op: &'static str,
        /// Position of the input in the list that was given.
        input: usize,
        /// The element of the input; `None` if the derivatives differ along a random direction, and
        /// agree by every element: the function may be rough at this step.
        index: Option<Vec<usize>>,
        /// What the backward pass gives.
        analytic: f64,
        /// The difference quotient.
        numeric: f64,
        /// The line that recorded the function's result.
        at: Loc,
    },
}

impl Error {
    /// The error of a part of the composite `name` of `operands`, as one of the composite.
    pub(crate) fn of(mut self, name: &'static str, operands: &[(&[usize], DType)]) -> Error {
        match &mut self {
            Error::Shape { op, shapes, .. } => {
                *op = name;
                *shapes = operands.iter().map(|(shape, _)| shape.to_vec()).collect();
            }
            Error::DType { op, dtypes, .. } => {
                *op = name;
                *dtypes = operands.iter().map(|&(_, dtype)| dtype).collect();
            }
            Error::Device { op, .. }
            | Error::Argument { op, .. }
            | Error::SequenceLength { op, .. }
            | Error::Backend { op, .. } => *op = name,
            Error::Index { .. }
            | Error::NotScalar { .. }
            | Error::Unused { .. }
            | Error::NonFinite { .. }
            | Error::Custom { .. }
            | Error::Gradcheck { .. } => {}
        }
        self
    }

    /// Wraps candle's error without the backtrace that it prints among its words.
    pub(crate) fn backend(op: &'static str, e: candle_core::Error, at: Loc) -> Error {
        let mut source = e;
        while let candle_core::Error::WithBacktrace { inner, .. } = source {
            source = *inner;
        }
        Error::Backend { op, source: Arc::new(source), at }
    }
}

struct ShapeList<'a>(&'a [Vec<usize>]);

impl fmt::Display for ShapeList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.len() == 1 { "shape" } else { "shapes" })?;
        for (i, shape) in self.0.iter().enumerate() {
            let joint = match i {
                0 => " ",
                _ if i + 1 == self.0.len() => " and ",
                _ => ", ",
            };
            write!(f, "{joint}{shape:?}")?;
        }
        Ok(())
    }
}

struct Along<'a>(&'a Option<Vec<usize>>);

impl fmt::Display for Along<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(index) => write!(f, "at {index:?}"),
            None => f.write_str("along a random direction, though by no element,"),
        }
    }
}

/// To nine digits: a difference quotient has no more.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:.8e}", self.0);
        write!(f, "{}", digits.parse().unwrap_or(self.0))
    }
}

struct Label<'a>(&'a Option<String>);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |label| write!(f, " `{label}`"))
    }
}

struct Place<'a>(&'a Option<usize>, &'a Option<usize>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place(Some(seq), Some(row)) => write!(f, ", row {row} of sequence {seq}"),
            Place(Some(seq), None) => write!(f, ", of sequence {seq}"),
            Place(None, _) => Ok(()),
        }
    }
}

struct Phase<'a>(&'a bool);

impl fmt::Display for Phase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self.0 { ", in the derivative of that op" } else { "" })
    }
}
