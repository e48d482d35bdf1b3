//! What no server could train on, found before anything is sent.

use tinsmith_wire::{Chunk, DType, Data, Datum, TensorData};

use crate::{DatumProblem, Error, Result};

/// The largest token id: they are int32 on the wire.
const MAX_TOKEN: i64 = i32::MAX as i64;

/// Checks the batch: there is one, every datum has text, and `target_tokens` and the inputs that
/// travel fit it. `travels` tells which inputs do; the others are the user's own.
pub(crate) fn check(data: &[Datum], travels: impl Fn(&str) -> bool) -> Result<()> {
    if data.is_empty() {
        return Err(Error::EmptyBatch);
    }
    for (index, datum) in data.iter().enumerate() {
        check_datum(datum, &travels).map_err(|(field, problem)| Error::Datum {
            index,
            field,
            problem,
        })?;
    }
    Ok(())
}

type Finding = (String, DatumProblem);

fn check_datum(datum: &Datum, travels: &impl Fn(&str) -> bool) -> Result<(), Finding> {
    let at = |field: &str| {
        let field = field.to_owned();
        move |problem| (field, problem)
    };
    check_input(datum).map_err(at("model_input"))?;
    let targets =
        datum.input("target_tokens").ok_or(DatumProblem::Missing).map_err(at("target_tokens"))?;
    check_targets(targets, datum.model_input.len()).map_err(at("target_tokens"))?;
    for (name, tensor) in datum.loss_fn_inputs.iter().filter(|(name, _)| travels(name)) {
        check_finite(tensor).map_err(at(name))?;
    }
    if let Some(weights) = datum.input("weights") {
        check_weights(weights, targets).map_err(at("weights"))?;
    }
    Ok(())
}

fn check_input(datum: &Datum) -> Result<(), DatumProblem> {
    if datum.model_input.is_empty() {
        return Err(DatumProblem::Empty);
    }
    let mut before = 0;
    for chunk in &*datum.model_input.chunks {
        if let Chunk::EncodedText { tokens } = chunk
            && let Some(i) = first(tokens, |token| i64::from(token) > MAX_TOKEN)
        {
            let (position, token) = (before + i, tokens[i].into());
            return Err(DatumProblem::TokenOutOfRange { position, token });
        }
        before += chunk.len().unwrap_or(0);
    }
    Ok(())
}

fn check_targets(targets: &TensorData, input_len: Option<usize>) -> Result<(), DatumProblem> {
    let Data::I64(tokens) = targets.data() else {
        return Err(DatumProblem::DType { expected: DType::Int64, found: targets.dtype() });
    };
    let shape = targets.shape();
    let fits = match input_len {
        Some(len) => matches!(shape.len(), 1 | 2) && shape[0] == len,
        None => matches!(shape.len(), 1 | 2),
    };
    if !fits {
        let len = input_len.map_or("T".to_owned(), |len| len.to_string());
        return Err(DatumProblem::Shape {
            found: shape.into_owned(),
            expected: format!("[{len}] or [{len}, K]: one row for each token of the input"),
        });
    }
    match first(tokens, |token| !(0..=MAX_TOKEN).contains(&token)) {
        Some(position) => Err(DatumProblem::TokenOutOfRange { position, token: tokens[position] }),
        None => Ok(()),
    }
}

fn check_weights(weights: &TensorData, targets: &TensorData) -> Result<(), DatumProblem> {
    if weights.dtype() != DType::Float32 {
        return Err(DatumProblem::DType { expected: DType::Float32, found: weights.dtype() });
    }
    if weights.shape() != targets.shape() {
        return Err(DatumProblem::Shape {
            found: weights.shape().into_owned(),
            expected: format!("{:?}, as target_tokens", targets.shape()),
        });
    }
    Ok(())
}

pub(crate) fn check_finite(tensor: &TensorData) -> Result<(), DatumProblem> {
    let Data::F32(values) = tensor.data() else {
        return Ok(());
    };
    match first(values, |x| !x.is_finite()) {
        Some(position) => Err(DatumProblem::NonFinite { position, value: values[position] }),
        None => Ok(()),
    }
}

/// The first value that is bad. Mostly there is none, and looking at all of them without stopping
/// at any is several times faster, since it can be done for many at once.
pub(crate) fn first<T: Copy>(values: &[T], is_bad: impl Fn(T) -> bool) -> Option<usize> {
    match values.iter().fold(false, |any, &value| any | is_bad(value)) {
        true => values.iter().position(|&value| is_bad(value)),
        false => None,
    }
}
