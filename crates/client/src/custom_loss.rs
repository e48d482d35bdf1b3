//! A loss of the user's own: forward on the server, loss and gradient here, and the gradient back as the weights of a
//! second, linear pass.
//!
//! The server's cross entropy is `sum(-weights * logprobs)`. With `weights = -dL/dlogprobs` its gradient by the model
//! is that of L, by the chain rule.

use std::{ops::Range, panic::Location, sync::Arc, time::Duration};

use tinsmith_wire::{DType, Datum, ForwardBackwardOutput, LossFn, Metrics, Pass, TensorData};

use crate::{
    ApiFuture, Batch, DatumProblem, Drift, Error, GradientReport, Loss, PhaseTimes, Result,
    StepReport, SurrogateCheck, Warning,
    combine::combine,
    loss::Evaluated,
    model::{Model, PassOver},
    preflight,
    session::Session,
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

    /// Waits for the second pass. The metrics are the server's, overridden by those of the loss function; then
    /// `loss:sum` is the loss, and `surrogate_loss:sum` what the server gave as `loss:sum`, if it did.
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
    preflight::check(data, |name| matches!(name, "target_tokens" | "weights"))?;
    model.check_data(data)?;
    let http = &model.session.http;
    let targets = targets(data)?;
    let first = first_pass(data, &targets)?;
    let server = &model.session.server;
    let chunks = server.chunks.split(&first, server.service);

    // Holding the turn until the end reserves the ids of both passes. If something fails in between, those of the
    // second have not been sent and nobody can have taken a later one, so the next request takes them.
    let mut turn = model.order.turn()?;
    let start = http.clock.now();
    let pending = model.send_pass(&mut turn, over(Pass::Forward, &first, &chunks))?;
    drop(first);
    let session = model.session.clone();
    let forward = ApiFuture::joined(session, pending, |_, parts, received| {
        Ok((combine(parts), received))
    });
    let (forward, bytes_received) = forward.result()?;
    let forward_done = http.clock.now();

    let logprobs = logprobs(forward, &targets)?;
    let batch = Batch::new(data, &logprobs)?;
    let loss = loss(&batch).map_err(|source| Error::LossFailed { source, at })?;
    let evaluated = loss.evaluate(&batch)?;
    model.recorder.write(data, &logprobs, &evaluated)?;
    let loss_done = http.clock.now();

    let second = second_pass(data, &targets, &evaluated.gradient, server.reads_csr())?;
    let pending = model.send_pass(&mut turn, over(Pass::ForwardBackward, &second, &chunks))?;
    drop(turn);
    let sent = http.clock.now();

    let times = PhaseTimes {
        forward: forward_done.saturating_sub(start),
        loss: loss_done.saturating_sub(forward_done),
        submit: sent.saturating_sub(loss_done),
        backward: Duration::ZERO,
    };
    let report = report(evaluated, bytes_received, times);
    let so_far = report.clone();
    let weights: Vec<TensorData> = second
        .iter()
        .filter_map(|datum| datum.input("weights").cloned())
        .collect();
    let finish = move |session: &Arc<Session>, parts, received| {
        let backward = session.http.since(sent);
        Ok(finish(
            combine(parts),
            report,
            &logprobs,
            &weights,
            backward,
            received,
        ))
    };
    Ok(CustomStep {
        future: ApiFuture::joined(model.session.clone(), pending, finish),
        report: so_far,
    })
}

fn over<'a>(pass: Pass, data: &'a [Datum], chunks: &'a [Range<usize>]) -> PassOver<'a> {
    PassOver {
        pass,
        data,
        chunks,
        loss_fn: &LossFn::CrossEntropy,
        config: None,
    }
}

pub(crate) fn targets(data: &[Datum]) -> Result<Vec<TensorData>> {
    let dense = |(index, datum): (usize, &Datum)| {
        let fail = |problem| Error::Datum {
            index,
            field: "target_tokens".into(),
            problem,
        };
        let targets = datum
            .input("target_tokens")
            .ok_or_else(|| fail(DatumProblem::Missing))?;
        targets
            .to_dense()
            .map_err(|error| fail(DatumProblem::Unusable(error.to_string())))
    };
    data.iter().enumerate().map(dense).collect()
}

/// The data as they travel in the first pass.
fn first_pass(data: &[Datum], targets: &[TensorData]) -> Result<Vec<Datum>> {
    let travelling = data.iter().zip(targets).map(|(datum, targets)| {
        let weights = match datum.input("weights") {
            Some(weights) => weights.clone(),
            None => shaped_as(targets, vec![0.0; targets.elem_count()])?,
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
        let weights = shaped_as(targets, own.iter().map(|g| -g).collect())?;
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

fn shaped_as(like: &TensorData, values: Vec<f32>) -> Result<TensorData> {
    TensorData::new(values, &like.shape()).map_err(Error::Encode)
}

/// The logprobs of each datum, if they are what was asked for.
fn logprobs(forward: ForwardBackwardOutput, targets: &[TensorData]) -> Result<Vec<TensorData>> {
    let outputs = forward.loss_fn_outputs.into_iter();
    let logprobs: Vec<_> = outputs
        .map(|mut output| output.remove("logprobs"))
        .collect();
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
        let (found, expected) = (
            logprobs.shape().into_owned(),
            format!("{:?}, as its target_tokens", targets.shape()),
        );
        return Err(DatumProblem::Shape { found, expected });
    }
    preflight::check_finite(logprobs)
}

pub(crate) fn report(evaluated: Evaluated, bytes_received: u64, times: PhaseTimes) -> StepReport {
    let gradient = GradientReport::of(&evaluated.gradient);
    let metrics: Metrics = evaluated.metrics.into_iter().collect();
    StepReport {
        loss: evaluated.value,
        terms: evaluated.terms,
        server_metrics: Metrics::default(),
        gradient,
        drift: None,
        surrogate: None,
        warnings: Warning::about(&gradient, None, None, &metrics),
        metrics,
        times,
        bytes_received,
    }
}

fn finish(
    mut output: ForwardBackwardOutput,
    mut report: StepReport,
    first: &[TensorData],
    weights: &[TensorData],
    backward: Duration,
    received: u64,
) -> (ForwardBackwardOutput, StepReport) {
    report.drift = Drift::between(first, &output);
    report.surrogate = SurrogateCheck::of(weights, &output);
    report.warnings = Warning::about(
        &report.gradient,
        report.drift,
        report.surrogate,
        &report.metrics,
    );
    report.times.backward = backward;
    report.bytes_received += received;
    report.server_metrics = output.metrics.clone();
    let surrogate = output.metrics.remove("loss:sum");
    output.metrics.extend(report.metrics.iter());
    output.metrics.insert("loss:sum", report.loss);
    if let Some(surrogate) = surrogate {
        output.metrics.insert("surrogate_loss:sum", surrogate);
    }
    (output, report)
}
