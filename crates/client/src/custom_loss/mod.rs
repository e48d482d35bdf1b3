//! A loss of the user's own: forward on the server, loss and gradient here, and the gradient back
//! as the weights of a second, linear pass.
//!
//! The server's cross entropy is `sum(-weights * logprobs)`. With `weights = -dL/dlogprobs` its
//! gradient by the model is that of L, by the chain rule.

pub(crate) mod batch;
pub(crate) mod check;
mod client;
mod evaluate;
mod guards;
pub(crate) mod loss;
mod pack;
pub(crate) mod precomputed;
pub(crate) mod record;
pub(crate) mod server_side;
pub(crate) mod step;
mod two_passes;

use std::{panic::Location, sync::Arc};

use evaluate::evaluate;
use tinsmith_wire::Datum;
use two_passes::{Forward, Passes};

use crate::{
    ApiFuture, Batch, CustomStep, Loss, PhaseTimes, PrecomputedForward, Result, StepOutput, Usage,
    observe::trace,
    training::{model::Model, sequencer::Turn},
};

/// Both passes, up to the acceptance of the second. `at` is where the user called.
fn step<F>(
    model: &Arc<Model>,
    data: &[Datum],
    loss: F,
    at: &'static Location<'static>,
) -> Result<CustomStep>
where
    F: FnOnce(&Batch) -> anyhow::Result<Loss>,
{
    let _span = trace::step(&model.id);
    let passes = Passes::prepare(model, data)?;
    // Holding the turn until the end reserves the ids of both passes. If something fails in
    // between, those of the second have not been sent and nobody can have taken a later one, so the
    // next request takes them.
    let mut turn = model.turn()?;
    let forward = passes.send_forward(&mut turn, |forward| forward)?.result()?;
    second_half(&passes, turn, forward, loss, at)
}

/// The first pass by itself.
fn precompute(model: &Arc<Model>, data: &[Datum]) -> Result<ApiFuture<PrecomputedForward>> {
    let passes = Passes::prepare(model, data)?;
    let mut turn = model.turn()?;
    let batch = PrecomputedForward::new(model, turn.next_id(), data, &passes.targets);
    passes.send_forward(&mut turn, |forward| batch.with_logprobs(forward.logprobs))
}

/// The second pass, after a first that has been made before.
fn step_after<F>(
    model: &Arc<Model>,
    forward: &PrecomputedForward,
    data: &[Datum],
    loss: F,
    at: &'static Location<'static>,
) -> Result<CustomStep>
where
    F: FnOnce(&Batch) -> anyhow::Result<Loss>,
{
    let _span = trace::step(&model.id);
    let passes = Passes::prepare(model, data)?;
    let turn = model.turn()?;
    forward.check(model, &turn.history(), data, &passes.targets)?;
    let forward = Forward::made_before(forward.logprobs());
    second_half(&passes, turn, forward, loss, at)
}

/// The first pass, and the loss on what it brought.
fn evaluate_only<F>(
    model: &Arc<Model>,
    data: &[Datum],
    loss: F,
    at: &'static Location<'static>,
) -> Result<StepOutput>
where
    F: FnOnce(&Batch) -> anyhow::Result<Loss>,
{
    let passes = Passes::prepare(model, data)?;
    // The turn ends before the wait, so that others can send meanwhile.
    let sent = passes.send_forward(&mut model.turn()?, |forward| forward)?;
    let forward = sent.result()?;

    let started = passes.now();
    let batch = Batch::in_arrays(&model.arrays, data, &forward.logprobs)?;
    let evaluated = evaluate(&batch, loss, at, passes.gradient_buffer(), || passes.now())?;
    let mut report = evaluated.report(data, &forward.logprobs);
    let loss = passes.now().saturating_sub(started);
    report.times = PhaseTimes { forward: forward.time, loss, ..PhaseTimes::default() };
    report.usage = forward.usage;
    (report.bytes_sent, report.bytes_received) = (forward.bytes.sent, forward.bytes.received);
    passes.keep_buffer(evaluated.gradient);
    Ok(step::evaluated(forward.output, report))
}

/// Evaluate, record, submit, report, finish.
fn second_half<F>(
    passes: &Passes<'_>,
    mut turn: Turn<'_>,
    forward: Forward,
    loss: F,
    at: &'static Location<'static>,
) -> Result<CustomStep>
where
    F: FnOnce(&Batch) -> anyhow::Result<Loss>,
{
    let started = passes.now();
    let batch = Batch::in_arrays(&passes.model.arrays, passes.data, &forward.logprobs)?;
    let evaluated = evaluate(&batch, loss, at, passes.gradient_buffer(), || passes.now())?;
    passes.check_normalized(&turn, &evaluated)?;
    record::write(&passes.model.step_files, passes.data, &forward.logprobs, &evaluated)?;
    let evaluated_at = passes.now();

    let second = passes.send_backward(&mut turn, &evaluated)?;
    drop(turn);

    let mut report = evaluated.report(passes.data, &forward.logprobs);
    report.times = PhaseTimes {
        forward: forward.time,
        loss: evaluated_at.saturating_sub(started),
        submit: second.sent_at.saturating_sub(evaluated_at),
        ..PhaseTimes::default()
    };
    report.usage = forward.usage;
    report.usage += Usage::forward_backward(passes.data);
    report.bytes_sent = forward.bytes.sent + second.bytes_sent();
    report.bytes_received = forward.bytes.received;

    let max_drift = evaluated.max_drift;
    passes.keep_buffer(evaluated.gradient);
    Ok(step::finish(passes.model, second, forward.logprobs, report, max_drift))
}
