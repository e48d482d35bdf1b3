//! One call, however many HTTP requests it takes.

use std::{sync::atomic::Ordering, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tinsmith_wire::json;
use ureq::http::Method;

use crate::{
    CallInfo, Error, Event, Result,
    http::connection::{Failure, Http, Payload, Reply, Request},
    http::retry::{BillingPauses, Kind, Verdict, verdict},
    protocol::fireworks,
    protocol::flavour::Service,
};

/// An attempt without success.
struct Setback {
    error: Error,
    verdict: Verdict,
    asked_wait: Option<Duration>,
}

impl Http {
    /// Posts the JSON form of `body` until it is answered with success, refused, or given up on,
    /// and reads the answer.
    pub fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        mut info: CallInfo,
        kind: Kind,
    ) -> Result<T> {
        let payload = Payload::json(body)?;
        let reply = self.exchange(&Request::post(path, &payload), &mut info, kind)?;
        self.read(&reply, info)
    }

    /// Gets what is at `path`.
    pub fn get<T: DeserializeOwned>(&self, path: &str, mut info: CallInfo) -> Result<T> {
        let request = Request::bare(Method::GET, path);
        let reply = self.exchange(&request, &mut info, Kind::Query)?;
        self.read(&reply, info)
    }

    /// Reads a JSON answer.
    pub fn read<T: DeserializeOwned>(&self, reply: &Reply, info: CallInfo) -> Result<T> {
        json::from_slice(&reply.body).map_err(|source| Error::Reply {
            call: Box::new(info),
            source: Box::new(source),
            excerpt: self.words(&reply.body),
        })
    }

    /// Sends the same bytes until they are answered with success, refused, or given up on.
    pub fn exchange(
        &self,
        request: &Request<'_>,
        info: &mut CallInfo,
        kind: Kind,
    ) -> Result<Reply> {
        self.exchange_until(request, info, kind, |_| false)
    }

    /// As [`exchange`](Self::exchange); `is_success` tells of an answer besides 2xx whether it is
    /// what was hoped for.
    fn exchange_until(
        &self,
        request: &Request<'_>,
        info: &mut CallInfo,
        kind: Kind,
        is_success: fn(&Reply) -> bool,
    ) -> Result<Reply> {
        let retry = &self.retry;
        let start = self.clock.now();
        if matches!(kind, Kind::Start | Kind::Query) {
            info.url = Some(format!("{}{}", self.base, request.path));
        }
        let mut key = self.idempotency_key();
        let mut billing = BillingPauses::default();
        let mut paused = Duration::ZERO;
        let limit = match kind {
            Kind::Start => retry.start_timeout,
            Kind::Query if !self.is_met.load(Ordering::Relaxed) => retry.start_timeout,
            _ => retry.submit_timeout,
        };
        loop {
            let left = limit.saturating_sub(self.since(start).saturating_sub(paused));
            let timeout = left.min(retry.attempt_timeout);
            let setback = match self.attempt(request, &key, info, kind, is_success, timeout) {
                Ok(reply) => {
                    self.is_met.store(true, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(setback) => setback,
            };
            if setback.verdict == Verdict::Final {
                return Err(setback.error);
            }
            if info.last_status == Some(402) {
                let Some(pause) = billing.next(self.clock.now(), retry.billing_pause) else {
                    return Err(setback.error);
                };
                self.progress.event(&Event::BillingPause(info.clone()));
                self.clock.sleep(pause);
                paused += pause;
                continue;
            }
            if info.attempts >= retry.submit_attempts {
                return Err(setback.error);
            }
            if setback.verdict == Verdict::Anew {
                key = self.idempotency_key();
            }
            let wait = self.wait(&setback, info, kind);
            if self.since(start).saturating_sub(paused) + wait >= limit {
                return Err(out_of_time(setback.error, info, limit));
            }
            self.progress.event(&Event::Retry {
                call: info.clone(),
                reason: reason(&setback.error),
                wait,
            });
            self.clock.sleep(wait);
        }
    }

    /// As long as the server asks for, within reason, else doubling.
    fn wait(&self, setback: &Setback, info: &CallInfo, kind: Kind) -> Duration {
        let asked = setback
            .asked_wait
            .filter(|wait| !wait.is_zero() && *wait <= self.retry.max_retry_after);
        match (asked, kind, info.last_status) {
            (Some(wait), ..) | (None, Kind::Sample(wait), Some(429)) => wait,
            _ => self.retry.delay(info.attempts, self.clock.random()),
        }
    }

    fn attempt(
        &self,
        request: &Request<'_>,
        key: &str,
        info: &mut CallInfo,
        kind: Kind,
        is_success: fn(&Reply) -> bool,
        timeout: Duration,
    ) -> Result<Reply, Box<Setback>> {
        info.attempts += 1;
        let mut headers = request.headers.to_vec();
        if request.method != Method::GET {
            headers.push(("X-Idempotency-Key", key));
        }
        let request = Request { headers: &headers, method: request.method.clone(), ..*request };
        let outcome = self.send(&request, timeout);
        let maybe_received = !matches!(outcome, Err(Failure::NotSent(_)));
        info.maybe_received |= maybe_received;
        info.last_status = outcome.as_ref().ok().map(|reply| reply.status);
        let may_do_twice = !info.knows_repetition && matches!(kind, Kind::Submit | Kind::Save);
        match outcome {
            Ok(reply) if is_success(&reply) => Ok(reply),
            Ok(reply) => match self.verdict(&reply, kind, may_do_twice) {
                Verdict::Done => Ok(reply),
                verdict => Err(Box::new(Setback {
                    error: self.refusal(&reply, info),
                    verdict,
                    asked_wait: reply.retry_after,
                })),
            },
            Err(failure) => {
                let verdict =
                    if maybe_received && may_do_twice { Verdict::Final } else { Verdict::Again };
                let reason = self.auth.redact(&failure.to_string());
                let error =
                    Error::Unreachable { call: Box::new(info.clone()), reason, maybe_received };
                Err(Box::new(Setback { error, verdict, asked_wait: None }))
            }
        }
    }

    fn verdict(&self, reply: &Reply, kind: Kind, may_do_twice: bool) -> Verdict {
        let is_lasting = self.service == Service::Fireworks
            && reply.status == 409
            && !fireworks::may_pass(&reply.body);
        match is_lasting {
            true => Verdict::Final,
            false => verdict(reply, kind, may_do_twice),
        }
    }

    /// As [`exchange`](Self::exchange), where a redirect is the answer that is hoped for.
    pub fn exchange_for_redirect(
        &self,
        request: &Request<'_>,
        info: &mut CallInfo,
        kind: Kind,
    ) -> Result<Reply> {
        self.exchange_until(request, info, kind, |reply| reply.location.is_some())
    }

    pub fn refusal(&self, reply: &Reply, info: &CallInfo) -> Error {
        let message = match &reply.location {
            Some(to) => format!(
                "a redirect to {to}, which is not followed: set the base URL to the server itself"
            ),
            None => self.words(&reply.body),
        };
        let message = match self.auth.trouble() {
            Some(trouble) if reply.status == 401 => format!("{message}; {trouble}"),
            _ => message,
        };
        Error::Status {
            call: Box::new(info.clone()),
            status: reply.status,
            message: self.auth.redact(&message),
        }
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
