//! The methods of [`Var`](crate::Var), one family a file.

use std::panic::Location;

use crate::graph::caller::located;
use crate::graph::var::Var;

mod binary;
mod compare;
mod custom;
mod index;
mod matmul;
mod normalize;
mod reduce;
mod segment;
mod shape;
mod unary;

pub use binary::Operand;

/// Records a composite of several ops as one: its parts belong to the line that called the method
/// `name`, and an error of a part is one of the method and of its `operands`, which are what the
/// caller knows.
#[track_caller]
pub(crate) fn composite(
    name: &'static str,
    operands: &[&Var],
    record: impl FnOnce() -> Var,
) -> Var {
    if let Some(&bad) = operands.iter().find(|operand| operand.error().is_some()) {
        return bad.clone();
    }
    let recorded = located(Location::caller(), record);
    match recorded.error() {
        Some(error) => {
            let kinds: Vec<_> = operands.iter().map(|v| (v.shape(), v.dtype())).collect();
            Var::invalid(error.clone().of(name, &kinds))
        }
        None => recorded,
    }
}
