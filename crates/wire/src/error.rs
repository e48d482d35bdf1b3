use std::fmt;

use crate::elements::{DType, elem_count};

/// What can be wrong with protocol data. Every variant says what was read or built, where, and why.
///
/// ```
/// use tinsmith_wire::{Error, LoraConfig, json};
/// match json::from_slice::<LoraConfig>(br#"{"rank": -1}"#) {
///     Err(Error::Decode { what, path, .. }) => assert_eq!((what, path.as_str()), ("LoraConfig", "rank")),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value has no form in a codec: NaN in JSON, a large token id in protobuf.
    #[error("cannot write {what} as {format}: at `{path}`: {reason}")]
    Encode {
        /// The type being written.
        what: &'static str,
        /// `JSON` or `protobuf`.
        format: &'static str,
        /// Path to the value, such as `data[0].loss_fn_inputs.weights`.
        path: String,
        /// What is wrong there.
        reason: String,
    },
    /// A body is not of the codec, or not of the expected type.
    #[error("cannot read {what} from {format}: at `{path}`: {reason}")]
    Decode {
        /// The type being read.
        what: &'static str,
        /// `JSON` or `protobuf`.
        format: &'static str,
        /// Path to the value, `.` for the document itself.
        path: String,
        /// What is wrong there; in JSON with line and column.
        reason: String,
    },
    /// The shape of a tensor and the number of its elements disagree.
    #[error("`shape` {shape:?} holds {} elements, `data` has {len}", Count(shape))]
    Shape {
        /// The shape that was given.
        shape: Vec<usize>,
        /// Length of the data.
        len: usize,
    },
    /// The index arrays of a sparse tensor are not a CSR matrix.
    #[error("`{field}` is not valid CSR: {reason}")]
    Csr {
        /// The field at fault.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor of another dtype was needed.
    #[error("dtype is {found}, expected {expected}")]
    DType {
        /// The dtype that was needed.
        expected: DType,
        /// The dtype that was found.
        found: DType,
    },
    /// The rows of a matrix are of different lengths.
    #[error("row {row} has {found} elements, the first row has {cols}")]
    Ragged {
        /// The row at fault.
        row: usize,
        /// Its length.
        found: usize,
        /// Length of the first row.
        cols: usize,
    },
    /// A datum cannot be built of what was given.
    #[error("cannot build a datum: `{field}`: {reason}")]
    Datum {
        /// What is at fault.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A body cannot be compressed or decompressed.
    #[cfg(feature = "zstd")]
    #[error("zstd body: {0}")]
    Zstd(String),
    /// The dense form of a sparse tensor would be out of proportion to what the tensor lists.
    #[error(
        "a sparse tensor of shape {shape:?} has {} elements as a dense one, and lists so few that \
         the limit is {limit}; make its shape smaller, or send it dense",
        Count(shape)
    )]
    TooLarge {
        /// The shape that was asked for.
        shape: Vec<usize>,
        /// Most elements that the dense form may have.
        limit: usize,
    },
    /// A candle tensor could not be converted.
    #[cfg(feature = "candle")]
    #[error("candle tensor: {0}")]
    Candle(String),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The element count of a shape, for messages.
struct Count<'a>(&'a [usize]);

impl fmt::Display for Count<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match elem_count(self.0) {
            Some(n) => n.fmt(f),
            None => f.write_str("more than 2^64"),
        }
    }
}
