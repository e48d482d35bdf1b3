use candle_core::{DType, Tensor};

use crate::diagnose::place::place;
use crate::error::{Error, Loc, Result};
use crate::exec::{backend, graph_of, reference};
use crate::graph::dims::unravel;
use crate::graph::op::Op;
use crate::graph::var::Var;

/// [`Error::NonFinite`] for the first value, in the order the ops were recorded, that is NaN or
/// infinite, among all that `roots` depend on. Constants made by [`Var::full`] may be infinite.
///
/// ```
/// # use tinsmith_grad::{Device, Error, Var, check_finite};
/// let x = Var::from_vec(vec![1f64, 0.0], &[2], &Device::Cpu);
/// let loss = (&x * x.log()).sum();
/// match check_finite(&[&loss]) {
///     Err(Error::NonFinite { op: "log", index, .. }) => assert_eq!(index, [1]),
///     other => panic!("{other:?}"),
/// }
/// ```
pub fn check_finite(roots: &[&Var]) -> Result<()> {
    let check = |var: &Var, tensor: &Tensor| match var.0.op {
        Op::Full(_) => Ok(()),
        _ => require_finite(var, tensor),
    };
    reference::evaluate(&graph_of(roots)?, &[], check).map(|_| ())
}

pub(crate) fn all_finite(tensors: &[Tensor], at: Loc) -> Result<bool> {
    let finite = |tensor: &Tensor| -> candle_core::Result<bool> {
        // 0 times a finite number is 0, and times any other NaN.
        let poison = (tensor.to_dtype(DType::F64)? * 0.0)?.sum_all()?;
        Ok(poison.to_scalar::<f64>()? == 0.0)
    };
    for tensor in tensors {
        if !finite(tensor).map_err(|e| Error::backend("check_finite", e, at))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The error for `roots` that were evaluated to `tensors`, not all finite.
pub(crate) fn blame(roots: &[&Var], tensors: &[Tensor]) -> Result<()> {
    check_finite(roots)?;
    // Not seen by the reference executor: an overflow at the very edge, say.
    let mut evaluated = roots.iter().zip(tensors);
    evaluated.try_for_each(|(root, tensor)| require_finite(root, tensor))
}

fn require_finite(var: &Var, tensor: &Tensor) -> Result<()> {
    if !var.is_float() || all_finite(std::slice::from_ref(tensor), var.0.at)? {
        return Ok(());
    }
    let values = tensor.to_dtype(DType::F64).and_then(|t| t.flatten_all()?.to_vec1::<f64>());
    let values = values.map_err(|e| backend(var, e))?;
    let Some(flat) = values.iter().position(|v| !v.is_finite()) else {
        return Ok(());
    };
    let index = unravel(flat, var.shape());
    let place = place(var, index.first().copied().unwrap_or(0));
    Err(Error::NonFinite {
        op: var.0.derivative_of.unwrap_or(var.0.op.name()),
        label: var.label_text(),
        value: values[flat],
        index,
        seq: place.map(|place| place.seq),
        row: place.and_then(|place| place.row),
        backward: var.0.derivative_of.is_some(),
        at: var.0.at,
    })
}
