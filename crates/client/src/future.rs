//! Results that the server has promised.

use std::{fmt, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use tinsmith_wire::{FutureReply, RetrieveFutureRequest, TryAgain, json};

use crate::{
    CallInfo, Error, Result,
    session::Session,
    transport::{Failure, Http, Reply},
};

/// A request that the server has accepted and whose result comes later.
///
/// Dropping it does not undo the request.
///
/// ```
/// # use std::time::Duration;
/// # use tinsmith_client::{AdamParams, LoraConfig, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
/// let mut step = training.optim_step(&AdamParams::default())?; // accepted
/// let done = match step.try_result()? {
///     Some(done) => done,
///     None => step.result_timeout(Duration::from_secs(60))?, // and asked again after a timeout, if you like
/// };
/// assert_eq!(done.metrics["grad_norm"], 0.0);
/// # anyhow::Ok(())
/// ```
#[must_use = "the request runs on the server; result() waits for it and tells whether it failed"]
pub struct ApiFuture<T> {
    wait: Box<dyn Wait<T> + Send>,
    limit: Duration,
}

impl<T> fmt::Debug for ApiFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiFuture({})", self.wait.describe())
    }
}

impl<T> ApiFuture<T> {
    /// Waits for the result, for [`RetryConfig::result_timeout`](crate::RetryConfig::result_timeout) at most.
    ///
    /// # Errors
    /// [`Error::RequestFailed`] when the server could not execute the request; [`Error::Deadline`] when time runs out;
    /// [`Error::Expired`], [`Error::Status`], [`Error::Reply`].
    pub fn result(mut self) -> Result<T> {
        let limit = self.limit;
        self.result_timeout(limit)
    }

    /// Waits this long at most. After [`Error::Deadline`] it can be asked again.
    ///
    /// # Errors
    /// As [`result`](Self::result), and [`Error::ResultTaken`] after the result was given.
    pub fn result_timeout(&mut self, limit: Duration) -> Result<T> {
        let result = self.wait.wait(Some(limit))?;
        // Without a result in time there is an error, so this is never none.
        result.ok_or(Error::ResultTaken)
    }

    /// Asks the server once, for a moment. `None`: not ready.
    ///
    /// # Errors
    /// As [`result_timeout`](Self::result_timeout), except for time.
    pub fn try_result(&mut self) -> Result<Option<T>> {
        self.wait.wait(None)
    }

    /// The future of one request.
    pub(crate) fn single<P>(
        session: Arc<Session>,
        pending: Pending<P>,
        finish: impl FnOnce(&Arc<Session>, P) -> Result<T> + Send + 'static,
    ) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        T: 'static,
    {
        Self::joined(
            session,
            vec![pending],
            move |session, mut parts, _| match parts.pop() {
                Some(part) => finish(session, part),
                None => Err(Error::ResultTaken),
            },
        )
    }

    /// The future of several requests whose results are put together; `finish` also learns how many bytes they took.
    pub(crate) fn joined<P>(
        session: Arc<Session>,
        pending: Vec<Pending<P>>,
        finish: impl FnOnce(&Arc<Session>, Vec<P>, u64) -> Result<T> + Send + 'static,
    ) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        T: 'static,
    {
        ApiFuture {
            limit: session.http.retry.result_timeout,
            wait: Box::new(Joined {
                session,
                pending,
                finish: Some(finish),
            }),
        }
    }
}

trait Wait<T> {
    /// Waits this long, or asks just once. `None` only in the latter case.
    fn wait(&mut self, limit: Option<Duration>) -> Result<Option<T>>;
    fn describe(&self) -> String;
}

struct Joined<P, F> {
    session: Arc<Session>,
    pending: Vec<Pending<P>>,
    finish: Option<F>,
}

impl<T, P, F> Wait<T> for Joined<P, F>
where
    P: DeserializeOwned,
    F: FnOnce(&Arc<Session>, Vec<P>, u64) -> Result<T>,
{
    fn wait(&mut self, limit: Option<Duration>) -> Result<Option<T>> {
        if self.finish.is_none() {
            return Err(Error::ResultTaken);
        }
        let http = &self.session.http;
        let until = limit.map(|limit| (http.clock.now().saturating_add(limit), limit));
        for pending in &mut self.pending {
            if !pending.wait(http, until)? {
                return Ok(None);
            }
        }
        let finish = self.finish.take().ok_or(Error::ResultTaken)?;
        let received = self.pending.iter().map(|pending| pending.received).sum();
        let parts = self
            .pending
            .drain(..)
            .filter_map(|pending| pending.value)
            .collect();
        finish(&self.session, parts, received).map(Some)
    }

    fn describe(&self) -> String {
        let parts: Vec<String> = self
            .pending
            .iter()
            .map(|pending| pending.info.to_string())
            .collect();
        parts.join("; ")
    }
}

/// One request that the server has accepted, and what it has said of it since.
#[derive(Debug)]
pub(crate) struct Pending<P> {
    info: CallInfo,
    request_type: &'static str,
    allow_metadata_only: bool,
    /// Answers 400 with an empty body, which a proxy may have made up.
    bad_requests: u32,
    /// Failures in a row to reach the server, and answers 429.
    setbacks: u32,
    /// When a row of answers 5xx began.
    failing_since: Option<Duration>,
    /// When a row of failures to connect began, and the last of them.
    lost_since: Option<Duration>,
    last: Option<String>,
    received: u64,
    value: Option<P>,
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
/// After an answer 402, billing.
const AFTER_BILLING: Duration = Duration::from_secs(5);
/// The longest wait after failures to connect and answers 429.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);
/// How long a server may answer nothing but 5xx.
const MAX_FAILING: Duration = Duration::from_secs(1800);
/// How many empty answers 400 are forgiven.
const MAX_BAD_REQUESTS: u32 = 3;

impl<P> Pending<P> {
    pub fn new(
        call: &'static str,
        request_type: &'static str,
        seq_id: Option<u64>,
        request_id: String,
    ) -> Self {
        Pending {
            info: CallInfo {
                call,
                seq_id,
                request_id: Some(request_id),
                ..CallInfo::default()
            },
            request_type,
            allow_metadata_only: true,
            bad_requests: 0,
            setbacks: 0,
            failing_since: None,
            lost_since: None,
            last: None,
            received: 0,
            value: None,
        }
    }
}

impl<P: DeserializeOwned> Pending<P> {
    /// Asks until `until`, or once. False: not ready, having asked once.
    fn wait(&mut self, http: &Http, until: Option<(Duration, Duration)>) -> Result<bool> {
        while self.value.is_none() {
            let left = match until {
                Some((at, limit)) => match at.saturating_sub(http.clock.now()) {
                    Duration::ZERO => return Err(self.deadline(limit)),
                    left => left,
                },
                None => http.retry.try_timeout,
            };
            match (self.ask(http, left.min(http.retry.poll_timeout))?, until) {
                (Step::Ready(value), _) => self.value = Some(value),
                (Step::Again(_), None) => return Ok(false),
                (Step::Again(wait), Some(_)) if wait < left => http.clock.sleep(wait),
                (Step::Again(_), Some((_, limit))) => return Err(self.deadline(limit)),
            }
        }
        Ok(true)
    }

    fn deadline(&self, limit: Duration) -> Error {
        Error::Deadline {
            call: Box::new(self.info.clone()),
            limit,
            last: self.last.clone(),
        }
    }

    fn ask(&mut self, http: &Http, timeout: Duration) -> Result<Step<P>> {
        let question = RetrieveFutureRequest {
            request_id: self.info.request_id.clone().unwrap_or_default(),
            allow_metadata_only: self.allow_metadata_only,
        };
        let body = json::to_vec(&question).map_err(Error::Encode)?;
        let iteration = self.info.attempts.to_string();
        let headers = [
            ("X-Tinker-Request-Iteration", iteration.as_str()),
            ("X-Tinker-Request-Type", self.request_type),
            ("X-Idempotency-Key", &http.idempotency_key()),
        ];
        self.info.attempts += 1;
        match http.send("/api/v1/retrieve_future", Some(&body), &headers, timeout) {
            Ok(reply) => self.answered(http, reply),
            // A server may hold the question for longer than we wait: not ready, and no reason to wait more.
            Err(Failure::TimedOut) => Ok(Step::Again(Duration::ZERO)),
            Err(failure) => self.unreachable(http, &failure),
        }
    }

    fn unreachable(&mut self, http: &Http, failure: &Failure) -> Result<Step<P>> {
        let reason = http.redact(&failure.to_string());
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

    fn answered(&mut self, http: &Http, reply: Reply) -> Result<Step<P>> {
        self.info.last_status = Some(reply.status);
        self.received += reply.body.len() as u64;
        (self.lost_since, self.last) = (None, None);
        if reply.status != 429 {
            self.setbacks = 0;
        }
        if reply.status < 500 {
            self.failing_since = None;
        }
        match reply.status {
            200..300 => self.told(http, &reply.body),
            408 => {
                // The body of a 408 is a try_again without its type.
                if let Ok(state) = json::from_slice::<TryAgain>(&reply.body) {
                    self.bad_requests = 0;
                    self.queued(state);
                }
                Ok(Step::Again(POLITE))
            }
            400 if reply.body.is_empty() && self.bad_requests < MAX_BAD_REQUESTS => {
                self.bad_requests += 1;
                Ok(Step::Again(POLITE))
            }
            402 => Ok(Step::Again(AFTER_BILLING)),
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

    fn told(&mut self, http: &Http, body: &[u8]) -> Result<Step<P>> {
        let reply = FutureReply::from_json(body).map_err(|source| Error::Reply {
            call: Box::new(self.info.clone()),
            source,
            excerpt: http.words(body),
        })?;
        match reply {
            FutureReply::Ready(value) => Ok(Step::Ready(value)),
            FutureReply::TryAgain(state) => {
                self.queued(state);
                Ok(Step::Again(POLITE))
            }
            FutureReply::CompleteMetadata { .. } => {
                self.allow_metadata_only = false;
                Ok(Step::Again(Duration::ZERO))
            }
            FutureReply::Failed(failed) => Err(Error::RequestFailed {
                call: Box::new(self.info.clone()),
                category: failed.category,
                message: http.words(failed.error.as_bytes()),
            }),
        }
    }

    fn queued(&mut self, state: TryAgain) {
        self.info.queue_state = state.queue_state;
        self.info.queue_state_reason = state.queue_state_reason;
    }

    /// 1 s, doubling to 30 s while nothing else comes.
    fn back_off(&mut self) -> Step<P> {
        let wait = Duration::from_secs(1 << self.setbacks.min(5)).min(MAX_BACK_OFF);
        self.setbacks += 1;
        Step::Again(wait)
    }
}
