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
    http::{message::Payload, retry::Purpose},
    protocol::{
        background::Notice,
        endpoints::SAMPLE,
        future::Wait,
        poll::{Deadline, Pending},
        session::Session,
        submit::Submission,
    },
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
        let submission = Submission::new(&SAMPLE)
            .seq(seq_id)
            .purpose(Purpose::Sample(Duration::from_secs(back_off)))
            .headers(&[("X-Tinker-Sampling-Backpressure", "1")])
            .max_result(max_result(&self.request));
        let session = &sampler.session;
        let _permit = session.sampling.take(bytes);
        let (submitted, pending) = session.submit_payload(submission, &payload)?;
        self.sequence_ids = submitted.sample_sequence_ids.unwrap_or_default();
        self.submitted = session.api.clock.now();
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
    fn answer(&mut self, until: Deadline) -> Result<Option<SampleResponse>> {
        let sampler = self.sampler.clone();
        let session = &sampler.session;
        loop {
            let Some(pending) = &mut self.pending else {
                self.submit()?;
                continue;
            };
            let until = sampler.unless_stuck(self.submitted, until);
            let error = match sampler.wait(pending, until) {
                Ok(true) => {
                    sampler.has_ended();
                    let answer = pending.value.take();
                    return match answer.as_ref().and_then(|it| problem(&self.request, it)) {
                        None => Ok(answer),
                        Some(problem) => {
                            self.has_failed = true;
                            let call = Box::new(pending.info.clone());
                            Err(Error::Unexpected { call, problem })
                        }
                    };
                }
                Ok(false) => return Ok(None),
                // Other samples have ended meanwhile.
                Err(error)
                    if error.is_timeout()
                        && sampler.unless_stuck(self.submitted, until) != until =>
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
            let Deadline::Until { at, .. } = until else {
                return Ok(None);
            };
            let clock = &session.api.clock;
            let wait = session.api.retry.delay(self.failures, clock.random());
            if clock.now() + wait >= at {
                return Err(error);
            }
            session.api.progress.event(&Event::Retry {
                call: CallInfo::of("asample"),
                reason: error.to_string(),
                wait,
            });
            session.api.sleep(wait, &CallInfo::of("asample"))?;
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
    fn wait(&mut self, until: Deadline) -> Result<Option<T>> {
        if self.finish.is_none() {
            return Err(Error::ResultTaken);
        }
        let Some(answer) = self.answer(until)? else {
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
        let now = self.session.api.clock.now().as_millis() as u64;
        self.last_end.fetch_max(now, Ordering::Relaxed);
    }

    /// A wait that is shorter if the server may be stuck before its end, as far as is known now.
    fn unless_stuck(&self, submitted: Duration, until: Deadline) -> Deadline {
        let is_watched = self.session.flavour.sampling.detects_stuck;
        let last_end = Duration::from_millis(self.last_end.load(Ordering::Relaxed));
        let stuck = submitted.max(last_end) + MAX_QUIET;
        match until {
            Deadline::Until { at, .. } if is_watched && stuck < at => {
                Deadline::Until { at: stuck, limit: MAX_QUIET }
            }
            until => until,
        }
    }

    /// By itself, or together with the other samples where the server has it so.
    fn wait(&self, pending: &mut Pending<SampleResponse>, until: Deadline) -> Result<bool> {
        let together = self.session.flavour.sampling.waits_together;
        if let (true, Deadline::Until { at, limit }) = (together, until) {
            self.completions.wait(&self.session, &self.target(), pending, at, limit)?;
        }
        let outcome = pending.wait(&self.session, until);
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

/// What is wrong with the answer to `request`.
fn problem(request: &SampleRequest, answer: &SampleResponse) -> Option<String> {
    let (wanted, found) = (request.num_samples as usize, answer.sequences.len());
    if wanted != found {
        return Some(format!("{found} sequences for num_samples {wanted}"));
    }
    answer.sequences.iter().enumerate().find_map(|(i, sequence)| {
        let (tokens, logprobs) = (sequence.tokens.len(), sequence.logprobs.as_ref()?.len());
        (tokens != logprobs)
            .then(|| format!("sequence {i} has {logprobs} logprobs for {tokens} tokens"))
    })
}

/// Most bytes that the answer to `request` may have.
fn max_result(request: &SampleRequest) -> u64 {
    /// A number in JSON, with a token beside it.
    const PER_NUMBER: u64 = 48;
    /// Where neither the request nor the client knows how much the model may write.
    const LONGEST: u64 = 1 << 17;
    let longest = request.sampling_params.max_tokens.map_or(LONGEST, u64::from);
    let prompt = request.prompt.len().map_or(LONGEST, |len| len as u64);
    let targets = request.target_prompt_logprobs.as_ref().map_or(0, |it| it.elem_count() as u64);
    let each = 1 + u64::from(request.topk_sample_logprobs);
    let before =
        1 + u64::from(request.topk_prompt_logprobs) + u64::from(request.prompt_alt_tokens_k);
    let sampled = u64::from(request.num_samples).saturating_mul(longest).saturating_mul(each);
    let numbers = sampled.saturating_add(prompt.saturating_mul(before)).saturating_add(targets);
    numbers.saturating_mul(PER_NUMBER).saturating_add(16 << 20)
}

/// Sampling changes nothing on the server, so what was lost can be done again.
fn worth_another(error: &Error, session: &Session) -> bool {
    if !session.flavour.sampling.allows_retries {
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
        let most = session.flavour.sampling.max_concurrent;
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
