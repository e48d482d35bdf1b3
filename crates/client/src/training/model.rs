//! Sending a model's training requests, in order.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde::Serialize;
use tinsmith_wire::{Datum, ForwardBackwardOutput, LossFn, LossFnConfig, Pass, PassRequest};

use crate::{
    ApiFuture, Error, Result,
    http::message::{Format, Payload},
    observe::{step_files::StepFiles, trace},
    protocol::{
        answer::Answer,
        chunking::estimated_bytes,
        endpoints::{FORWARD, FORWARD_BACKWARD, Task},
        poll::Pending,
        session::Session,
        submit::Submission,
    },
    training::{
        sequencer::{Sequencer, Turn},
        shared_arrays::SharedArrays,
    },
};

/// Most requests of one batch that are being sent at once.
const MAX_PARALLEL: usize = 16;

/// A model in training, as its clients share it.
#[derive(Debug)]
pub(crate) struct Model {
    pub session: Arc<Session>,
    pub id: String,
    pub sequencer: Sequencer,
    /// What each custom loss saw and gave, if that is recorded.
    pub step_files: StepFiles,
    /// What the batches of custom losses are packed into.
    pub arrays: SharedArrays,
}

/// A pass over a batch that is cut into chunks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PassOver<'a> {
    pub pass: Pass,
    pub data: &'a [Datum],
    pub chunks: &'a [Range<usize>],
    pub loss_fn: &'a LossFn,
    pub config: Option<&'a LossFnConfig>,
}

type Part = Pending<ForwardBackwardOutput>;

/// Most bytes of a result, and for each byte of the data that it is of.
const RESULT_BASE: u64 = 64 << 20;
const RESULT_PER_BYTE: u64 = 32;

impl Model {
    /// Waits for the turn to send.
    pub fn turn(&self) -> Result<Turn<'_>> {
        self.sequencer.turn()
    }

    /// Sends one request that is no pass, in its turn.
    pub fn send_one<Q, A, T>(
        &self,
        turn: &mut Turn<'_>,
        task: &Task<Q, A>,
        request: impl Fn(u64) -> Q,
        finish: impl FnOnce(&Arc<Session>, A) -> Result<T> + Send + 'static,
    ) -> Result<ApiFuture<T>>
    where
        Q: Serialize,
        A: Answer + Send + 'static,
        T: 'static,
    {
        let pending =
            turn.send(|seq_id| self.session.submit(task, Some(seq_id), &request(seq_id)))?;
        Ok(ApiFuture::single(self.session.clone(), pending, finish))
    }

    /// Sends a batch, one request a chunk.
    ///
    /// A server that orders by sequence ids gets them in parallel and the first one last: it holds
    /// the others back until then, and sees the batch whole.
    pub fn send_pass(&self, turn: &mut Turn<'_>, batch: PassOver<'_>) -> Result<Vec<Part>> {
        let is_parallel = self.session.flavour.sends_chunks_in_parallel();
        turn.send_batch(batch.chunks.len(), |first_id| {
            let send = |i: usize| self.send_chunk(batch, i, first_id + i as u64);
            match batch.chunks.len() {
                n @ 2.. if is_parallel => parallel(n, send),
                n => in_order(n, send),
            }
        })
    }

    fn send_chunk(&self, batch: PassOver<'_>, i: usize, seq_id: u64) -> Result<Part> {
        let Session { flavour, sending, bodies, .. } = &*self.session;
        let data = &batch.data[batch.chunks[i].clone()];
        let task = match batch.pass {
            Pass::Forward => &FORWARD,
            Pass::ForwardBackward => &FORWARD_BACKWARD,
        };
        let _span = trace::pass(task.name, seq_id, data.len());
        let bytes: usize =
            data.iter().map(|datum| estimated_bytes(datum, flavour.byte_count)).sum();
        let _permit = sending.take(bytes as u64);
        let submission = Submission::new(task).seq(seq_id);
        let (submission, payload) = self.encode(submission, batch, data, seq_id)?;
        // A number of the request becomes one or two of the result, in JSON up to 25 bytes each.
        let max_result = RESULT_BASE + RESULT_PER_BYTE * bytes as u64;
        let submission = submission.max_result(max_result);
        let sent = self.session.submit_payload(submission, &payload);
        bodies.give(payload.bytes);
        match sent {
            Ok((_, mut pending)) => {
                flavour.accepts_passes();
                pending.info.data = batch.part(i);
                Ok(pending)
            }
            Err(error) => Err(flavour.diagnose(error.about_data(batch.part(i)))),
        }
    }

    fn encode(
        &self,
        submission: Submission<'static>,
        batch: PassOver<'_>,
        data: &[Datum],
        seq_id: u64,
    ) -> Result<(Submission<'static>, Payload)> {
        let request = PassRequest {
            pass: batch.pass,
            data: data.into(),
            loss_fn: batch.loss_fn.clone(),
            loss_fn_config: batch.config.cloned(),
            model_id: self.id.clone(),
            seq_id,
        };
        let flavour = &self.session.flavour;
        let buffer = self.session.bodies.take();
        match flavour.bulk_format() {
            Format::Json => Ok((submission, Payload::json_in(buffer, &request)?)),
            // One message for both passes, at one address.
            Format::Protobuf => {
                let payload = Payload::protobuf_in(buffer, &request, flavour.compresses)?;
                Ok((submission.at(&FORWARD_BACKWARD), payload))
            }
        }
    }
}

impl PassOver<'_> {
    /// The data of a chunk, if the batch has several: the server counts from 0 in each.
    fn part(&self, i: usize) -> Option<Range<usize>> {
        (self.chunks.len() > 1).then(|| self.chunks[i].clone())
    }
}

type Sent = (Vec<Part>, Option<Error>);

fn in_order(n: usize, send: impl Fn(usize) -> Result<Part>) -> Sent {
    let mut parts = Vec::with_capacity(n);
    for i in 0..n {
        match send(i) {
            Ok(part) => parts.push(part),
            Err(error) => return (parts, Some(error)),
        }
    }
    (parts, None)
}

/// All but the first at once; then, when all of these are accepted, the first.
fn parallel(n: usize, send: impl Fn(usize) -> Result<Part> + Sync) -> Sent {
    let next = AtomicUsize::new(1);
    let outcome = Mutex::new((Vec::with_capacity(n), None));
    let lock = || outcome.lock().unwrap_or_else(PoisonError::into_inner);
    let parent = trace::Parent::current();
    let work = || {
        let _span = parent.enter();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= n || lock().1.is_some() {
                return;
            }
            let sent = send(i);
            let (parts, error) = &mut *lock();
            match sent {
                Ok(part) => parts.push((i, part)),
                Err(failed) => *error = error.take().or(Some(failed)),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..(n - 1).min(MAX_PARALLEL) {
            scope.spawn(work);
        }
    });
    let (mut parts, mut error) = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    if error.is_none() {
        match send(0) {
            Ok(part) => parts.push((0, part)),
            Err(failed) => error = Some(failed),
        }
    }
    parts.sort_by_key(|(i, _)| *i);
    (parts.into_iter().map(|(_, part)| part).collect(), error)
}
