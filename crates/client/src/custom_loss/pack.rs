//! The inputs of many data as one array.

use std::{borrow::Borrow, sync::Arc};

use tinsmith_grad::{Device, Ragged, Var};
use tinsmith_wire::{DType, Data, TensorData};

use crate::{DatumProblem, Error, Result, training::shared_arrays::SharedArrays};

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

/// Tensors of one dtype and trailing shape, one after another; floats in `arrays`, if there are
/// such.
pub(super) fn pack<T: Borrow<TensorData>>(
    tensors: &[T],
    name: &str,
    arrays: Option<&SharedArrays>,
) -> Result<Ragged> {
    let dense = |(index, tensor): (usize, &T)| {
        let dense = tensor.borrow().to_dense();
        dense.map_err(|error| bad(index, name, DatumProblem::Unusable(error.to_string())))
    };
    let dense = tensors.iter().enumerate().map(dense).collect::<Result<Vec<TensorData>>>()?;
    check_alike(&dense, name)?;
    let lengths: Vec<usize> = dense.iter().filter_map(rows).collect();
    let mut shape = dense.first().map_or(vec![0], |first| first.shape().into_owned());
    shape[0] = lengths.iter().sum();
    let packed = match dense.first().map(TensorData::dtype) {
        Some(DType::Int64) => {
            let ints = dense.iter().filter_map(TensorData::as_i64).flatten().copied().collect();
            Var::from_vec(ints, &shape, &Device::Cpu)
        }
        Some(DType::Float32) | None => {
            let parts = || dense.iter().filter_map(TensorData::as_f32);
            match arrays {
                Some(arrays) => Var::from_arc(&joined(parts(), arrays), &shape),
                None => {
                    let parts: Vec<&[f32]> = parts().collect();
                    Var::from_vec(parts.concat(), &shape, &Device::Cpu)
                }
            }
        }
    };
    Ok(Ragged::new(packed, &lengths))
}

fn joined<'a>(parts: impl Iterator<Item = &'a [f32]> + Clone, arrays: &SharedArrays) -> Arc<[f32]> {
    let length = parts.clone().map(<[f32]>::len).sum();
    arrays.filled(length, |mut rest| {
        for part in parts {
            let (own, others) = rest.split_at_mut(part.len());
            own.copy_from_slice(part);
            rest = others;
        }
    })
}

/// One dtype and one trailing shape.
fn check_alike(tensors: &[TensorData], name: &str) -> Result<()> {
    let Some(model) = tensors.first() else {
        return Ok(());
    };
    for (index, tensor) in tensors.iter().enumerate() {
        if tensor.dtype() != model.dtype() {
            let (expected, found) = (model.dtype(), tensor.dtype());
            return Err(bad(index, name, DatumProblem::DType { expected, found }));
        }
        let (shape, like) = (tensor.shape(), model.shape());
        if shape.is_empty() || shape[1..] != like[1..] {
            let trailing: String = like.iter().skip(1).map(|d| format!(", {d}")).collect();
            let expected = format!("[T{trailing}], as in the data before it");
            return Err(misshapen(index, name, tensor, expected));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_into_kept_arrays_stays_while_it_is_held() {
        let arrays = SharedArrays::default();
        let packed = |x: f32| {
            let tensors: [TensorData; 2] = [vec![x; 20_000].into(), vec![2.0 * x; 3].into()];
            pack(&tensors, "logprobs", Some(&arrays)).unwrap()
        };
        let ends = |ragged: &Ragged| {
            let values = ragged.values().to_vec::<f32>().unwrap();
            (values.len(), values[0], values[20_002])
        };
        let (first, second) = (packed(1.0), packed(3.0));
        assert_eq!((ends(&first), ends(&second)), ((20_003, 1.0, 2.0), (20_003, 3.0, 6.0)));
        drop(first);
        let third = packed(5.0); // in the memory of the first
        assert_eq!((ends(&second), ends(&third)), ((20_003, 3.0, 6.0), (20_003, 5.0, 10.0)));
        assert_eq!(third.lengths(), [20_000, 3]);
    }
}
