//! One sample: submitted, waited for, and submitted again when the server loses it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tinsmith_wire::{FuturesTarget, SampleRequest, SampleResponse};

use crate::{
    CallInfo, Error, Event, Result,
    http::connection::Payload,
    http::retry::Kind,
    protocol::background::Notice,
    protocol::future::Wait,
    protocol::poll::{Patience, Pending},
    protocol::session::{Session, Submission},
    sampling::completions::Completions,
};

/// What the clones of a sampling client share.
#[derive(Debug)]
pub(crate) struct Sampler {
    pub session: Arc<Session>,
    pub id: String,
    pub path: Option<String>,
    /// The number of this client among those of the sampling session: 0 for the one that made it.
    copy: u64,
    next: AtomicU64,
    completions: Completions,
    /// When a sample ended last, in milliseconds of the clock.
    last_end: AtomicU64,
}

/// How many numbers each client of a sampling session has for its samples.
const NUMBERS: u64 = 1_000_000_000;

/// A sample under way, or about to be.
pub(crate) struct Sample<F> {
    sampler: Arc<Sampler>,
    request: SampleRequest,
    pending: Option<Pending<SampleResponse>>,
    /// The names of the sequences to come, if the server gave them any.
    sequence_ids: Vec<String>,
    /// When it was submitted last.
    submitted: Duration,
    /// Whether the server has said the last word on it.
    has_failed: bool,
    /// Its place among the samples under way; none for one that is sent only when it is waited for.
    _slot: Option<Slot>,
    failures: u32,
    finish: Option<F>,
}

/// How long a server may end no sample while one waits.
const MAX_QUIET: Duration = Duration::from_secs(7200);

/// A prompt of more bytes than this leaves the server more time when it is too busy.
const LONG_PROMPT: u64 = 128 << 10;

impl<F> Sample<F> {
    pub fn start(sampler: Arc<Sampler>, request: SampleRequest, finish: F) -> Result<Self> {
        let mut sample = Sample {
            _slot: Slot::take(&sampler.session),
            sampler,
            request,
            pending: None,
            sequence_ids: Vec::new(),
            submitted: Duration::ZERO,
            has_failed: false,
            failures: 0,
            finish: Some(finish),
        };
        if sample._slot.is_some() {
            sample.submit()?;
        }
        Ok(sample)
    }

    /// Each submission has a number of its own, the second of the same sample too.
    fn submit(&mut self) -> Result<()> {
        let sampler = &self.sampler;
        let seq_id = sampler.next.fetch_add(1, Ordering::Relaxed);
        self.request.seq_id = Some(seq_id);
        let payload = Payload::json(&self.request)?;
        let bytes = payload.bytes.len() as u64;
        let back_off = if bytes <= LONG_PROMPT { 1 } else { 5 };
        let submission = Submission::new("asample", "Sample")
            .seq(seq_id)
            .kind(Kind::Sample(Duration::from_secs(back_off)));
        let session = &sampler.session;
        let _share = session.server.sampling.take(bytes);
        let headers = [("X-Tinker-Sampling-Backpressure", "1")];
        let (submitted, pending) = session.submit_payload(submission, &payload, &headers)?;
        self.sequence_ids = submitted.sample_sequence_ids.unwrap_or_default();
        self.submitted = session.http.clock.now();
        self.pending = Some(pending);
        Ok(())
    }

    /// The sequences under the names that the server gave them when it accepted the request.
    fn named(&mut self, mut answer: SampleResponse) -> SampleResponse {
        let names = std::mem::take(&mut self.sequence_ids);
        for (sequence, name) in answer.sequences.iter_mut().zip(names) {
            sequence.sequence_id = Some(name);
        }
        answer
    }

    /// The answer, unless it is not there when asking once.
    fn answer(&mut self, patience: Patience) -> Result<Option<SampleResponse>> {
        let sampler = self.sampler.clone();
        let session = &sampler.session;
        loop {
            let Some(pending) = &mut self.pending else {
                self.submit()?;
                continue;
            };
            let until = sampler.unless_stuck(self.submitted, patience);
            let error = match sampler.wait(pending, until) {
                Ok(true) => {
                    sampler.has_ended();
                    return Ok(pending.value.take());
                }
                Ok(false) => return Ok(None),
                // Other samples have ended meanwhile.
                Err(error)
                    if error.is_timeout()
                        && sampler.unless_stuck(self.submitted, patience) != until =>
                {
                    continue;
                }
                Err(error) if worth_another(&error, session) => error,
                Err(error) => {
                    self.has_failed = !error.is_timeout();
                    return Err(error);
                }
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

impl<F> Drop for Sample<F> {
    fn drop(&mut self) {
        let is_waited_for = self.finish.is_none() || self.has_failed;
        let pending = self.pending.take().filter(|_| !is_waited_for);
        if let Some(request_id) = pending.and_then(|pending| pending.info.request_id) {
            let session = &self.sampler.session;
            session.notify(Notice::Abandoned { request_id });
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
        finish(self.named(answer)).map(Some)
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
    /// # Errors
    /// [`Error::Unexpected`] for a client so late that its samples cannot be numbered.
    pub fn new(session: Arc<Session>, id: String, path: Option<String>, copy: u64) -> Result<Self> {
        let first = copy.checked_mul(NUMBERS).filter(|&n| n <= i64::MAX as u64);
        let first = first.ok_or_else(|| Error::Unexpected {
            call: Box::new(CallInfo::of("join_sampling_session")),
            problem: format!("client_counter is {copy}, too large to number samples by"),
        })?;
        Ok(Sampler {
            session,
            id,
            path,
            copy,
            next: AtomicU64::new(first),
            completions: Completions::default(),
            last_end: AtomicU64::new(0),
        })
    }

    /// What one question asks of, where samples are waited for together.
    fn target(&self) -> FuturesTarget {
        FuturesTarget::SamplingSession {
            sampling_session_id: self.id.clone(),
            cloned_sampler_id: self.copy,
        }
    }

    fn has_ended(&self) {
        let now = self.session.http.clock.now().as_millis() as u64;
        self.last_end.fetch_max(now, Ordering::Relaxed);
    }

    /// A wait that is shorter if the server may be stuck before its end, as far as is known now.
    fn unless_stuck(&self, submitted: Duration, patience: Patience) -> Patience {
        let config = self.session.server.config.as_ref();
        let is_watched = config.is_none_or(|config| config.sample_enable_stuck_detection);
        let last_end = Duration::from_millis(self.last_end.load(Ordering::Relaxed));
        let stuck = submitted.max(last_end) + MAX_QUIET;
        match patience {
            Patience::Until { at, .. } if is_watched && stuck < at => {
                Patience::Until { at: stuck, limit: MAX_QUIET }
            }
            patience => patience,
        }
    }

    /// By itself, or together with the other samples where the server has it so.
    fn wait(&self, pending: &mut Pending<SampleResponse>, patience: Patience) -> Result<bool> {
        let config = self.session.server.config.as_ref();
        let together = config.is_some_and(|config| config.sample_use_retrieve_futures);
        if let (true, Patience::Until { at, limit }) = (together, patience) {
            self.completions.wait(&self.session, &self.target(), pending, at, limit)?;
        }
        let outcome = pending.wait(&self.session, patience);
        if together && !matches!(outcome, Ok(false)) {
            self.completions.retrieved(&pending.info);
        }
        outcome
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        if let Some(read) = self.completions.unacknowledged(&self.target()) {
            self.session.notify(Notice::Read(read));
        }
    }
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
        let most = config.map_or(u64::MAX, |config| config.sample_max_concurrent_requests.into());
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
