//! One call to a server, however many HTTP requests it takes.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::de::DeserializeOwned;
use tinsmith_wire::{AuthTokenRequest, AuthTokenResponse, json};
use ureq::http::Method;

use crate::{
    CallInfo, CancelToken, Clock, Error, Event, Progress, Result, RetryConfig, Traffic,
    error::leaves_open,
    http::{
        auth::{Auth, TOKEN_PATH},
        connection::{Connection, Failure, Limits},
        error_body,
        message::{Payload, Reply, Request},
        retry::{BillingPauses, Purpose, RetryDecision, decide},
    },
    observe::trace,
};

/// Most times in a row that a success whose body cannot be read is asked for again.
const MAX_UNREADABLE: u32 = 5;
/// Between two looks whether a wait is cancelled.
const CANCEL_SLICE: Duration = Duration::from_millis(400);

/// A server, the key to it, and the manners to talk to it.
pub(crate) struct Api {
    pub connection: Connection,
    pub auth: Auth,
    pub retry: RetryConfig,
    pub clock: Arc<dyn Clock>,
    pub progress: Arc<dyn Progress>,
    cancel: Option<CancelToken>,
    /// Whether a conflict (409) of this body may pass.
    may_conflict_pass: fn(&[u8]) -> bool,
    /// Whether anything was answered with success: until then this may be the wrong server.
    is_met: AtomicBool,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("connection", &self.connection)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

/// An attempt without success.
struct FailedAttempt {
    error: Error,
    decision: RetryDecision,
    asked_wait: Option<Duration>,
}

impl Api {
    pub fn new(
        connection: Connection,
        auth: Auth,
        retry: RetryConfig,
        clock: Arc<dyn Clock>,
        progress: Arc<dyn Progress>,
        cancel: Option<CancelToken>,
        may_conflict_pass: fn(&[u8]) -> bool,
    ) -> Self {
        let is_met = AtomicBool::new(false);
        Api { connection, auth, retry, clock, progress, cancel, may_conflict_pass, is_met }
    }

    /// Exchanges the key for a token, which is sent in its place from then on.
    pub fn exchange_key(&self) -> Result<()> {
        let payload = Payload::json(&AuthTokenRequest {})?;
        let mut info = CallInfo::of("auth/token");
        let request = Request { hides_answer: true, ..Request::post(TOKEN_PATH, &payload) };
        let reply = self.exchange(&request, &mut info, Purpose::Start)?;
        let answer: AuthTokenResponse =
            json::from_slice(&reply.body).map_err(|source| Error::Reply {
                call: Box::new(info),
                source: Box::new(source),
                // The body may hold a secret.
                excerpt: String::new(),
            })?;
        self.auth.use_token(answer.jwt);
        Ok(())
    }

    /// Reads a JSON answer.
    pub fn read<T: DeserializeOwned>(&self, reply: &Reply, info: &CallInfo) -> Result<T> {
        json::from_slice(&reply.body).map_err(|source| Error::Reply {
            call: Box::new(info.clone()),
            source: Box::new(source),
            excerpt: self.words(&reply.body),
        })
    }

    /// As [`exchange`](Self::exchange), and reads the answer, which is given too. A success that
    /// nobody can read, a login page say, is no answer: where the request may be repeated it is.
    pub fn exchange_and_read<T: DeserializeOwned>(
        &self,
        request: &Request<'_>,
        info: &mut CallInfo,
        purpose: Purpose,
    ) -> Result<(T, Reply)> {
        let mut unreadable = 0;
        // What has never answered as a trainer is none.
        let is_stranger = purpose == Purpose::Start || !self.is_met.load(Ordering::Relaxed);
        let (start, limit) = (self.clock.now(), self.limit(purpose));
        loop {
            let reply = self.exchange_since(start, request, info, purpose, |_| false)?;
            let error = match self.read(&reply, info) {
                Ok(answer) => {
                    self.is_met.store(true, Ordering::Relaxed);
                    return Ok((answer, reply));
                }
                Err(error) => error,
            };
            info.is_uncertain = true;
            self.connection.start_anew();
            unreadable += 1;
            if is_stranger || unreadable >= MAX_UNREADABLE || self.may_do_twice(info, purpose) {
                return Err(error);
            }
            let wait = self.retry.delay(unreadable, self.clock.random());
            if self.since(start) + wait >= limit {
                return Err(error);
            }
            self.tell_retry(info, error.to_string(), wait);
            self.sleep(wait, info)?;
        }
    }

    /// Sends the same bytes until they are answered with success, refused, or given up on.
    pub fn exchange(
        &self,
        request: &Request<'_>,
        info: &mut CallInfo,
        purpose: Purpose,
    ) -> Result<Reply> {
        self.exchange_since(self.clock.now(), request, info, purpose, |_| false)
    }

    /// As [`exchange`](Self::exchange), where a redirect is the answer that is hoped for.
    pub fn exchange_for_redirect(
        &self,
        request: &Request<'_>,
        info: &mut CallInfo,
        purpose: Purpose,
    ) -> Result<Reply> {
        let is_success: fn(&Reply) -> bool = |reply| reply.location.is_some();
        self.exchange_since(self.clock.now(), request, info, purpose, is_success)
    }

    /// Sends a request once. `None`: there is no answer yet, or none that lasts.
    pub fn try_exchange(
        &self,
        request: &Request<'_>,
        info: &mut CallInfo,
        purpose: Purpose,
        limits: Limits,
    ) -> Result<Option<Reply>> {
        self.check_cancelled(info)?;
        let key = self.idempotency_key();
        match self.attempt(request, &key, info, purpose, |_| false, limits) {
            Ok(reply) => Ok(Some(reply)),
            Err(failed) if failed.decision == RetryDecision::Final => Err(failed.error),
            Err(_) => Ok(None),
        }
    }

    /// How long a call may take in all.
    fn limit(&self, purpose: Purpose) -> Duration {
        match purpose {
            Purpose::Start => self.retry.start_timeout,
            Purpose::Query if !self.is_met.load(Ordering::Relaxed) => self.retry.start_timeout,
            Purpose::Query | Purpose::Submit | Purpose::Save | Purpose::Sample(_) => {
                self.retry.submit_timeout
            }
        }
    }

    /// As [`exchange`](Self::exchange), for a call that began at `start`; `is_success` tells of an
    /// answer besides 2xx whether it is what was hoped for.
    fn exchange_since(
        &self,
        start: Duration,
        request: &Request<'_>,
        info: &mut CallInfo,
        purpose: Purpose,
        is_success: fn(&Reply) -> bool,
    ) -> Result<Reply> {
        let retry = &self.retry;
        let limit = self.limit(purpose);
        if matches!(purpose, Purpose::Start | Purpose::Query) {
            info.url = Some(format!("{}{}", self.connection.base, request.path));
        }
        let mut key = self.idempotency_key();
        let mut billing = BillingPauses::default();
        let mut paused = Duration::ZERO;
        loop {
            self.check_cancelled(info)?;
            let left = limit.saturating_sub(self.since(start).saturating_sub(paused));
            let limits = Limits { total: left, silence: retry.attempt_timeout };
            let failed = match self.attempt(request, &key, info, purpose, is_success, limits) {
                Ok(reply) => return Ok(reply),
                Err(failed) => failed,
            };
            if failed.decision == RetryDecision::Final {
                return Err(failed.error);
            }
            if info.last_status == Some(402) {
                let Some(pause) = billing.next(self.clock.now(), retry.billing_pause) else {
                    return Err(failed.error);
                };
                self.progress.event(&Event::BillingPause(info.clone()));
                self.sleep(pause, info)?;
                paused += pause;
                continue;
            }
            if info.attempts >= retry.submit_attempts {
                return Err(failed.error);
            }
            if failed.decision == RetryDecision::AgainAsNew {
                key = self.idempotency_key();
            }
            let wait = self.wait(&failed, info, purpose);
            if self.since(start).saturating_sub(paused) + wait >= limit {
                return Err(out_of_time(failed.error, info, limit));
            }
            self.tell_retry(info, reason(&failed.error), wait);
            self.sleep(wait, info)?;
        }
    }

    /// As long as the server asks for, within reason, else doubling.
    fn wait(&self, failed: &FailedAttempt, info: &CallInfo, purpose: Purpose) -> Duration {
        let asked = failed.asked_wait.filter(|wait| !wait.is_zero());
        match (asked, purpose, info.last_status) {
            (Some(wait), ..) => wait.min(self.retry.max_retry_after),
            (None, Purpose::Sample(wait), Some(429)) => wait,
            _ => self.retry.delay(info.attempts, self.clock.random()),
        }
    }

    fn attempt(
        &self,
        request: &Request<'_>,
        key: &str,
        info: &mut CallInfo,
        purpose: Purpose,
        is_success: fn(&Reply) -> bool,
        limits: Limits,
    ) -> Result<Reply, Box<FailedAttempt>> {
        info.attempts += 1;
        let mut headers = request.headers.to_vec();
        if request.method != Method::GET {
            headers.push(("X-Idempotency-Key", key));
        }
        let may_do_twice = self.may_do_twice(info, purpose);
        let request = Request {
            headers: &headers,
            method: request.method.clone(),
            needs_fresh_connection: may_do_twice,
            ..*request
        };
        let outcome = {
            let _span = trace::request(info);
            self.send(&request, limits)
        };
        info.last_status = outcome.as_ref().ok().map(|reply| reply.status);
        match outcome {
            Ok(reply) if is_success(&reply) => Ok(reply),
            Ok(reply) => match self.decide(&reply, purpose, info.attempts, may_do_twice) {
                RetryDecision::Done => Ok(reply),
                decision => {
                    info.is_uncertain |= leaves_open(reply.status);
                    let error = self.refusal(&reply, info);
                    let asked_wait = reply.retry_after;
                    Err(Box::new(FailedAttempt { error, decision, asked_wait }))
                }
            },
            Err(failure) => {
                let maybe_received = failure.is_maybe_received();
                info.is_uncertain |= maybe_received;
                let decision = match failure.may_pass() && !(maybe_received && may_do_twice) {
                    true => RetryDecision::Again,
                    false => RetryDecision::Final,
                };
                let call = Box::new(info.clone());
                let error = match failure {
                    Failure::Cancelled => Error::Cancelled { call },
                    failure => Error::Unreachable {
                        call,
                        reason: self.auth.redact(&failure.to_string()),
                        maybe_received: info.is_uncertain,
                    },
                };
                Err(Box::new(FailedAttempt { error, decision, asked_wait: None }))
            }
        }
    }

    /// Whether the server may do twice what it is sent twice.
    fn may_do_twice(&self, info: &CallInfo, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Submit | Purpose::Save => !info.knows_repetition,
            Purpose::Start | Purpose::Query | Purpose::Sample(_) => false,
        }
    }

    fn decide(
        &self,
        reply: &Reply,
        purpose: Purpose,
        attempts: u32,
        may_do_twice: bool,
    ) -> RetryDecision {
        match reply.status == 409 && !(self.may_conflict_pass)(&reply.body) {
            true => RetryDecision::Final,
            false => decide(reply, purpose, attempts, may_do_twice),
        }
    }

    /// Sends one request and waits for its answer, of whatever status.
    pub fn send(&self, request: &Request<'_>, limits: Limits) -> Result<Reply, Failure> {
        self.auth.send(&self.connection, request, limits)
    }

    pub fn refusal(&self, reply: &Reply, info: &CallInfo) -> Error {
        let message = match &reply.location {
            Some(to) => format!(
                "a redirect to {to}, which is not followed: set the base URL to the server itself"
            ),
            None => self.words(&reply.body),
        };
        let message = match self.auth.last_error() {
            Some(last_error) if reply.status == 401 => format!("{message}; {last_error}"),
            _ => message,
        };
        Error::Status {
            call: Box::new(info.clone()),
            status: reply.status,
            message: self.auth.redact(&message),
        }
    }

    /// What a body says, fit to print: on one line, without secrets, cut short.
    pub fn words(&self, body: &[u8]) -> String {
        error_body::cut(self.auth.redact(&error_body::words(body)))
    }

    /// Waits, unless it is cancelled.
    pub fn sleep(&self, time: Duration, info: &CallInfo) -> Result<()> {
        let Some(_) = &self.cancel else {
            self.clock.sleep(time);
            return Ok(());
        };
        let mut left = time;
        while !left.is_zero() {
            self.check_cancelled(info)?;
            let slice = left.min(CANCEL_SLICE);
            self.clock.sleep(slice);
            left -= slice;
        }
        self.check_cancelled(info)
    }

    /// An error once the program does not want to wait any longer.
    pub fn check_cancelled(&self, info: &CallInfo) -> Result<()> {
        match &self.cancel {
            Some(cancel) if cancel.is_cancelled() => {
                Err(Error::Cancelled { call: Box::new(info.clone()) })
            }
            _ => Ok(()),
        }
    }

    pub fn tell_retry(&self, info: &CallInfo, reason: String, wait: Duration) {
        trace::retry(info, &reason, wait);
        self.progress.event(&Event::Retry { call: info.clone(), reason, wait });
    }

    /// What has gone over the wire.
    pub fn traffic(&self) -> Traffic {
        self.connection.traffic()
    }

    /// A fresh key for one logical call.
    pub fn idempotency_key(&self) -> String {
        format!("tinsmith-{:016x}{:016x}", self.clock.random(), self.clock.random())
    }

    /// The time since an earlier [`now`](crate::Clock::now).
    pub fn since(&self, start: Duration) -> Duration {
        self.clock.now().saturating_sub(start)
    }
}

fn reason(error: &Error) -> String {
    match error {
        Error::Status { status, message, .. } => format!("{status}: {message}"),
        Error::Unreachable { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}

fn out_of_time(last: Error, info: &CallInfo, limit: Duration) -> Error {
    Error::Deadline { call: Box::new(info.clone()), limit, last: Some(reason(&last)) }
}
