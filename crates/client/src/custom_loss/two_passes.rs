//! A loss of the user's own: forward on the server, loss and gradient here, and the gradient back
//! as the weights of a second, linear pass.
//!
//! The server's cross entropy is `sum(-weights * logprobs)`. With `weights = -dL/dlogprobs` its
//! gradient by the model is that of L, by the chain rule.

use std::{iter, panic::Location, sync::Arc, time::Duration};

use tinsmith_wire::{DType, Datum, ForwardBackwardOutput, LossFn, Metrics, Pass, TensorData};

use crate::{
    ApiFuture, Batch, DatumProblem, Drift, Error, GradientReport, Loss, PhaseTimes,
    PrecomputedForward, RequestOrder, Rescaling, Result, StepReport, SurrogateCheck, Warning,
    custom_loss::loss::Evaluated,
    protocol::poll::{Bytes, Pending},
    protocol::session::Session,
    training::combine::combine,
    training::model::{Model, PassOver},
    training::preflight,
    training::sequencer::Turn,
};

/// A custom-loss step whose second pass is under way.
#[must_use = "result() waits for the second pass and tells whether it failed"]
#[derive(Debug)]
pub struct CustomStep {
    future: ApiFuture<(ForwardBackwardOutput, StepReport)>,
    report: StepReport,
}

impl CustomStep {
    /// What is known already: the loss, its terms, its gradient, the first phases.
    pub fn report(&self) -> &StepReport {
        &self.report
    }

    /// Waits for the second pass. The metrics are the server's, overridden by those of the loss
    /// function; then `loss:sum` is the loss, and `surrogate_loss:sum` what the server gave as
    /// `loss:sum`, if it did.
    ///
    /// # Errors
    /// As [`ApiFuture::result`].
    pub fn result(self) -> Result<ForwardBackwardOutput> {
        self.future.result().map(|(output, _)| output)
    }

    /// As [`result`](Self::result), with the full report.
    ///
    /// # Errors
    /// As [`ApiFuture::result`].
    pub fn result_with_report(self) -> Result<(ForwardBackwardOutput, StepReport)> {
        self.future.result()
    }

    /// As [`ApiFuture::result_timeout`].
    ///
    /// # Errors
    /// As [`ApiFuture::result_timeout`].
    pub fn result_timeout(
        &mut self,
        limit: Duration,
    ) -> Result<(ForwardBackwardOutput, StepReport)> {
        self.future.result_timeout(limit)
    }

    /// As [`ApiFuture::try_result`].
    ///
    /// # Errors
    /// As [`ApiFuture::try_result`].
    pub fn try_result(&mut self) -> Result<Option<(ForwardBackwardOutput, StepReport)>> {
        self.future.try_result()
    }
}

/// Both passes, up to the acceptance of the second.
pub(crate) fn run<F>(
    model: &Arc<Model>,
    data: &[Datum],
    loss: F,
    at: &'static Location<'static>,
) -> Result<CustomStep>
where
    F: FnOnce(&Batch) -> anyhow::Result<Loss>,
{
    let targets = prepare(model, data)?;
    // Holding the turn until the end reserves the ids of both passes. If something fails in
    // between, those of the second have not been sent and nobody can have taken a later one, so the
    // next request takes them.
    let mut turn = model.turn()?;
    let forward = send_forward(model, &mut turn, data, &targets, |forward| forward)?.result()?;
    backward(model, turn, data, &targets, forward, loss, at)
}

/// The first pass by itself.
pub(crate) fn precompute(
    model: &Arc<Model>,
    data: &[Datum],
) -> Result<ApiFuture<PrecomputedForward>> {
    let targets = prepare(model, data)?;
    let mut turn = model.turn()?;
    let seq_id = turn.next_id();
    let batch = PrecomputedForward::new(model, seq_id, data, &targets);
    let finish = |forward: Forward| batch.with_logprobs(forward.logprobs);
    send_forward(model, &mut turn, data, &targets, finish)
}

/// The second pass, after a first that has been made before.
pub(crate) fn run_after<F>(
    model: &Arc<Model>,
    forward: &PrecomputedForward,
    data: &[Datum],
    loss: F,
    at: &'static Location<'static>,
) -> Result<CustomStep>
where
    F: FnOnce(&Batch) -> anyhow::Result<Loss>,
{
    let targets = prepare(model, data)?;
    let turn = model.turn()?;
    forward.check(model, &turn.history(), data, &targets)?;
    let forward = Forward {
        logprobs: forward.logprobs().to_vec(),
        time: Duration::ZERO,
        bytes: Bytes::default(),
    };
    backward(model, turn, data, &targets, forward, loss, at)
}

/// The targets of a batch that is fit to be sent.
fn prepare(model: &Model, data: &[Datum]) -> Result<Vec<TensorData>> {
    preflight::check(data, |name| matches!(name, "target_tokens" | "weights"))?;
    model.check_data(data)?;
    targets(data)
}

/// A first pass that has come back.
struct Forward {
    logprobs: Vec<TensorData>,
    time: Duration,
    bytes: Bytes,
}

fn send_forward<T: 'static>(
    model: &Model,
    turn: &mut Turn<'_>,
    data: &[Datum],
    targets: &[TensorData],
    finish: impl FnOnce(Forward) -> T + Send + 'static,
) -> Result<ApiFuture<T>> {
    let session = model.session.clone();
    let start = session.http.clock.now();
    let pending = send(model, turn, Pass::Forward, &first_pass(data, targets)?)?;
    let targets = targets.to_vec();
    let finish = move |session: &Arc<Session>, parts, bytes| {
        let time = session.http.since(start);
        let logprobs = logprobs(combine(parts), &targets)?;
        Ok(finish(Forward { logprobs, time, bytes }))
    };
    Ok(ApiFuture::joined(session, pending, finish))
}

/// The loss, and the second pass up to its acceptance.
fn backward<F>(
    model: &Arc<Model>,
    mut turn: Turn<'_>,
    data: &[Datum],
    targets: &[TensorData],
    forward: Forward,
    loss: F,
    at: &'static Location<'static>,
) -> Result<CustomStep>
where
    F: FnOnce(&Batch) -> anyhow::Result<Loss>,
{
    let session = model.session.clone();
    let http = &session.http;
    let start = http.clock.now();
    let batch = Batch::new(data, &forward.logprobs)?;
    let loss = loss(&batch).map_err(|source| Error::LossFailed { source, at })?;
    let evaluated = loss.evaluate(&batch, session.gradients.take())?;
    if evaluated.normalization.is_some() {
        turn.history().check_normalized_pass()?;
    }
    model.recorder.write(data, &forward.logprobs, &evaluated)?;
    let computed = http.clock.now();

    let reads_csr = session.server.reads_csr();
    let second = second_pass(data, targets, &evaluated.gradient, reads_csr)?;
    let seq_id = turn.next_id();
    let pending = send(model, &mut turn, Pass::ForwardBackward, &second)?;
    if evaluated.normalization.is_some() {
        turn.history().normalized(seq_id);
    }
    drop(turn);
    let sent = http.clock.now();

    let weights: Vec<TensorData> =
        second.iter().filter_map(|datum| datum.input("weights").cloned()).collect();
    let max_drift = evaluated.max_drift;
    let mut report = report(&evaluated);
    session.gradients.give(evaluated.gradient);
    report.times = PhaseTimes {
        forward: forward.time,
        loss: computed.saturating_sub(start),
        submit: sent.saturating_sub(computed),
        backward: Duration::ZERO,
    };
    let bytes_of_second: Bytes = pending.iter().map(|pending| pending.bytes).sum();
    report.bytes_sent = forward.bytes.sent + bytes_of_second.sent;
    report.bytes_received = forward.bytes.received;
    let so_far = report.clone();
    let finish = move |session: &Arc<Session>, parts, bytes: Bytes| {
        report.times.backward = session.http.since(sent);
        report.bytes_received += bytes.received;
        let (output, mut report) = finish(combine(parts), report, &forward.logprobs, &weights);
        if session.server.order() == RequestOrder::ByArrival {
            let rescaling = Rescaling::of(&weights).map(Warning::Rescaled);
            report.warnings.extend(rescaling);
        }
        match (report.drift, max_drift) {
            (Some(drift), Some(limit)) if drift.exceeds(limit) => {
                Err(Error::Drift { drift, limit })
            }
            _ => Ok((output, report)),
        }
    };
    let is_one_request = pending.len() == 1;
    let mut future = ApiFuture::joined(session, pending, finish);
    if is_one_request {
        let model = model.clone();
        future = future.when_failed(move || model.order.history().failed(seq_id));
    }
    Ok(CustomStep { future, report: so_far })
}

fn send(
    model: &Model,
    turn: &mut Turn<'_>,
    pass: Pass,
    data: &[Datum],
) -> Result<Vec<Pending<ForwardBackwardOutput>>> {
    let server = &model.session.server;
    let batch = PassOver {
        pass,
        data,
        chunks: &server.chunks.split(data, server.service),
        loss_fn: &LossFn::CrossEntropy,
        config: None,
    };
    model.send_pass(turn, batch)
}

pub(crate) fn targets(data: &[Datum]) -> Result<Vec<TensorData>> {
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
fn logprobs(forward: ForwardBackwardOutput, targets: &[TensorData]) -> Result<Vec<TensorData>> {
    let outputs = forward.loss_fn_outputs.into_iter();
    let logprobs: Vec<_> = outputs.map(|mut output| output.remove("logprobs")).collect();
    check_all_logprobs(logprobs.iter().map(Option::as_ref), targets)?;
    Ok(logprobs.into_iter().flatten().collect())
}

/// One tensor of logprobs for each of `targets`, of its shape.
pub(crate) fn check_all_logprobs<'a>(
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

pub(crate) fn report(evaluated: &Evaluated) -> StepReport {
    let gradient = GradientReport::of(&evaluated.gradient);
    let metrics = evaluated.metrics.iter();
    let metrics: Metrics = metrics.map(|(name, x)| (name.as_str(), *x)).collect();
    StepReport {
        loss: evaluated.value,
        terms: evaluated.terms.clone(),
        server_metrics: Metrics::default(),
        gradient,
        normalization: evaluated.normalization,
        drift: None,
        surrogate: None,
        warnings: Warning::about(&gradient, None, None, &metrics),
        metrics,
        times: PhaseTimes::default(),
        bytes_sent: 0,
        bytes_received: 0,
    }
}

fn finish(
    mut output: ForwardBackwardOutput,
    mut report: StepReport,
    first: &[TensorData],
    weights: &[TensorData],
) -> (ForwardBackwardOutput, StepReport) {
    report.drift = Drift::between(first, &output);
    report.surrogate = SurrogateCheck::of(weights, &output);
    report.warnings =
        Warning::about(&report.gradient, report.drift, report.surrogate, &report.metrics);
    report.server_metrics = output.metrics.clone();
    let surrogate = output.metrics.remove("loss:sum");
    output.metrics.extend(report.metrics.iter());
    output.metrics.insert("loss:sum", report.loss);
    if let Some(surrogate) = surrogate {
        output.metrics.insert("surrogate_loss:sum", surrogate);
    }
    (output, report)
}
