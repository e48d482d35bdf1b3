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
    ApiFuture, DatumProblem, Dialect, Error, RequestOrder, Result,
    http::connection::Payload,
    observe::step_files::StepFiles,
    protocol::chunking::estimated_bytes,
    protocol::poll::{Answer, Pending},
    protocol::session::{Session, Submission},
    training::sequencer::{Order, Turn},
};

/// Most requests of one batch that are being sent at once.
const MAX_PARALLEL: usize = 16;

/// A model in training, as its clients share it.
#[derive(Debug)]
pub(crate) struct Model {
    pub session: Arc<Session>,
    pub id: String,
    pub order: Order,
    /// What each custom loss saw and gave, if that is recorded.
    pub step_files: StepFiles,
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

impl Model {
    /// Waits for the turn to send.
    pub fn turn(&self) -> Result<Turn<'_>> {
        self.order.turn(self.session.server.order())
    }

    /// Sends one request that is no pass, in its turn.
    pub fn send_one<B, P, T>(
        &self,
        turn: &mut Turn<'_>,
        submission: Submission,
        request: impl FnOnce(u64) -> B,
        finish: impl FnOnce(&Arc<Session>, P) -> Result<T> + Send + 'static,
    ) -> Result<ApiFuture<T>>
    where
        B: Serialize,
        P: Answer + Send + 'static,
        T: 'static,
    {
        let pending =
            turn.send(|seq_id| self.session.submit(submission.seq(seq_id), &request(seq_id)))?;
        Ok(ApiFuture::single(self.session.clone(), pending, finish))
    }

    /// What no request to this server may hold.
    pub fn check_data(&self, data: &[Datum]) -> Result<()> {
        if self.session.server.order() == RequestOrder::BySequence {
            return Ok(());
        }
        for (index, datum) in data.iter().enumerate() {
            for (name, tensor) in &datum.loss_fn_inputs {
                let shape = tensor.shape();
                if shape.len() > 1 {
                    let expected =
                        "[T]: this server is SkyRL-tx, which takes all tensors for flat ones";
                    return Err(Error::Datum {
                        index,
                        field: name.clone(),
                        problem: DatumProblem::Shape {
                            found: shape.into_owned(),
                            expected: expected.to_owned(),
                        },
                    });
                }
            }
        }
        Ok(())
    }

    /// Sends a batch, one request a chunk.
    ///
    /// A server that orders by sequence ids gets them in parallel and the first one last: it holds
    /// the others back until then, and sees the batch whole.
    pub fn send_pass(&self, turn: &mut Turn<'_>, batch: PassOver<'_>) -> Result<Vec<Part>> {
        let server = &self.session.server;
        let is_parallel = server.parallel_chunks && server.order() == RequestOrder::BySequence;
        turn.send_batch(batch.chunks.len(), |first_id| {
            let send = |i: usize| self.send_chunk(batch, i, first_id + i as u64);
            match batch.chunks.len() {
                n @ 2.. if is_parallel => parallel(n, send),
                n => in_order(n, send),
            }
        })
    }

    fn send_chunk(&self, batch: PassOver<'_>, i: usize, seq_id: u64) -> Result<Part> {
        let server = &self.session.server;
        let data = &batch.data[batch.chunks[i].clone()];
        let bytes: usize = data.iter().map(|datum| estimated_bytes(datum, server.service)).sum();
        let _share = server.sending.take(bytes as u64);
        let (submission, payload) = self.encode(batch, data, seq_id)?;
        let sent = self.session.submit_payload(submission.seq(seq_id), &payload, &[]);
        self.session.bodies.give(payload.bytes);
        match sent {
            Ok((_, pending)) => {
                server.accepts_passes();
                Ok(pending)
            }
            Err(error) => Err(server.diagnose(error)),
        }
    }

    fn encode(
        &self,
        batch: PassOver<'_>,
        data: &[Datum],
        seq_id: u64,
    ) -> Result<(Submission, Payload)> {
        let request = PassRequest {
            pass: batch.pass,
            data: data.into(),
            loss_fn: batch.loss_fn.clone(),
            loss_fn_config: batch.config.cloned(),
            model_id: self.id.clone(),
            seq_id,
        };
        let submission = match batch.pass {
            Pass::Forward => Submission::new("forward", "Forward"),
            Pass::ForwardBackward => Submission::new("forward_backward", "ForwardBackward"),
        };
        let server = &self.session.server;
        let buffer = self.session.bodies.take();
        match server.dialect {
            Dialect::Json => Ok((submission, Payload::json_in(buffer, &request)?)),
            // One message for both passes, at one address.
            Dialect::Protobuf => {
                let submission = Submission { path: "forward_backward", ..submission };
                let payload = Payload::protobuf_in(buffer, &request, server.wants_zstd())?;
                Ok((submission, payload))
            }
        }
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
    let work = || {
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
