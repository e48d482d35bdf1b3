//! What a custom loss asks of the rest of the client: to send its passes in order, and to tell when
//! they are back.

use std::{iter, sync::Arc, time::Duration};

use tinsmith_wire::{DType, Datum, ForwardBackwardOutput, LossFn, Pass, TensorData};

use super::evaluate::Evaluated;
use crate::{
    ApiFuture, DatumProblem, Error, Result, Usage,
    protocol::poll::{Bytes, Pending},
    protocol::session::Session,
    training::combine::combine,
    training::model::{Model, PassOver},
    training::preflight,
    training::sequencer::Turn,
};

/// The two passes over a batch.
pub(super) struct Passes<'a> {
    pub model: &'a Arc<Model>,
    pub data: &'a [Datum],
    pub targets: Vec<TensorData>,
}

/// A first pass that has come back.
pub(super) struct Forward {
    pub logprobs: Vec<TensorData>,
    pub output: ForwardBackwardOutput,
    pub usage: Usage,
    pub time: Duration,
    pub bytes: Bytes,
}

/// A second pass that has been accepted.
pub(super) struct Backward {
    seq_id: u64,
    pending: Vec<Pending<ForwardBackwardOutput>>,
    /// `weights[i]` were sent for datum i.
    pub weights: Vec<TensorData>,
    pub sent_at: Duration,
}

/// A second pass that has come back.
pub(super) struct Answer {
    pub output: ForwardBackwardOutput,
    pub time: Duration,
    pub bytes: Bytes,
    /// Whether the server may have divided the weights without a word.
    pub may_rescale: bool,
}

impl<'a> Passes<'a> {
    /// Over a batch that is fit to be sent.
    pub fn prepare(model: &'a Arc<Model>, data: &'a [Datum]) -> Result<Self> {
        check_data(data)?;
        model.session.flavour.check_data(data)?;
        Ok(Passes { model, data, targets: targets(data)? })
    }

    /// The time by the session's clock.
    pub fn now(&self) -> Duration {
        self.model.session.api.clock.now()
    }

    /// Memory for a gradient, to be given back.
    pub fn gradient_buffer(&self) -> Vec<f32> {
        self.model.session.gradients.take()
    }

    pub fn keep_buffer(&self, gradient: Vec<f32>) {
        self.model.session.gradients.give(gradient);
    }

    /// A gradient that was divided by its own count is not added to another such.
    pub fn check_normalized(&self, turn: &Turn<'_>, evaluated: &Evaluated) -> Result<()> {
        match evaluated.normalization {
            Some(_) => turn.history().check_normalized_pass(),
            None => Ok(()),
        }
    }

    pub fn send_forward<T: 'static>(
        &self,
        turn: &mut Turn<'_>,
        finish: impl FnOnce(Forward) -> T + Send + 'static,
    ) -> Result<ApiFuture<T>> {
        let start = self.now();
        let pending = self.send(turn, Pass::Forward, &first_pass(self.data, &self.targets)?)?;
        let (targets, usage) = (self.targets.clone(), Usage::forward(self.data));
        let finish = move |session: &Arc<Session>, parts, bytes| {
            let time = session.api.since(start);
            let output = combine(parts);
            let logprobs = logprobs(&output, &targets)?;
            Ok(finish(Forward { logprobs, output, usage, time, bytes }))
        };
        Ok(ApiFuture::joined(self.model.session.clone(), pending, finish))
    }

    pub fn send_backward(&self, turn: &mut Turn<'_>, evaluated: &Evaluated) -> Result<Backward> {
        let reads_csr = self.model.session.flavour.reads_sparse;
        let second = second_pass(self.data, &self.targets, &evaluated.gradient, reads_csr)?;
        let seq_id = turn.next_id();
        let pending = self.send(turn, Pass::ForwardBackward, &second)?;
        if evaluated.normalization.is_some() {
            turn.history().normalized(seq_id);
        }
        let weights = second.iter().filter_map(|datum| datum.input("weights").cloned());
        Ok(Backward { seq_id, pending, weights: weights.collect(), sent_at: self.now() })
    }

    fn send(
        &self,
        turn: &mut Turn<'_>,
        pass: Pass,
        data: &[Datum],
    ) -> Result<Vec<Pending<ForwardBackwardOutput>>> {
        let flavour = &self.model.session.flavour;
        let batch = PassOver {
            pass,
            data,
            chunks: &flavour.chunks.split(data, flavour.byte_count),
            loss_fn: &LossFn::CrossEntropy,
            config: None,
        };
        self.model.send_pass(turn, batch)
    }
}

impl Forward {
    /// One that costs nothing now.
    pub fn made_before(logprobs: &[TensorData]) -> Self {
        let (output, usage, time, bytes) = Default::default();
        Forward { logprobs: logprobs.to_vec(), output, usage, time, bytes }
    }
}

impl Backward {
    pub fn bytes_sent(&self) -> u64 {
        self.pending.iter().map(|pending| pending.bytes.sent).sum()
    }

    /// What `complete` makes of the answer, once it is there.
    pub fn into_future<T: 'static>(
        self,
        model: &Arc<Model>,
        complete: impl FnOnce(Answer) -> Result<T> + Send + 'static,
    ) -> ApiFuture<T> {
        let Backward { seq_id, pending, sent_at, .. } = self;
        let is_one_request = pending.len() == 1;
        let finish = move |session: &Arc<Session>, parts, bytes| {
            complete(Answer {
                output: combine(parts),
                time: session.api.since(sent_at),
                bytes,
                may_rescale: session.flavour.rescales_weights(),
            })
        };
        let future = ApiFuture::joined(model.session.clone(), pending, finish);
        if !is_one_request {
            return future;
        }
        let model = model.clone();
        future.when_failed(move || model.sequencer.history().failed(seq_id))
    }
}

/// What is wrong with the data whatever the server.
pub(super) fn check_data(data: &[Datum]) -> Result<()> {
    preflight::check(data, |name| matches!(name, "target_tokens" | "weights"))
}

pub(super) fn targets(data: &[Datum]) -> Result<Vec<TensorData>> {
    let dense = |(index, datum): (usize, &Datum)| {
        let fail = |problem| Error::Datum { index, field: "target_tokens".into(), problem };
        let targets = datum.input("target_tokens").ok_or_else(|| fail(DatumProblem::Missing))?;
        targets.to_dense().map_err(|error| fail(DatumProblem::Unusable(error.to_string())))
    };
    data.iter().enumerate().map(dense).collect()
}

/// The data as they travel in the first pass.
fn first_pass(data: &[Datum], targets: &[TensorData]) -> Result<Vec<Datum>> {
    // Sequences of one shape share their zeros.
    let mut zeros: Option<TensorData> = None;
    let travelling = data.iter().zip(targets).map(|(datum, targets)| {
        let weights = match (datum.input("weights"), &zeros) {
            (Some(weights), _) => weights.clone(),
            (None, Some(zeros)) if zeros.shape() == targets.shape() => zeros.clone(),
            (None, _) => {
                let new = shaped_as(targets, iter::repeat_n(0.0, targets.elem_count()))?;
                zeros.insert(new).clone()
            }
        };
        Ok(travelling(datum, targets, weights))
    });
    travelling.collect()
}

/// The data as they travel in the second pass.
fn second_pass(
    data: &[Datum],
    targets: &[TensorData],
    gradient: &[f32],
    may_be_sparse: bool,
) -> Result<Vec<Datum>> {
    let mut rest = gradient;
    let travelling = data.iter().zip(targets).map(|(datum, targets)| {
        let (own, others) = rest.split_at(targets.elem_count());
        rest = others;
        let weights = shaped_as(targets, own.iter().map(|g| -g))?;
        let weights = match may_be_sparse {
            true => weights.into_smaller(),
            false => weights,
        };
        Ok(travelling(datum, targets, weights))
    });
    travelling.collect()
}

/// Only targets and weights travel: every other input is the loss function's.
fn travelling(datum: &Datum, targets: &TensorData, weights: TensorData) -> Datum {
    Datum::new(datum.model_input.clone())
        .with("target_tokens", targets.clone())
        .with("weights", weights)
}

fn shaped_as(like: &TensorData, values: impl Iterator<Item = f32>) -> Result<TensorData> {
    let values: Arc<[f32]> = values.collect();
    TensorData::new(values, &like.shape()).map_err(Error::Encode)
}

/// The logprobs of each datum, if they are what was asked for.
fn logprobs(forward: &ForwardBackwardOutput, targets: &[TensorData]) -> Result<Vec<TensorData>> {
    let outputs = forward.loss_fn_outputs.iter();
    let logprobs = outputs.map(|output| output.get("logprobs"));
    check_all_logprobs(logprobs.clone(), targets)?;
    Ok(logprobs.flatten().cloned().collect())
}

/// One tensor of logprobs for each of `targets`, of its shape.
pub(super) fn check_all_logprobs<'a>(
    logprobs: impl ExactSizeIterator<Item = Option<&'a TensorData>>,
    targets: &[TensorData],
) -> Result<()> {
    let (expected, found) = (targets.len(), logprobs.len());
    if expected != found {
        return Err(Error::OutputCount { expected, found });
    }
    for (index, (logprobs, targets)) in logprobs.zip(targets).enumerate() {
        logprobs
            .ok_or(DatumProblem::Missing)
            .and_then(|logprobs| check_logprobs(logprobs, targets))
            .map_err(|problem| Error::Logprobs { index, problem })?;
    }
    Ok(())
}

fn check_logprobs(logprobs: &TensorData, targets: &TensorData) -> Result<(), DatumProblem> {
    if logprobs.dtype() != DType::Float32 {
        let (expected, found) = (DType::Float32, logprobs.dtype());
        return Err(DatumProblem::DType { expected, found });
    }
    if logprobs.sparse().is_some() {
        return Err(DatumProblem::Sparse);
    }
    if logprobs.shape() != targets.shape() {
        let (found, expected) =
            (logprobs.shape().into_owned(), format!("{:?}, as its target_tokens", targets.shape()));
        return Err(DatumProblem::Shape { found, expected });
    }
    preflight::check_finite(logprobs)
}
