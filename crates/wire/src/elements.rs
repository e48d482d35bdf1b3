//! What the elements of a tensor are, and how many there are.

use std::fmt;

/// Element type of a [`TensorData`](crate::TensorData). The wire knows two.
///
/// ```
/// use tinsmith_wire::DType;
/// assert_eq!((DType::Float32.size(), DType::Int64.size()), (4, 8));
/// assert_eq!(DType::Int64.to_string(), "int64");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE single precision.
    Float32,
    /// 64-bit signed integers.
    Int64,
}

impl DType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            DType::Float32 => 4,
            DType::Int64 => 8,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::Float32 => "float32",
            DType::Int64 => "int64",
        })
    }
}

/// Product of the dimensions, `None` when it overflows.
pub(crate) fn elem_count(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}
