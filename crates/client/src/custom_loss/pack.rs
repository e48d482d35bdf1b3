//! The inputs of many data as one array.

use std::borrow::Borrow;

use tinsmith_grad::{Device, Ragged, Var};
use tinsmith_wire::{Data, TensorData};

use crate::{DatumProblem, Error, Result};

pub(super) fn bad(index: usize, field: &str, problem: DatumProblem) -> Error {
    let field = field.to_owned();
    Error::Datum { index, field, problem }
}

pub(super) fn misshapen(index: usize, name: &str, tensor: &TensorData, expected: String) -> Error {
    let found = tensor.shape().into_owned();
    bad(index, name, DatumProblem::Shape { found, expected })
}

/// None for a single number without a dimension.
pub(super) fn rows(tensor: &TensorData) -> Option<usize> {
    tensor.shape().first().copied()
}

/// The first `length` rows, and rows of `fill` for those that are missing.
pub(super) fn resized(tensor: &TensorData, length: usize, fill: f64) -> Result<TensorData, String> {
    let dense = tensor.to_dense().map_err(|error| error.to_string())?;
    let mut shape = dense.shape().into_owned();
    shape[0] = length;
    let count = shape.iter().product();
    let data = match dense.data() {
        Data::F32(values) => {
            let mut values = values.to_vec();
            values.resize(count, fill as f32);
            Data::from(values)
        }
        Data::I64(values) => {
            if fill as i64 as f64 != fill {
                return Err(format!("it is int64, which cannot be filled up with {fill}"));
            }
            let mut values = values.to_vec();
            values.resize(count, fill as i64);
            Data::from(values)
        }
    };
    TensorData::new(data, &shape).map_err(|error| error.to_string())
}

/// Tensors of one dtype and trailing shape, one after another.
pub(super) fn pack<T: Borrow<TensorData>>(tensors: &[T], name: &str) -> Result<Ragged> {
    let (mut floats, mut ints) = (Vec::<f32>::new(), Vec::<i64>::new());
    let total = tensors.iter().map(|tensor| tensor.borrow().elem_count()).sum();
    match tensors.first().map(|tensor| tensor.borrow().dtype()) {
        Some(tinsmith_wire::DType::Int64) => ints.reserve_exact(total),
        _ => floats.reserve_exact(total),
    }
    let mut lengths = Vec::with_capacity(tensors.len());
    let mut first: Option<TensorData> = None;
    for (index, tensor) in tensors.iter().enumerate() {
        let dense = tensor.borrow().to_dense();
        let dense =
            dense.map_err(|error| bad(index, name, DatumProblem::Unusable(error.to_string())))?;
        let model = first.get_or_insert_with(|| dense.clone());
        if dense.dtype() != model.dtype() {
            let (expected, found) = (model.dtype(), dense.dtype());
            return Err(bad(index, name, DatumProblem::DType { expected, found }));
        }
        let (shape, like) = (dense.shape(), model.shape());
        if shape.is_empty() || shape[1..] != like[1..] {
            let trailing: String = like.iter().skip(1).map(|d| format!(", {d}")).collect();
            let (found, expected) =
                (shape.into_owned(), format!("[T{trailing}], as in the data before it"));
            return Err(bad(index, name, DatumProblem::Shape { found, expected }));
        }
        lengths.push(shape[0]);
        match dense.data() {
            Data::F32(values) => floats.extend_from_slice(values),
            Data::I64(values) => ints.extend_from_slice(values),
        }
    }
    let mut shape = first.as_ref().map_or(vec![0], |tensor| tensor.shape().into_owned());
    shape[0] = lengths.iter().sum();
    let packed = match first.map(|tensor| tensor.dtype()) {
        Some(tinsmith_wire::DType::Int64) => Var::from_vec(ints, &shape, &Device::Cpu),
        _ => Var::from_vec(floats, &shape, &Device::Cpu),
    };
    Ok(Ragged::new(packed, &lengths))
}
