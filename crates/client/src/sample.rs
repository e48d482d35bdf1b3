//! One sample: submitted, waited for, and submitted again when the server loses it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tinsmith_wire::{SampleRequest, SampleResponse};

use crate::{
    CallInfo, Error, Event, Result,
    completions::Completions,
    future::Wait,
    pending::{Patience, Pending},
    retry::Kind,
    session::{Session, Submission},
    transport::Payload,
};

/// What the clones of a sampling client share.
#[derive(Debug)]
pub(crate) struct Sampler {
    pub session: Arc<Session>,
    pub id: String,
    pub path: Option<String>,
    pub next: AtomicU64,
    pub completions: Completions,
}

/// A sample under way, or about to be.
pub(crate) struct Sample<F> {
    sampler: Arc<Sampler>,
    request: SampleRequest,
    pending: Option<Pending<SampleResponse>>,
    /// Its place among the samples under way; none for one that is sent only when it is waited for.
    _slot: Option<Slot>,
    failures: u32,
    finish: Option<F>,
}

/// A prompt of more bytes than this leaves the server more time when it is too busy.
const LONG_PROMPT: u64 = 128 << 10;

impl<F> Sample<F> {
    pub fn start(sampler: Arc<Sampler>, request: SampleRequest, finish: F) -> Result<Self> {
        let slot = Slot::take(&sampler.session);
        let pending = match slot {
            Some(_) => Some(submit(&sampler, &request)?),
            None => None,
        };
        Ok(Sample {
            sampler,
            request,
            pending,
            _slot: slot,
            failures: 0,
            finish: Some(finish),
        })
    }

    /// The answer, unless it is not there when asking once.
    fn answer(&mut self, patience: Patience) -> Result<Option<SampleResponse>> {
        let sampler = self.sampler.clone();
        let session = &sampler.session;
        loop {
            let pending = match &mut self.pending {
                Some(pending) => pending,
                none => none.insert(submit(&sampler, &self.request)?),
            };
            let error = match sampler.wait(pending, patience) {
                Ok(true) => return Ok(pending.value.take()),
                Ok(false) => return Ok(None),
                Err(error) if worth_another(&error, session) => error,
                Err(error) => return Err(error),
            };
            self.pending = None;
            self.failures += 1;
            let Patience::Until { at, .. } = patience else {
                return Ok(None);
            };
            let clock = &session.http.clock;
            let wait = session.http.retry.delay(self.failures, clock.random());
            if clock.now() + wait >= at {
                return Err(error);
            }
            session.http.progress.event(&Event::Retry {
                call: CallInfo::of("asample"),
                reason: error.to_string(),
                wait,
            });
            clock.sleep(wait);
        }
    }
}

impl<T, F: FnOnce(SampleResponse) -> Result<T>> Wait<T> for Sample<F> {
    fn wait(&mut self, patience: Patience) -> Result<Option<T>> {
        if self.finish.is_none() {
            return Err(Error::ResultTaken);
        }
        let Some(answer) = self.answer(patience)? else {
            return Ok(None);
        };
        self._slot = None;
        let finish = self.finish.take().ok_or(Error::ResultTaken)?;
        finish(answer).map(Some)
    }

    fn describe(&self) -> String {
        match &self.pending {
            Some(pending) => pending.info.to_string(),
            None => "asample, to be sent when it is waited for".to_owned(),
        }
    }

    fn session(&self) -> &Session {
        &self.sampler.session
    }
}

impl Sampler {
    /// By itself, or together with the other samples where the server has it so.
    fn wait(&self, pending: &mut Pending<SampleResponse>, patience: Patience) -> Result<bool> {
        let config = self.session.server.config.as_ref();
        let together = config.is_some_and(|config| config.sample_use_retrieve_futures);
        if let (true, Patience::Until { at, limit }) = (together, patience) {
            self.completions
                .wait(&self.session, &self.id, pending, at, limit)?;
        }
        let outcome = pending.wait(&self.session, patience);
        if together && !matches!(outcome, Ok(false)) {
            self.completions.retrieved(&pending.info);
        }
        outcome
    }
}

/// Each submission has a number of its own, the second of the same sample too.
fn submit(sampler: &Sampler, request: &SampleRequest) -> Result<Pending<SampleResponse>> {
    let seq_id = sampler.next.fetch_add(1, Ordering::Relaxed);
    let request = SampleRequest {
        seq_id: Some(seq_id),
        ..request.clone()
    };
    let payload = Payload::json(&request)?;
    let bytes = payload.bytes.len() as u64;
    let back_off = if bytes <= LONG_PROMPT { 1 } else { 5 };
    let submission = Submission::new("asample", "Sample")
        .seq(seq_id)
        .kind(Kind::Sample(Duration::from_secs(back_off)));
    let session = &sampler.session;
    let _share = session.server.sampling.take(bytes);
    let headers = [("X-Tinker-Sampling-Backpressure", "1")];
    let (_, pending) = session.submit_payload(submission, &payload, &headers)?;
    Ok(pending)
}

/// Sampling changes nothing on the server, so what was lost can be done again.
fn worth_another(error: &Error, session: &Session) -> bool {
    let config = session.server.config.as_ref();
    if config.is_some_and(|config| config.sample_no_retries) {
        return false;
    }
    match error {
        Error::Expired { .. } | Error::Unreachable { .. } => true,
        Error::Status { status, .. } => matches!(status, 408 | 409 | 429 | 500..),
        _ => false,
    }
}

/// A place among the samples under way.
struct Slot(Arc<Session>);

impl Slot {
    fn take(session: &Arc<Session>) -> Option<Self> {
        let config = session.server.config.as_ref();
        let most = config.map_or(u64::MAX, |config| {
            config.sample_max_concurrent_requests.into()
        });
        let room = |n| (n < most).then_some(n + 1);
        let samples = &session.samples;
        samples
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .ok()
            .map(|_| Slot(session.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.samples.fetch_sub(1, Ordering::Relaxed);
    }
}
