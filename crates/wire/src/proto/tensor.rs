//! Tensors of requests and of sample results.

use std::sync::Arc;

use prost::bytes::Bytes;

use super::{
    fault::{Fault, Result, Within},
    messages::{DType, SparseCsr, Tensor, tensor::Encoding},
    payload::{self, Number},
};
use crate::{Csr, Data, TensorData};

/// Shares the values. Without a stated shape, and of a scalar, the shape is empty: the wire cannot
/// tell these apart.
pub fn to_wire(tensor: &TensorData) -> Tensor {
    let (values, dtype) = match tensor.data() {
        Data::F32(values) => (payload::bytes(values), DType::Float32),
        Data::I64(values) => (payload::bytes(values), DType::Int64),
    };
    let encoding = match tensor.sparse() {
        None => Encoding::Dense(values),
        Some(csr) => Encoding::SparseCsr(SparseCsr {
            values,
            crow_indices: payload::bytes(&csr.crow),
            col_indices: payload::bytes(&csr.col),
        }),
    };
    let shape = tensor.stated_shape().unwrap_or_default();
    Tensor {
        encoding: Some(encoding),
        dtype: dtype.into(),
        shape: shape.iter().map(|&d| d as i64).collect(),
    }
}

/// An empty shape means one dimension.
pub fn from_wire(tensor: Tensor) -> Result<TensorData> {
    let shape = shape(&tensor.shape).within("shape")?;
    let (data, sparse) = match tensor.encoding {
        Some(Encoding::Dense(bytes)) => (values(tensor.dtype, &bytes).within("dense")?, None),
        Some(Encoding::SparseCsr(csr)) => {
            let indices = |bytes: Bytes| payload::numbers::<i64, Arc<[i64]>>(&bytes);
            let data = values(tensor.dtype, &csr.values).within("sparse_csr.values")?;
            let crow = indices(csr.crow_indices).within("sparse_csr.crow_indices")?;
            let col = indices(csr.col_indices).within("sparse_csr.col_indices")?;
            (data, Some(Csr { crow, col }))
        }
        None => return Err(Fault::new("it is neither `dense` nor `sparse_csr`")),
    };
    let stated = (!shape.is_empty()).then(|| shape.into());
    Ok(TensorData::from_parts(data, stated, sparse)?)
}

/// Values of any dtype of the wire; narrow ones are widened.
pub fn values(dtype: i32, bytes: &[u8]) -> Result<Data> {
    match DType::try_from(dtype) {
        Ok(DType::Float32) => payload::numbers::<f32, Arc<[f32]>>(bytes).map(Data::F32),
        Ok(DType::Int64) => payload::numbers::<i64, Arc<[i64]>>(bytes).map(Data::I64),
        Ok(DType::Int32) => i32::read(bytes, i64::from).map(Data::I64),
        Ok(DType::Bfloat16) => {
            u16::read(bytes, |half| f32::from_bits(u32::from(half) << 16)).map(Data::F32)
        }
        Ok(DType::Unspecified) | Err(_) => {
            Err(Fault::new(format!("dtype {dtype} is not one of 1 to 4")))
        }
    }
}

pub fn shape(dims: &[i64]) -> Result<Vec<usize>> {
    let size = |&d: &i64| {
        usize::try_from(d).map_err(|_| Fault::new(format!("{d} is no size of a dimension")))
    };
    dims.iter().map(size).collect()
}
