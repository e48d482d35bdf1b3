//! Asking the server for one result until it comes.

use std::{iter::Sum, time::Duration};

use serde::de::DeserializeOwned;
use tinsmith_wire::{self as wire, FutureReply, RetrieveFutureRequest, TryAgain, json};

use crate::{
    CallInfo, Dialect, Error, Event, Result,
    http::connection::{Failure, Format, Http, Payload, Reply, Request},
    http::retry::BillingPauses,
    http::semaphore::Share,
    protocol::session::Session,
};

/// A result, in the forms that it travels in.
pub(crate) trait Answer: DeserializeOwned {
    /// Its protobuf form; most results have none.
    const FROM_PROTOBUF: Option<fn(Vec<u8>) -> wire::Result<Self>> = None;
}

/// How long to wait for a result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Patience {
    /// One question, for a moment.
    Once,
    /// Until this moment, `limit` after the wait began.
    Until { at: Duration, limit: Duration },
}

impl Patience {
    pub fn of(limit: Duration, session: &Session) -> Self {
        let at = session.http.clock.now().saturating_add(limit);
        Patience::Until { at, limit }
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
    /// Answers 400 with an empty body, which a proxy may have made up.
    bad_requests: u32,
    /// Failures in a row to reach the server, and answers 429.
    setbacks: u32,
    billing: BillingPauses,
    /// When a row of answers 5xx began.
    failing_since: Option<Duration>,
    /// When a row of failures to connect began, and the last of them.
    lost_since: Option<Duration>,
    last: Option<String>,
    /// When the user was last told of the queue.
    told: Option<Duration>,
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
/// The longest wait after failures to connect and answers 429.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);
/// How long a server may answer nothing but 5xx.
const MAX_FAILING: Duration = Duration::from_secs(1800);
/// How many answers 400 are forgiven.
const MAX_BAD_REQUESTS: u32 = 3;
/// Between two notes on the same state of the queue.
const TELL_AGAIN: Duration = Duration::from_secs(60);

impl<P> Pending<P> {
    pub fn new(
        sent: &CallInfo,
        request_type: &'static str,
        request_id: String,
        roundtrip: Duration,
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
            bad_requests: 0,
            setbacks: 0,
            billing: BillingPauses::default(),
            failing_since: None,
            lost_since: None,
            last: None,
            told: None,
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
    pub fn wait(&mut self, session: &Session, patience: Patience) -> Result<bool> {
        let http = &session.http;
        while self.value.is_none() {
            let left = match patience {
                Patience::Until { at, limit } => match at.saturating_sub(http.clock.now()) {
                    Duration::ZERO => return Err(self.deadline(limit)),
                    left => left,
                },
                Patience::Once => http.retry.try_timeout,
            };
            let step = self.ask(session, left.min(http.retry.poll_timeout))?;
            match (step, patience) {
                (Step::Ready(value), _) => self.value = Some(value),
                (Step::Again(_), Patience::Once) => return Ok(false),
                (Step::Again(wait), _) if wait < left => http.clock.sleep(wait),
                (Step::Again(_), Patience::Until { limit, .. }) => {
                    return Err(self.deadline(limit));
                }
            }
        }
        Ok(true)
    }

    fn ask(&mut self, session: &Session, timeout: Duration) -> Result<Step<P>> {
        let http = &session.http;
        let payload = Payload::json(&RetrieveFutureRequest {
            request_id: self.info.request_id.clone().unwrap_or_default(),
            allow_metadata_only: self.allow_metadata_only,
        })?;
        let iteration = self.info.attempts.to_string();
        let roundtrip = self.roundtrip.as_secs_f64().to_string();
        let key = http.idempotency_key();
        let mut headers = vec![
            ("X-Tinker-Request-Iteration", iteration.as_str()),
            ("X-Tinker-Request-Type", self.request_type),
            ("X-Idempotency-Key", &key),
        ];
        if self.info.attempts == 0 {
            headers.push(("X-Tinker-Create-Promise-Roundtrip-Time", &roundtrip));
        }
        self.info.attempts += 1;
        let request = Request {
            headers: &headers,
            accept: match P::FROM_PROTOBUF {
                Some(_) => session.server.results(),
                None => Format::Json,
            },
            ..Request::post("/api/v1/retrieve_future", &payload)
        };
        let _share: Option<Share> =
            self.payload_size.map(|size| session.server.receiving.take(size));
        match http.send(&request, timeout) {
            Ok(reply) => self.answered(session, reply),
            // A server may hold the question for longer than we wait: not ready, and no reason to
            // wait more.
            Err(Failure::TimedOut) => Ok(Step::Again(Duration::ZERO)),
            Err(failure) => self.unreachable(http, &failure),
        }
    }

    fn unreachable(&mut self, http: &Http, failure: &Failure) -> Result<Step<P>> {
        let reason = http.auth.redact(&failure.to_string());
        let since = *self.lost_since.get_or_insert(http.clock.now());
        if http.since(since) >= http.retry.submit_timeout {
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
        let http = &session.http;
        self.info.last_status = Some(reply.status);
        self.bytes.received += reply.body.len() as u64;
        (self.lost_since, self.last) = (None, None);
        if reply.status != 429 {
            self.setbacks = 0;
        }
        if reply.status < 500 {
            self.failing_since = None;
        }
        match reply.status {
            200..300 => self.told(http, reply),
            408 => {
                // The body of a 408 is a try_again without its type.
                if let Ok(state) = json::from_slice::<TryAgain>(&reply.body) {
                    self.bad_requests = 0;
                    self.queued(http, state);
                }
                Ok(Step::Again(POLITE))
            }
            // Proxies make these up. Among servers that speak JSON, SkyRL-tx reports failure by a
            // 400 that says why.
            400 if (reply.body.is_empty() || session.server.dialect == Dialect::Protobuf)
                && self.bad_requests < MAX_BAD_REQUESTS =>
            {
                self.bad_requests += 1;
                Ok(Step::Again(POLITE))
            }
            402 => {
                let pause = self.billing.next(http.clock.now(), http.retry.billing_pause);
                let pause = pause.ok_or_else(|| http.refusal(&reply, &self.info))?;
                http.progress.event(&Event::BillingPause(self.info.clone()));
                Ok(Step::Again(pause))
            }
            429 => Ok(self.back_off()),
            410 => Err(Error::Expired {
                call: Box::new(self.info.clone()),
                message: http.words(&reply.body),
            }),
            500.. => {
                let since = *self.failing_since.get_or_insert(http.clock.now());
                if http.since(since) >= MAX_FAILING {
                    return Err(http.refusal(&reply, &self.info));
                }
                Ok(Step::Again(AFTER_FAILURE))
            }
            _ => Err(http.refusal(&reply, &self.info)),
        }
    }

    fn told(&mut self, http: &Http, reply: Reply) -> Result<Step<P>> {
        if let (Format::Protobuf, Some(decode)) = (reply.format, P::FROM_PROTOBUF) {
            let unreadable = |source: wire::Error| Error::Reply {
                call: Box::new(self.info.clone()),
                source: Box::new(source),
                excerpt: "(protobuf)".to_owned(),
            };
            return decode(reply.body).map(Step::Ready).map_err(unreadable);
        }
        let unreadable = |source: wire::Error| Error::Reply {
            call: Box::new(self.info.clone()),
            source: Box::new(source),
            excerpt: http.words(&reply.body),
        };
        let told = FutureReply::from_json(&reply.body).map_err(unreadable)?;
        http.replies.give(reply.body);
        match told {
            FutureReply::Ready(value) => Ok(Step::Ready(value)),
            FutureReply::TryAgain(state) => {
                self.queued(http, state);
                Ok(Step::Again(POLITE))
            }
            FutureReply::CompleteMetadata { response_payload_size } => {
                self.is_complete(response_payload_size);
                Ok(Step::Again(Duration::ZERO))
            }
            FutureReply::Failed(failed) => Err(Error::RequestFailed {
                call: Box::new(self.info.clone()),
                category: failed.category,
                message: http.words(failed.error.as_bytes()),
            }),
        }
    }

    fn queued(&mut self, http: &Http, state: TryAgain) {
        let now = http.clock.now();
        let told = *self.told.get_or_insert(now);
        let is_new = self.info.queue_state != state.queue_state && state.queue_state.is_some();
        // That a request is being worked on is no news at first.
        let is_usual =
            self.info.queue_state.is_none() && state.queue_state.as_deref() == Some("active");
        self.info.queue_state = state.queue_state;
        self.info.queue_state_reason = state.queue_state_reason;
        if (is_new && !is_usual) || now.saturating_sub(told) >= TELL_AGAIN {
            self.told = Some(now);
            http.progress.event(&Event::Queued(self.info.clone()));
        }
    }

    /// 1 s, doubling to 30 s while nothing else comes.
    fn back_off(&mut self) -> Step<P> {
        let wait = Duration::from_secs(1 << self.setbacks.min(5)).min(MAX_BACK_OFF);
        self.setbacks += 1;
        Step::Again(wait)
    }
}
