//! How long to try, how often, and what is worth trying again.

use std::time::Duration;

use tinsmith_wire::json;

use crate::{
    CallInfo, Error, Result,
    transport::{Failure, Http, Reply},
};

/// Times and counts of everything that waits. The defaults suit a hosted trainer.
///
/// ```
/// use std::time::Duration;
/// use tinsmith_client::RetryConfig;
/// let patient = RetryConfig { result_timeout: Duration::from_secs(8 * 3600), ..RetryConfig::default() };
/// assert_eq!(patient.first_delay, Duration::from_millis(500));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RetryConfig {
    /// To open a connection. 5 s.
    pub connect_timeout: Duration,
    /// For one HTTP exchange. 60 s.
    pub attempt_timeout: Duration,
    /// For one question whether a result is ready; servers may hold it for a while. 45 s.
    pub poll_timeout: Duration,
    /// For the question of [`try_result`](crate::ApiFuture::try_result). 2 s.
    pub try_timeout: Duration,
    /// For the first connection to a server, so that a wrong address shows soon. 10 s in all.
    pub start_timeout: Duration,
    /// For a request to be accepted, with all its repetitions. 300 s in all.
    pub submit_timeout: Duration,
    /// Most times that a request is sent. 100.
    pub submit_attempts: u32,
    /// For a result, from the moment it is asked for. 3600 s in all, of which without any connection no more than
    /// `submit_timeout`.
    pub result_timeout: Duration,
    /// The first wait between two attempts; it doubles from one to the next. 0.5 s.
    pub first_delay: Duration,
    /// The longest such wait. 10 s.
    pub max_delay: Duration,
    /// The share of a wait that is left to chance, so that many clients do not come back at once. 0.25.
    pub jitter: f64,
    /// The longest wait that a server may ask for by `Retry-After`. 60 s.
    pub max_retry_after: Duration,
    /// Whether to repeat a request that may have arrived though no answer came back. Right for servers that know
    /// a repetition by its sequence id; a server that ignores it (SkyRL-tx) would execute the request twice. Yes.
    pub resend_uncertain: bool,
    /// Between two heartbeats of a session. 10 s.
    pub heartbeat_period: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        RetryConfig {
            connect_timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(60),
            poll_timeout: Duration::from_secs(45),
            try_timeout: Duration::from_secs(2),
            start_timeout: Duration::from_secs(10),
            submit_timeout: Duration::from_secs(300),
            submit_attempts: 100,
            result_timeout: Duration::from_secs(3600),
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(10),
            jitter: 0.25,
            max_retry_after: Duration::from_secs(60),
            resend_uncertain: true,
            heartbeat_period: Duration::from_secs(10),
        }
    }
}

impl RetryConfig {
    /// The wait after `failures` failures in a row (from 1): doubling, capped, and jittered by `dice`.
    pub(crate) fn delay(&self, failures: u32, dice: u64) -> Duration {
        let doubled = self.first_delay.saturating_mul(1 << (failures - 1).min(20));
        let chance = dice as f64 / u64::MAX as f64;
        doubled
            .min(self.max_delay)
            .mul_f64((1.0 - self.jitter * chance).clamp(0.0, 1.0))
    }
}

/// What a request is for, as far as repeating it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first call to a server.
    Start,
    /// Anything else.
    Submit,
    /// Saving under a name: 409 says that the name is taken, which waiting does not change.
    Save,
}

/// What to do about an answer.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    /// Send the same again.
    Again,
    /// Send the same again, but under a new idempotency key: the server would repeat this answer to the old one.
    Anew,
    Final,
}

fn verdict(reply: &Reply, kind: Kind) -> Verdict {
    let by_status = match reply.status {
        200..300 => return Verdict::Done,
        409 if kind == Kind::Save => Verdict::Final,
        402 | 408 | 409 | 425 | 429 | 500.. => Verdict::Again,
        // Proxies inject these.
        400 if reply.body.is_empty() => Verdict::Anew,
        _ => Verdict::Final,
    };
    match (reply.should_retry, by_status) {
        (Some(true), _) => Verdict::Again,
        (Some(false), Verdict::Again) => Verdict::Anew,
        (_, verdict) => verdict,
    }
}

/// An attempt without success.
struct Setback {
    error: Error,
    verdict: Verdict,
    asked_wait: Option<Duration>,
}

fn out_of_time(last: Error, info: &CallInfo, limit: Duration) -> Error {
    let last = match last {
        Error::Status {
            status, message, ..
        } => format!("{status}: {message}"),
        Error::Unreachable { reason, .. } => reason,
        other => other.to_string(),
    };
    Error::Deadline {
        call: Box::new(info.clone()),
        limit,
        last: Some(last),
    }
}

impl Http {
    /// Posts the JSON form of `body` until it is answered with success, refused, or given up on, and reads the answer.
    pub fn call<B: serde::Serialize, T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        mut info: CallInfo,
        kind: Kind,
    ) -> Result<T> {
        let body = json::to_vec(body).map_err(Error::Encode)?;
        let answer = self.exchange(path, Some(&body), &mut info, kind)?;
        self.read(&answer, info)
    }

    /// Reads an answer.
    pub fn read<T: serde::de::DeserializeOwned>(&self, answer: &[u8], info: CallInfo) -> Result<T> {
        json::from_slice(answer).map_err(|source| Error::Reply {
            call: Box::new(info),
            source,
            excerpt: self.words(answer),
        })
    }

    /// Sends the same bytes (a GET without) until they are answered with success, refused, or given up on.
    pub fn exchange(
        &self,
        path: &str,
        body: Option<&[u8]>,
        info: &mut CallInfo,
        kind: Kind,
    ) -> Result<Vec<u8>> {
        let retry = &self.retry;
        let start = self.clock.now();
        let mut key = self.idempotency_key();
        loop {
            let limit = match kind {
                Kind::Start if !info.maybe_received => retry.start_timeout,
                _ => retry.submit_timeout,
            };
            let left = limit.saturating_sub(self.since(start));
            let setback = match self.attempt(
                path,
                body,
                &key,
                info,
                kind,
                left.min(retry.attempt_timeout),
            ) {
                Ok(answer) => return Ok(answer),
                Err(setback) => setback,
            };
            if setback.verdict == Verdict::Final || info.attempts >= retry.submit_attempts {
                return Err(setback.error);
            }
            if setback.verdict == Verdict::Anew {
                key = self.idempotency_key();
            }
            let asked = setback
                .asked_wait
                .filter(|wait| !wait.is_zero() && *wait <= retry.max_retry_after);
            let wait = asked.unwrap_or_else(|| retry.delay(info.attempts, self.clock.random()));
            if self.since(start) + wait >= limit {
                return Err(out_of_time(setback.error, info, limit));
            }
            self.clock.sleep(wait);
        }
    }

    fn attempt(
        &self,
        path: &str,
        body: Option<&[u8]>,
        key: &str,
        info: &mut CallInfo,
        kind: Kind,
        timeout: Duration,
    ) -> Result<Vec<u8>, Box<Setback>> {
        info.attempts += 1;
        let outcome = self.send(path, body, &[("X-Idempotency-Key", key)], timeout);
        let maybe_received = !matches!(outcome, Err(Failure::NotSent(_)));
        info.maybe_received |= maybe_received;
        info.last_status = outcome.as_ref().ok().map(|reply| reply.status);
        match outcome {
            Ok(reply) => match verdict(&reply, kind) {
                Verdict::Done => Ok(reply.body),
                verdict => Err(Box::new(Setback {
                    error: self.refusal(&reply, info),
                    verdict,
                    asked_wait: reply.retry_after,
                })),
            },
            Err(failure) => {
                let twice = maybe_received && body.is_some() && !self.retry.resend_uncertain;
                let verdict = if twice {
                    Verdict::Final
                } else {
                    Verdict::Again
                };
                let reason = self.redact(&failure.to_string());
                let error = Error::Unreachable {
                    call: Box::new(info.clone()),
                    reason,
                    maybe_received,
                };
                Err(Box::new(Setback {
                    error,
                    verdict,
                    asked_wait: None,
                }))
            }
        }
    }

    /// The time since an earlier [`now`](crate::Clock::now).
    pub fn since(&self, start: Duration) -> Duration {
        self.clock.now().saturating_sub(start)
    }

    pub(crate) fn refusal(&self, reply: &Reply, info: &CallInfo) -> Error {
        let message = match &reply.location {
            Some(to) => format!(
                "a redirect to {to}, which is not followed: set the base URL to the server itself"
            ),
            None => self.words(&reply.body),
        };
        Error::Status {
            call: Box::new(info.clone()),
            status: reply.status,
            message: self.redact(&message),
        }
    }
}
