//! From datums to micro-batches: every datum is checked before anything is computed, and those of
//! like length go together.

use tinsmith_wire::{DType, Datum, TensorData};

use crate::loss::{Input, Loss};
use crate::model::ModelConfig;
use crate::{Error, Result};

/// A datum that has passed the checks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Example {
    /// `T` ids, at least one.
    pub(crate) tokens: Vec<u32>,
    /// Ids, row-major, in the shape below.
    pub(crate) targets: Vec<u32>,
    /// `[T]` or `[T, K]`.
    pub(crate) shape: Vec<usize>,
    /// What the loss takes beside the logprobs: one value a target, in the order of `Loss::inputs`.
    pub(crate) inputs: Vec<Vec<f32>>,
}

impl Example {
    /// Checks all of `data`.
    pub(crate) fn parse_all(
        data: &[Datum],
        loss: &Loss,
        config: &ModelConfig,
    ) -> Result<Vec<Self>> {
        if data.is_empty() {
            return Err(Error::field("data", "the batch is empty; send at least one datum"));
        }
        let parse = |(index, datum)| At { index }.example(datum, loss, config);
        data.iter().enumerate().map(parse).collect()
    }

    /// Targets per token.
    pub(crate) fn width(&self) -> usize {
        self.targets.len() / self.tokens.len()
    }
}

/// Ids of `prompt` below the vocabulary, for sampling and training alike; or what is wrong with
/// them.
pub(crate) fn check_tokens(
    tokens: Option<Vec<u32>>,
    config: &ModelConfig,
) -> Result<Vec<u32>, String> {
    let tokens = tokens.ok_or("this model reads text only; leave out image and audio chunks")?;
    if tokens.is_empty() {
        return Err("there are no tokens; send at least one".to_owned());
    }
    if tokens.len() > config.max_position_embeddings {
        let (len, max) = (tokens.len(), config.max_position_embeddings);
        return Err(format!("{len} tokens are more than the model's context of {max}"));
    }
    let outside = tokens.iter().enumerate().find(|&(_, &id)| id as usize >= config.vocab_size);
    match outside {
        None => Ok(tokens),
        Some((at, &id)) => Err(out_of_range(at, i64::from(id), config)),
    }
}

fn out_of_range(at: usize, id: i64, config: &ModelConfig) -> String {
    let vocab = config.vocab_size;
    format!(
        "token id {id} at position {at} is out of range; the model's ids are 0 to {}",
        vocab - 1
    )
}

/// The place of a datum, for messages.
struct At {
    index: usize,
}

impl At {
    fn error(&self, field: &str, problem: impl Into<String>) -> Error {
        Error::Datum { index: self.index, field: field.to_owned(), problem: problem.into() }
    }

    fn example(&self, datum: &Datum, loss: &Loss, config: &ModelConfig) -> Result<Example> {
        let tokens = check_tokens(datum.model_input.tokens(), config)
            .map_err(|problem| self.error("model_input", problem))?;
        let (targets, shape) = self.targets(datum, tokens.len(), config)?;
        let inputs = loss
            .inputs()
            .iter()
            .map(|input| self.input(datum, input, &shape))
            .collect::<Result<_>>()?;
        Ok(Example { tokens, targets, shape, inputs })
    }

    fn targets(
        &self,
        datum: &Datum,
        len: usize,
        config: &ModelConfig,
    ) -> Result<(Vec<u32>, Vec<usize>)> {
        let field = "loss_fn_inputs.target_tokens";
        let fail = |problem: String| Err(self.error(field, problem));
        let Some(tensor) = datum.input("target_tokens") else {
            return fail(
                "missing; give the id to predict at each input token, int64 `[T]` or `[T, K]`"
                    .to_owned(),
            );
        };
        let tensor = self.dense(field, tensor, DType::Int64)?;
        let shape = tensor.shape().into_owned();
        match *shape {
            [rows] | [rows, _] if rows == len => {}
            [rows] | [rows, _] => {
                return fail(format!(
                    "{rows} rows for {len} input tokens; there must be one for each"
                ));
            }
            _ => {
                return fail(format!(
                    "shape {shape:?}; it must be `[T]` or `[T, K]` with T = {len}"
                ));
            }
        }
        if shape.get(1) == Some(&0) {
            return fail(format!("shape {shape:?} holds no targets; K must be at least 1"));
        }
        let id = |(at, &id): (usize, &i64)| match usize::try_from(id) {
            Ok(small) if small < config.vocab_size => Ok(small as u32),
            _ => Err(self.error(field, out_of_range(at, id, config))),
        };
        let ids = tensor.as_i64().unwrap_or_default();
        let targets = ids.iter().enumerate().map(id).collect::<Result<_>>()?;
        Ok((targets, shape))
    }

    fn input(&self, datum: &Datum, &(name, default): &Input, shape: &[usize]) -> Result<Vec<f32>> {
        let field = format!("loss_fn_inputs.{name}");
        let Some(tensor) = datum.input(name) else {
            let missing = || {
                self.error(
                    &field,
                    "missing; this loss needs it, float32, one value for each target",
                )
            };
            return Ok(vec![default.ok_or_else(missing)?; shape.iter().product()]);
        };
        let tensor = self.dense(&field, tensor, DType::Float32)?;
        if *tensor.shape() != *shape {
            let problem =
                format!("shape {:?} differs from that of target_tokens, {shape:?}", tensor.shape());
            return Err(self.error(&field, problem));
        }
        let values = tensor.as_f32().unwrap_or_default();
        match values.iter().position(|x| !x.is_finite()) {
            None => Ok(values.to_vec()),
            Some(at) => {
                Err(self.error(&field, format!("value {at} is {}; all must be finite", values[at])))
            }
        }
    }

    fn dense(&self, field: &str, tensor: &TensorData, dtype: DType) -> Result<TensorData> {
        if tensor.dtype() != dtype {
            return Err(
                self.error(field, format!("dtype is {}; it must be {dtype}", tensor.dtype()))
            );
        }
        tensor.to_dense().map_err(|e| self.error(field, e.to_string()))
    }
}

/// Most activation elements of a micro-batch: what bounds a pass's memory.
const ELEMENTS: usize = 64 << 20;

/// Splits `examples` into micro-batches, each a list of places: longest first, of one target width,
/// within the memory bound.
///
/// The split depends on shapes alone, so equal requests are computed in equal order.
pub(crate) fn micro_batches(examples: &[Example], config: &ModelConfig) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.sort_by_key(|&i| (examples[i].width(), std::cmp::Reverse(examples[i].tokens.len())));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for i in order {
        let (len, width) = (examples[i].tokens.len(), examples[i].width());
        let fits = |batch: &Vec<usize>| {
            let longest = &examples[batch[0]];
            let cells = (batch.len() + 1) * longest.tokens.len();
            longest.width() == width
                && cells * per_token(longest.tokens.len(), config) <= ELEMENTS
                && 2 * len > longest.tokens.len()
        };
        match batches.last_mut() {
            Some(batch) if fits(batch) => batch.push(i),
            _ => batches.push(vec![i]),
        }
    }
    batches
}

/// Activation elements kept per token for the backward pass, roughly.
fn per_token(len: usize, config: &ModelConfig) -> usize {
    let layer = 16 * config.hidden_size
        + 4 * config.intermediate_size
        + 4 * config.num_attention_heads * len;
    config.num_hidden_layers * layer + 3 * config.vocab_size
}

#[cfg(test)]
mod tests {
    use super::*;
    use tinsmith_wire::ModelInput;

    fn config() -> ModelConfig {
        ModelConfig::preset("tiny-qwen3").unwrap()
    }

    fn example(len: usize, width: usize) -> Example {
        Example {
            tokens: vec![0; len],
            targets: vec![0; len * width],
            shape: vec![len, width],
            inputs: vec![],
        }
    }

    #[test]
    fn like_lengths_go_together_and_each_datum_once() {
        let examples =
            [(3, 1), (100, 1), (90, 2), (4, 1), (99, 1)].map(|(len, width)| example(len, width));
        assert_eq!(micro_batches(&examples, &config()), [vec![1, 4], vec![3, 0], vec![2]]);
    }

    #[test]
    fn a_micro_batch_stays_within_the_memory_bound() {
        let examples = vec![example(400, 1); 40];
        let batches = micro_batches(&examples, &config());
        let most = ELEMENTS / (400 * per_token(400, &config()));
        assert!(most > 1 && batches.iter().all(|b| b.len() <= most));
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 40);
    }

    #[test]
    fn missing_weights_are_ones_and_csr_is_read_as_dense() {
        let datum =
            Datum::new(ModelInput::from_tokens(vec![1, 2])).with("target_tokens", vec![2i64, 3]);
        let parsed =
            Example::parse_all(std::slice::from_ref(&datum), &Loss::CrossEntropy, &config())
                .unwrap();
        assert_eq!(parsed[0].inputs, [[1.0, 1.0]]);

        let datum = Datum::new(ModelInput::from_tokens(vec![1, 2]))
            .with("target_tokens", TensorData::new(vec![2i64, 3, 4, 5], &[2, 2]).unwrap())
            .with("weights", TensorData::csr(vec![5f32], vec![0, 0, 1], vec![1], [2, 2]).unwrap());
        let parsed = Example::parse_all(&[datum], &Loss::CrossEntropy, &config()).unwrap();
        assert_eq!((parsed[0].shape.as_slice(), parsed[0].width()), ([2, 2].as_slice(), 2));
        assert_eq!(parsed[0].inputs, [[0.0, 0.0, 0.0, 5.0]]);
    }

    #[test]
    fn what_is_wrong_is_named_with_datum_and_field() {
        let good =
            Datum::new(ModelInput::from_tokens(vec![1, 2])).with("target_tokens", vec![2i64, 3]);
        let message = |datum: Datum, loss: &Loss| {
            Example::parse_all(&[good.clone(), datum], loss, &config()).unwrap_err().to_string()
        };
        let ce = |datum| message(datum, &Loss::CrossEntropy);
        let input = |tokens: Vec<u32>| Datum::new(ModelInput::from_tokens(tokens));
        let cases = [
            (ce(input(vec![1])), "data[1].loss_fn_inputs.target_tokens: missing"),
            (ce(input(vec![])), "data[1].model_input: there are no tokens"),
            (
                ce(input(vec![7, 320])),
                "data[1].model_input: token id 320 at position 1 is out of range; the model's ids are 0 to 319",
            ),
            (
                ce(good.clone().with("target_tokens", vec![2i64, -1])),
                "target_tokens: token id -1 at position 1",
            ),
            (
                ce(good.clone().with("target_tokens", vec![2i64])),
                "target_tokens: 1 rows for 2 input tokens",
            ),
            (
                ce(good.clone().with("target_tokens", vec![2f32, 3.0])),
                "target_tokens: dtype is float32; it must be int64",
            ),
            (
                ce(good.clone().with("weights", vec![1f32])),
                "data[1].loss_fn_inputs.weights: shape [1] differs",
            ),
            (ce(good.clone().with("weights", vec![1f32, f32::INFINITY])), "value 1 is inf"),
            (
                message(good.clone(), &Loss::ImportanceSampling),
                "data[0].loss_fn_inputs.logprobs: missing",
            ),
        ];
        for (got, want) in cases {
            assert!(got.contains(want), "{got:?} lacks {want:?}");
        }
        let empty = Example::parse_all(&[], &Loss::CrossEntropy, &config()).unwrap_err();
        assert!(empty.to_string().contains("the batch is empty"));
    }
}
