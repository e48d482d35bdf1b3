//! Conversions between [`TensorData`] and candle tensors (feature `candle`).

use candle_core::{Device, Tensor};

use crate::{Data, Error, Result, TensorData};

impl TensorData {
    /// A candle tensor of the same shape and dtype, sparse ones made dense. Copies the values once.
    ///
    /// # Errors
    /// [`Error::Candle`] when the device refuses, [`Error::TooLarge`] for a sparse tensor too big
    /// to be dense.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use tinsmith_wire::TensorData;
    /// let tensor = TensorData::new(vec![1.0f32, 2.0], &[2, 1])?.to_candle(&Device::Cpu)?;
    /// assert_eq!(tensor.dims(), [2, 1]);
    /// assert_eq!(TensorData::try_from(&tensor)?.as_f32().unwrap(), [1.0, 2.0]);
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    pub fn to_candle(&self, device: &Device) -> Result<Tensor> {
        let dense = self.to_dense()?;
        let shape = dense.shape().into_owned();
        let tensor = match dense.data() {
            Data::F32(values) => Tensor::from_slice(values, shape, device),
            Data::I64(values) => Tensor::from_slice(values, shape, device),
        };
        tensor.map_err(candle)
    }
}

impl TryFrom<&Tensor> for TensorData {
    type Error = Error;

    /// Floats of any width become `float32`, integers `int64`.
    fn try_from(tensor: &Tensor) -> Result<Self> {
        let flat = tensor.flatten_all().map_err(candle)?;
        let shape = tensor.dims();
        if tensor.dtype().is_float() {
            let flat = flat.to_dtype(candle_core::DType::F32).map_err(candle)?;
            TensorData::new(flat.to_vec1::<f32>().map_err(candle)?, shape)
        } else {
            let flat = flat.to_dtype(candle_core::DType::I64).map_err(candle)?;
            TensorData::new(flat.to_vec1::<i64>().map_err(candle)?, shape)
        }
    }
}

fn candle(error: candle_core::Error) -> Error {
    Error::Candle(error.to_string())
}
