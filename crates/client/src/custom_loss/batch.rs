//! What a loss function sees.

use std::{borrow::Borrow, panic::Location};

use tinsmith_grad::{Ragged, Var, located};
use tinsmith_wire::{Datum, TensorData};

use super::pack::{bad, misshapen, pack, resized, rows};

use crate::{DatumProblem, Error, Result, training::shared_arrays::SharedArrays};

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
    arrays: Option<&'a SharedArrays>,
}

impl<'a> Batch<'a> {
    /// `logprobs[i]` are those of `data[i]`, dense `float32`, all of one trailing shape.
    pub(crate) fn new(data: &'a [Datum], logprobs: &[TensorData]) -> Result<Self> {
        Batch::packed(data, logprobs, None)
    }

    /// In arrays that are kept from step to step.
    pub(crate) fn in_arrays(
        arrays: &'a SharedArrays,
        data: &'a [Datum],
        logprobs: &[TensorData],
    ) -> Result<Self> {
        Batch::packed(data, logprobs, Some(arrays))
    }

    fn packed(
        data: &'a [Datum],
        logprobs: &[TensorData],
        arrays: Option<&'a SharedArrays>,
    ) -> Result<Self> {
        let logprobs = pack(logprobs, "logprobs", arrays)?.map(|lp| lp.label("logprobs"));
        Ok(Batch { data, logprobs, arrays })
    }

    /// On logprobs that are packed already, of any float dtype; inputs are then given in that
    /// dtype.
    pub(crate) fn with_logprobs(data: &'a [Datum], logprobs: Ragged) -> Self {
        Batch { data, logprobs, arrays: None }
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
    /// logprobs; [`input_padded`](Self::input_padded) and
    /// [`input_truncated`](Self::input_truncated) take such.
    #[track_caller]
    pub fn input(&self, name: &str) -> Result<Ragged> {
        let tensors = self.tensors(name)?;
        for (index, (tensor, length)) in self.with_lengths(&tensors) {
            if rows(tensor) != Some(length) {
                let expected = format!(
                    "[{length}, ..], one row for each of its logprobs; Batch::values takes one value a datum, Batch::input_padded \
                     and Batch::input_truncated take other lengths"
                );
                return Err(misshapen(index, name, tensor, expected));
            }
        }
        self.pack(name, &tensors, Location::caller())
    }

    /// As [`input`](Self::input), for one that is too short for its logprobs: rows of `fill` come
    /// after its own. An input of the answer alone belongs at the end of the sequence instead, so
    /// its datum is to be made with the prompt's rows in front.
    ///
    /// # Errors
    /// As [`input`](Self::input), for one that is too long; and for a `fill` that is no integer
    /// where the input is of integers.
    ///
    /// ```
    /// use tinsmith_client::{Datum, Loss, ModelInput, check_loss};
    /// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2, 3]))
    ///     .with("target_tokens", vec![2i64, 3, 4])
    ///     .with("weights of the first", vec![0.5f32])];
    /// let check = check_loss(&data, |batch| {
    ///     assert!(batch.input("weights of the first").is_err());
    ///     let weights = batch.input_padded("weights of the first", 0.0)?;
    ///     Ok(Loss::new(-(batch.logprobs() * weights).sum()))
    /// })?;
    /// assert_eq!((check.report.gradient.norm, check.report.gradient.max_abs), (0.5, 0.5));
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn input_padded(&self, name: &str, fill: f64) -> Result<Ragged> {
        let mut tensors = Vec::with_capacity(self.data.len());
        for (index, (tensor, length)) in self.with_lengths(&self.tensors(name)?) {
            if rows(tensor).is_none_or(|rows| rows > length) {
                let expected =
                    format!("[{length}, ..] at most: Batch::input_truncated cuts what is longer");
                return Err(misshapen(index, name, tensor, expected));
            }
            let unusable = |why| bad(index, name, DatumProblem::Unusable(why));
            tensors.push(resized(tensor, length, fill).map_err(unusable)?);
        }
        self.pack(name, &tensors, Location::caller())
    }

    /// As [`input`](Self::input), for one that is too long for its logprobs, such as the values of
    /// all states with that after the last token: the rows at its end are left out. Where an input
    /// has a row for each token of the text it is the first that has no logprob, so that is to be
    /// left out when the datum is made.
    ///
    /// # Errors
    /// As [`input`](Self::input), for one that is too short.
    ///
    /// ```
    /// use tinsmith_client::{Datum, Loss, ModelInput, check_loss};
    /// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2]))
    ///     .with("target_tokens", vec![2i64, 3])
    ///     .with("weights", vec![0.0f32, 1.0])
    ///     .with("values", vec![1.0f32, 2.0, 3.0])];
    /// let check = check_loss(&data, |batch| {
    ///     let values = batch.input_truncated("values")?;
    ///     Ok(Loss::new(-(batch.logprobs() * values).sum()))
    /// })?;
    /// assert_eq!(check.report.gradient.max_abs, 2.0);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn input_truncated(&self, name: &str) -> Result<Ragged> {
        let mut tensors = Vec::with_capacity(self.data.len());
        for (index, (tensor, length)) in self.with_lengths(&self.tensors(name)?) {
            if rows(tensor).is_none_or(|rows| rows < length) {
                let expected =
                    format!("[{length}, ..] at least: Batch::input_padded fills what is shorter");
                return Err(misshapen(index, name, tensor, expected));
            }
            let unusable = |why| bad(index, name, DatumProblem::Unusable(why));
            tensors.push(resized(tensor, length, 0.0).map_err(unusable)?);
        }
        self.pack(name, &tensors, Location::caller())
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
        located(at, || Ok(self.as_logprobs(pack(&flat, name, None)?.values())))
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

    fn pack<T: Borrow<TensorData>>(
        &self,
        name: &str,
        tensors: &[T],
        at: &'static Location<'static>,
    ) -> Result<Ragged> {
        located(at, || Ok(pack(tensors, name, self.arrays)?.map(|values| self.as_logprobs(values))))
    }

    /// Each with the number of its logprobs.
    fn with_lengths(
        &self,
        tensors: &[&'a TensorData],
    ) -> impl Iterator<Item = (usize, (&'a TensorData, usize))> {
        tensors.iter().copied().zip(self.logprobs.lengths().iter().copied()).enumerate()
    }

    fn tensors(&self, name: &str) -> Result<Vec<&'a TensorData>> {
        let tensor = |(index, datum): (usize, &'a Datum)| {
            datum.input(name).ok_or_else(|| bad(index, name, DatumProblem::Missing))
        };
        self.data.iter().enumerate().map(tensor).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
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

    #[test]
    fn other_lengths_are_filled_up_or_cut_when_that_is_asked_for() {
        let rows =
            |values: &[f32]| TensorData::new(values.to_vec(), &[values.len() / 2, 2]).unwrap();
        let data = [
            datum(
                2,
                &[
                    ("short", vec![5.0f32].into()),
                    ("ids", vec![7i64].into()),
                    ("long", rows(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
                ],
            ),
            datum(
                1,
                &[
                    ("short", vec![6.0f32].into()),
                    ("ids", TensorData::new(Vec::<i64>::new(), &[0]).unwrap()),
                    ("long", rows(&[7.0, 8.0])),
                ],
            ),
        ];
        let batch = Batch::new(&data, &logprobs()).unwrap();
        let short = batch.input_padded("short", 0.5).unwrap();
        assert_eq!(short.values().to_vec::<f32>().unwrap(), [5.0, 0.5, 6.0]);
        let ids = batch.input_padded("ids", -1.0).unwrap();
        assert_eq!(ids.values().to_vec::<i64>().unwrap(), [7, -1, -1]);
        let long = batch.input_truncated("long").unwrap();
        assert_eq!((long.lengths(), long.values().shape()), (&[2, 1][..], &[3, 2][..]));
        assert_eq!(long.values().to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 7.0, 8.0]);

        let told = |found: Result<Ragged>| found.unwrap_err().to_string();
        let expected = "datum 0: `long` has shape [3, 2], it must be [2, ..] at most: \
                        Batch::input_truncated cuts what is longer";
        assert_eq!(told(batch.input_padded("long", 0.0)), expected);
        let expected = "datum 0: `short` has shape [1], it must be [2, ..] at least: \
                        Batch::input_padded fills what is shorter";
        assert_eq!(told(batch.input_truncated("short")), expected);
        assert!(told(batch.input_padded("ids", 0.5)).contains("int64, which cannot be filled up"));
        assert!(told(batch.input("short")).contains("Batch::input_padded"));
    }

    proptest! {
        /// What fits is left alone, and what was filled up is what it was when it is cut again.
        #[test]
        fn filling_up_and_cutting_undo_each_other(
            lengths in prop::collection::vec((1usize..6, 0usize..6), 1..5),
        ) {
            let data: Vec<Datum> = lengths
                .iter()
                .map(|&(length, own)| {
                    let own = vec![1f32; own.min(length)];
                    let long = [&own[..], &vec![2f32; length]].concat();
                    datum(length, &[("own", own.into()), ("long", long.into())])
                })
                .collect();
            let lp: Vec<TensorData> =
                lengths.iter().map(|&(length, _)| vec![-1f32; length].into()).collect();
            let batch = Batch::new(&data, &lp).unwrap();
            let padded = batch.input_padded("own", 2.0).unwrap();
            let cut = batch.input_truncated("long").unwrap();
            let values = |ragged: &Ragged| ragged.values().to_vec::<f32>().unwrap();
            prop_assert_eq!(values(&padded), values(&cut));
            let lengths: Vec<usize> = lengths.iter().map(|&(length, _)| length).collect();
            prop_assert_eq!(padded.lengths(), lengths);
        }
    }
}
