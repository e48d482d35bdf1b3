//! Asking the server for one result until it comes.

use std::{
    iter::Sum,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tinsmith_wire::{self as wire, FutureReply, RetrieveFutureRequest, TryAgain, json};

use crate::{
    CallInfo, Error, Event, Result,
    http::{
        api::Api,
        connection::{Failure, Limits},
        message::{Format, Payload, Reply, Request, Watch},
        retry::BillingPauses,
        semaphore::Permit,
    },
    observe::trace,
    protocol::{answer::Answer, endpoints::RETRIEVE_FUTURE, session::Session},
};

/// How long to wait for a result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Deadline {
    /// One question, for a moment.
    Once,
    /// Until this moment, `limit` after the wait began.
    Until { at: Duration, limit: Duration },
}

impl Deadline {
    pub fn of(limit: Duration, session: &Session) -> Self {
        let at = session.api.clock.now().saturating_add(limit);
        Deadline::Until { at, limit }
    }
}

/// One request that the server has accepted, and what it has said of it since.
#[derive(Debug)]
pub(crate) struct Pending<P> {
    pub info: CallInfo,
    request_type: &'static str,
    /// How long the request took to be accepted.
    roundtrip: Duration,
    allow_metadata_only: bool,
    /// Size of a result that waits to be fetched by itself.
    payload_size: Option<u64>,
    /// Most bytes that the result may have.
    max_result: u64,
    /// Successes in a row that nobody can read.
    unreadable: u32,
    /// Answers in a row that the result is complete, without the result.
    complete: u32,
    /// Answers 400 with an empty body, which a proxy may have made up.
    bad_requests: u32,
    /// Failures in a row to reach the server, and answers 409, 425 and 429.
    failures: u32,
    billing: BillingPauses,
    /// When a row of answers 5xx began.
    failing_since: Option<Duration>,
    /// When a row of failures to connect began, and the last of them.
    lost_since: Option<Duration>,
    last: Option<String>,
    /// When the user was last told of the queue.
    told: Option<Duration>,
    /// How often the user was told that this is waited for.
    waits_told: Arc<AtomicU64>,
    /// When it was first waited for.
    waiting_since: Option<Duration>,
    /// Bodies of the request and of its result.
    pub bytes: Bytes,
    pub value: Option<P>,
}

/// Sizes of bodies.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bytes {
    pub sent: u64,
    pub received: u64,
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Bytes>>(all: I) -> Bytes {
        all.fold(Bytes::default(), |sum, one| Bytes {
            sent: sum.sent + one.sent,
            received: sum.received + one.received,
        })
    }
}

/// What one question brought.
enum Step<P> {
    Ready(P),
    /// Not yet: ask again after this time.
    Again(Duration),
}

/// Between two questions when the server answers at once that it is not ready.
const POLITE: Duration = Duration::from_millis(100);
/// After an answer 5xx.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// The longest wait after failures to connect and answers 409, 425 and 429.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);
/// How long a server may answer nothing but 5xx.
const MAX_FAILING: Duration = Duration::from_secs(1800);
/// How many answers 400 are forgiven.
const MAX_BAD_REQUESTS: u32 = 3;
/// How many successes in a row that nobody can read are too many.
const MAX_UNREADABLE: u32 = 5;
/// How often a result may be called complete without being given.
const MAX_COMPLETE: u32 = 5;
/// How far beyond its deadline a program must have slept to be asked once more.
const OVERSLEPT: Duration = Duration::from_secs(5);
/// How long a result is waited for before the user is told.
const FIRST_TOLD: Duration = Duration::from_secs(5);
/// Between two notes on the same state of the queue.
const TELL_AGAIN: Duration = Duration::from_secs(60);

impl<P> Pending<P> {
    pub fn new(
        sent: &CallInfo,
        request_type: &'static str,
        request_id: String,
        roundtrip: Duration,
        max_result: u64,
    ) -> Self {
        Pending {
            info: CallInfo {
                seq_id: sent.seq_id,
                request_id: Some(request_id),
                ..CallInfo::of(sent.call)
            },
            request_type,
            roundtrip,
            allow_metadata_only: true,
            payload_size: None,
            max_result,
            unreadable: 0,
            complete: 0,
            bad_requests: 0,
            failures: 0,
            billing: BillingPauses::default(),
            failing_since: None,
            lost_since: None,
            last: None,
            told: None,
            waits_told: Arc::default(),
            waiting_since: None,
            bytes: Bytes::default(),
            value: None,
        }
    }

    /// The result is known to be there, of this size: it can be fetched at once.
    pub fn is_complete(&mut self, size: Option<u64>) {
        self.allow_metadata_only = false;
        self.payload_size = size;
    }

    pub fn deadline(&self, limit: Duration) -> Error {
        Error::Deadline { call: Box::new(self.info.clone()), limit, last: self.last.clone() }
    }
}

impl<P: Answer> Pending<P> {
    /// Asks until the result is there. False: not ready, having asked once.
    pub fn wait(&mut self, session: &Session, until: Deadline) -> Result<bool> {
        let api = &session.api;
        while self.value.is_none() {
            let left = match until {
                Deadline::Until { at, limit } => match at.saturating_sub(api.clock.now()) {
                    Duration::ZERO => return Err(self.deadline(limit)),
                    left => left,
                },
                Deadline::Once => api.retry.submit_timeout,
            };
            let silence = match until {
                Deadline::Until { .. } => api.retry.poll_timeout,
                Deadline::Once => api.retry.try_timeout,
            };
            api.check_cancelled(&self.info)?;
            let step = self.ask(session, Limits { total: left, silence })?;
            match (step, until) {
                (Step::Ready(value), _) => self.value = Some(value),
                (Step::Again(_), Deadline::Once) => return Ok(false),
                (Step::Again(wait), _) if wait < left => {
                    api.sleep(wait, &self.info)?;
                    self.ask_if_overslept(session, until)?;
                }
                (Step::Again(_), Deadline::Until { limit, .. }) => {
                    return Err(self.deadline(limit));
                }
            }
        }
        Ok(true)
    }

    /// After a sleep that took the program far beyond its deadline, a closed lid say, the result is
    /// asked for once more: it may be there.
    fn ask_if_overslept(&mut self, session: &Session, until: Deadline) -> Result<()> {
        let api = &session.api;
        if let Deadline::Until { at, .. } = until
            && api.since(at) > OVERSLEPT
        {
            let limits =
                Limits { total: api.retry.attempt_timeout, silence: api.retry.try_timeout };
            if let Step::Ready(value) = self.ask(session, limits)? {
                self.value = Some(value);
            }
        }
        Ok(())
    }

    fn ask(&mut self, session: &Session, limits: Limits) -> Result<Step<P>> {
        let api = &session.api;
        let path = RETRIEVE_FUTURE.path("");
        let payload = Payload::json(&RetrieveFutureRequest {
            request_id: self.info.request_id.clone().unwrap_or_default(),
            allow_metadata_only: self.allow_metadata_only,
        })?;
        let iteration = self.info.attempts.to_string();
        let roundtrip = self.roundtrip.as_secs_f64().to_string();
        let key = api.idempotency_key();
        let mut headers = vec![
            ("X-Tinker-Request-Iteration", iteration.as_str()),
            ("X-Tinker-Request-Type", self.request_type),
            ("X-Idempotency-Key", &key),
        ];
        if self.info.attempts == 0 {
            headers.push(("X-Tinker-Create-Promise-Roundtrip-Time", &roundtrip));
        }
        self.info.attempts += 1;
        let watch = self.watch(api);
        let request = Request {
            watch: Some(&watch),
            headers: &headers,
            accept: match P::FROM_PROTOBUF {
                Some(_) => session.flavour.bulk_format(),
                None => Format::Json,
            },
            max_answer: self.max_result,
            ..Request::post(&path, &payload)
        };
        let _permit: Option<Permit<'_>> =
            self.payload_size.map(|size| session.receiving.take(size));
        let outcome = {
            let _span = trace::request(&self.info);
            api.send(&request, limits)
        };
        match outcome {
            Ok(reply) => self.answered(session, reply),
            // A server may hold the question for longer than we wait: not ready, and no reason to
            // wait more.
            Err(Failure::TimedOut) => {
                self.last = Some(format!("no answer to a question within {:?}", limits.silence));
                Ok(Step::Again(Duration::ZERO))
            }
            Err(failure) => self.unreachable(api, &failure),
        }
    }

    /// Tells the user, on whichever thread waits, of long waiting.
    fn watch(&mut self, api: &Api) -> Watch {
        let waited = api.since(*self.waiting_since.get_or_insert(api.clock.now()));
        let (progress, told) = (api.progress.clone(), self.waits_told.clone());
        let call = self.info.clone();
        Watch(Arc::new(move |silent| {
            let waited = waited + silent;
            let times = told.load(Ordering::Relaxed);
            if waited >= FIRST_TOLD + TELL_AGAIN * u32::try_from(times).unwrap_or(u32::MAX) {
                told.store(times + 1, Ordering::Relaxed);
                progress.event(&Event::Waiting { call: call.clone(), waited });
            }
        }))
    }

    fn unreachable(&mut self, api: &Api, failure: &Failure) -> Result<Step<P>> {
        if matches!(failure, Failure::Cancelled) {
            return Err(Error::Cancelled { call: Box::new(self.info.clone()) });
        }
        let reason = api.auth.redact(&failure.to_string());
        let since = *self.lost_since.get_or_insert(api.clock.now());
        if !failure.may_pass() || api.since(since) >= api.retry.submit_timeout {
            return Err(Error::Unreachable {
                call: Box::new(self.info.clone()),
                reason,
                maybe_received: true,
            });
        }
        self.last = Some(reason);
        Ok(self.back_off())
    }

    fn answered(&mut self, session: &Session, reply: Reply) -> Result<Step<P>> {
        let api = &session.api;
        self.info.last_status = Some(reply.status);
        self.bytes.received += reply.body.len() as u64;
        (self.lost_since, self.last) = (None, None);
        if !matches!(reply.status, 409 | 425 | 429) {
            self.failures = 0;
        }
        if reply.status < 500 {
            self.failing_since = None;
        }
        match reply.status {
            200..300 => self.told(api, reply),
            408 => {
                // The body of a 408 is a try_again without its type.
                if let Ok(state) = json::from_slice::<TryAgain>(&reply.body) {
                    self.bad_requests = 0;
                    self.queued(api, state);
                }
                Ok(Step::Again(POLITE))
            }
            400 if !session.flavour.fails_by_bad_request(&reply.body)
                && self.bad_requests < MAX_BAD_REQUESTS =>
            {
                self.bad_requests += 1;
                Ok(Step::Again(POLITE))
            }
            402 => {
                let pause = self.billing.next(api.clock.now(), api.retry.billing_pause);
                let pause = pause.ok_or_else(|| api.refusal(&reply, &self.info))?;
                api.progress.event(&Event::BillingPause(self.info.clone()));
                Ok(Step::Again(pause))
            }
            409 | 425 | 429 => Ok(self.back_off()),
            410 => Err(Error::Expired {
                call: Box::new(self.info.clone()),
                message: api.words(&reply.body),
            }),
            500.. => {
                let since = *self.failing_since.get_or_insert(api.clock.now());
                if api.since(since) >= MAX_FAILING {
                    return Err(api.refusal(&reply, &self.info));
                }
                Ok(Step::Again(AFTER_FAILURE))
            }
            _ => Err(api.refusal(&reply, &self.info)),
        }
    }

    fn told(&mut self, api: &Api, reply: Reply) -> Result<Step<P>> {
        if let (Format::Protobuf, Some(decode)) = (reply.format, P::FROM_PROTOBUF) {
            return match decode(reply.body) {
                Ok(value) => Ok(Step::Ready(value)),
                Err(source) => self.unreadable(api, source, "(protobuf)".to_owned()),
            };
        }
        let told = match FutureReply::from_json(&reply.body) {
            Ok(told) => told,
            Err(source) => return self.unreadable(api, source, api.words(&reply.body)),
        };
        api.connection.replies.give(reply.body);
        self.unreadable = 0;
        match told {
            FutureReply::Ready(value) => Ok(Step::Ready(value)),
            FutureReply::TryAgain(state) => {
                self.complete = 0;
                self.queued(api, state);
                Ok(Step::Again(POLITE))
            }
            FutureReply::CompleteMetadata { response_payload_size } => {
                self.complete += 1;
                self.is_complete(response_payload_size);
                match self.complete {
                    1 => Ok(Step::Again(Duration::ZERO)),
                    2..=MAX_COMPLETE => Ok(Step::Again(AFTER_FAILURE)),
                    n => Err(Error::Unexpected {
                        call: Box::new(self.info.clone()),
                        problem: format!(
                            "the server says {n} times that the result is complete, and does not give it"
                        ),
                    }),
                }
            }
            FutureReply::Failed(failed) => Err(Error::RequestFailed {
                call: Box::new(self.info.clone()),
                category: failed.category,
                message: api.words(failed.error.as_bytes()),
            }),
        }
    }

    /// A success that nobody can read, a login page say: asking again is free.
    fn unreadable(&mut self, api: &Api, source: wire::Error, excerpt: String) -> Result<Step<P>> {
        api.connection.start_anew();
        self.unreadable += 1;
        if self.unreadable < MAX_UNREADABLE {
            self.last = Some(format!("{source}; the answer begins {excerpt:?}"));
            return Ok(Step::Again(AFTER_FAILURE));
        }
        Err(Error::Reply { call: Box::new(self.info.clone()), source: Box::new(source), excerpt })
    }

    fn queued(&mut self, api: &Api, state: TryAgain) {
        let now = api.clock.now();
        let told = *self.told.get_or_insert(now);
        let is_new = self.info.queue_state != state.queue_state && state.queue_state.is_some();
        // That a request is being worked on is no news at first.
        let is_usual =
            self.info.queue_state.is_none() && state.queue_state.as_deref() == Some("active");
        self.info.queue_state = state.queue_state;
        self.info.queue_state_reason = state.queue_state_reason;
        if (is_new && !is_usual) || now.saturating_sub(told) >= TELL_AGAIN {
            self.told = Some(now);
            api.progress.event(&Event::Queued(self.info.clone()));
        }
    }

    /// 1 s, doubling to 30 s while nothing else comes.
    fn back_off(&mut self) -> Step<P> {
        let wait = Duration::from_secs(1 << self.failures.min(5)).min(MAX_BACK_OFF);
        self.failures += 1;
        Step::Again(wait)
    }
}
