//! What a loss function sees.

use std::{borrow::Borrow, panic::Location};

use tinsmith_grad::{Device, Ragged, Var, located};
use tinsmith_wire::{Data, Datum, TensorData};

use crate::{DatumProblem, Error, Result};

/// A batch and the model's logprobs on it: what the loss function of
/// [`forward_backward_custom`](crate::TrainingClient::forward_backward_custom) sees.
///
/// ```
/// use tinsmith_client::{Datum, Loss, LoraConfig, ModelInput, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
/// let datum = |reward: f32| {
///     Datum::new(ModelInput::from_tokens(vec![1, 2, 3]))
///         .with("target_tokens", vec![2i64, 3, 4])
///         .with("mask", vec![0.0f32, 1.0, 1.0])
///         .with("reward", vec![reward])
/// };
/// let step = training.forward_backward_custom(&[datum(1.0), datum(-1.0)], |batch| {
///     assert_eq!((batch.len(), batch.logprobs().lengths()), (2, &[3, 3][..]));
///     let mask = batch.input("mask")?;                  // a row for each token
///     let scale = batch.input_or("scale", 1.0)?;        // absent, so ones
///     let per_sequence = (batch.logprobs() * mask * scale).sum_per_seq();
///     let rewards = batch.values("reward")?;            // a value for each datum
///     assert_eq!(batch.data()[1].input("reward").unwrap().as_f32().unwrap(), [-1.0]);
///     Ok(Loss::new(-(per_sequence * rewards).mean()))
/// })?;
/// step.result()?;
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    data: &'a [Datum],
    logprobs: Ragged,
}

impl<'a> Batch<'a> {
    /// `logprobs[i]` are those of `data[i]`, dense `float32`, all of one trailing shape.
    pub(crate) fn new(data: &'a [Datum], logprobs: &[TensorData]) -> Result<Self> {
        let logprobs = pack(logprobs, "logprobs")?.map(|lp| lp.label("logprobs"));
        Ok(Batch { data, logprobs })
    }

    /// On logprobs that are packed already, of any float dtype; inputs are then given in that
    /// dtype.
    pub(crate) fn with_logprobs(data: &'a [Datum], logprobs: Ragged) -> Self {
        Batch { data, logprobs }
    }

    /// The logprob of every target token under the model, one sequence a datum: `[T]` each, or
    /// `[T, K]` for targets of that shape; `float32`. What the loss is differentiated by.
    pub fn logprobs(&self) -> Ragged {
        self.logprobs.clone()
    }

    /// A loss input of every datum, aligned with the logprobs: one row a token. Constant; `float32`
    /// or `int64`, as given.
    ///
    /// # Errors
    /// [`Error::Datum`] naming the datum that lacks the input, or has it in another length than its
    /// logprobs.
    #[track_caller]
    pub fn input(&self, name: &str) -> Result<Ragged> {
        let tensors = self.tensors(name)?;
        for (index, (tensor, &length)) in tensors.iter().zip(self.logprobs.lengths()).enumerate() {
            let shape = tensor.shape();
            if shape.first() != Some(&length) {
                let found = shape.into_owned();
                let expected = format!(
                    "[{length}, ..], one row for each of its logprobs; Batch::values takes one value a datum"
                );
                return Err(bad(index, name, DatumProblem::Shape { found, expected }));
            }
        }
        let at = Location::caller();
        located(at, || Ok(pack(&tensors, name)?.map(|values| self.as_logprobs(values))))
    }

    /// As [`input`](Self::input), with `default` in every element when no datum has the input.
    ///
    /// # Errors
    /// As [`input`](Self::input), when some data have it and others do not.
    #[track_caller]
    pub fn input_or(&self, name: &str, default: f64) -> Result<Ragged> {
        if self.data.iter().any(|datum| datum.input(name).is_some()) {
            return self.input(name);
        }
        let like = self.logprobs.values();
        let fill = Var::full(default, like.shape(), like.dtype(), like.device());
        Ok(self.logprobs.map(|_| fill))
    }

    /// One number a datum, such as a reward or a reference's sum: `[len]`. Constant.
    ///
    /// # Errors
    /// [`Error::Datum`] naming the datum that lacks the input, or has more than one value of it.
    #[track_caller]
    pub fn values(&self, name: &str) -> Result<Var> {
        let tensors = self.tensors(name)?;
        for (index, tensor) in tensors.iter().enumerate() {
            if tensor.elem_count() != 1 {
                let (found, expected) =
                    (tensor.shape().into_owned(), "[1] or []: one value".to_owned());
                return Err(bad(index, name, DatumProblem::Shape { found, expected }));
            }
        }
        let single = |tensor: &TensorData| TensorData::new(tensor.to_dense()?.data().clone(), &[1]);
        let flat: Result<Vec<TensorData>, _> = tensors.into_iter().map(single).collect();
        let flat = flat.map_err(Error::Encode)?;
        let at = Location::caller();
        located(at, || Ok(self.as_logprobs(pack(&flat, name)?.values())))
    }

    /// Floats in the logprobs' dtype, which is another than that of the data when a gradient is
    /// checked in f64.
    fn as_logprobs(&self, values: &Var) -> Var {
        match values.dtype() {
            tinsmith_grad::DType::F32 => values.to_dtype(self.logprobs.values().dtype()),
            _ => values.clone(),
        }
    }

    /// The data, as they were given.
    pub fn data(&self) -> &'a [Datum] {
        self.data
    }

    /// Number of data.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no data; never so within a loss function.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    fn tensors(&self, name: &str) -> Result<Vec<&'a TensorData>> {
        let tensor = |(index, datum): (usize, &'a Datum)| {
            datum.input(name).ok_or_else(|| bad(index, name, DatumProblem::Missing))
        };
        self.data.iter().enumerate().map(tensor).collect()
    }
}

fn bad(index: usize, field: &str, problem: DatumProblem) -> Error {
    let field = field.to_owned();
    Error::Datum { index, field, problem }
}

/// Tensors of one dtype and trailing shape, one after another.
fn pack<T: Borrow<TensorData>>(tensors: &[T], name: &str) -> Result<Ragged> {
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

#[cfg(test)]
mod tests {
    use tinsmith_wire::ModelInput;

    use super::*;

    fn datum(tokens: usize, inputs: &[(&str, TensorData)]) -> Datum {
        let input = ModelInput::from_tokens(vec![0; tokens]);
        inputs
            .iter()
            .fold(Datum::new(input), |datum, (name, tensor)| datum.with(*name, tensor.clone()))
    }

    fn logprobs() -> [TensorData; 2] {
        [vec![-1.0f32, -2.0].into(), vec![-3.0f32].into()]
    }

    #[test]
    fn logprobs_and_inputs_are_packed_in_the_order_of_the_data() {
        let scalar = TensorData::new(vec![1.5f32], &[]).unwrap();
        let data = [
            datum(
                2,
                &[
                    ("a", vec![1.0f32, 2.0].into()),
                    ("ids", vec![7i64, 8].into()),
                    ("r", vec![0.5f32].into()),
                ],
            ),
            datum(1, &[("a", vec![3.0f32].into()), ("ids", vec![9i64].into()), ("r", scalar)]),
        ];
        let batch = Batch::new(&data, &logprobs()).unwrap();
        assert_eq!(batch.logprobs().values().to_vec::<f32>().unwrap(), [-1.0, -2.0, -3.0]);
        assert_eq!(batch.logprobs().lengths(), [2, 1]);
        assert_eq!(batch.input("a").unwrap().values().to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0]);
        assert_eq!(batch.input("ids").unwrap().values().to_vec::<i64>().unwrap(), [7, 8, 9]);
        assert_eq!(batch.values("r").unwrap().to_vec::<f32>().unwrap(), [0.5, 1.5]);
        assert_eq!(
            batch.input_or("none", 2.0).unwrap().sum_per_seq().to_vec::<f32>().unwrap(),
            [4.0, 2.0]
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let long = ("long", vec![1.0f32; 2].into());
        let data = [
            datum(2, &[("a", vec![1.0f32, 2.0].into()), long, ("mixed", vec![1.0f32, 2.0].into())]),
            datum(1, &[("long", vec![1.0f32; 3].into()), ("mixed", vec![1i64].into())]),
        ];
        let batch = Batch::new(&data, &logprobs()).unwrap();
        let error = |name: &str| batch.input(name).unwrap_err().to_string();
        assert_eq!(error("a"), "datum 1: `a` is missing");
        assert!(error("long").starts_with("datum 1: `long` has shape [3], it must be [1, ..]"));
        assert_eq!(error("mixed"), "datum 1: `mixed` is int64, it must be float32");
        assert!(
            batch
                .values("long")
                .unwrap_err()
                .to_string()
                .starts_with("datum 0: `long` has shape [2]")
        );
        assert!(batch.input_or("a", 0.0).is_err());
    }
}
