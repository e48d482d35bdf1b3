//! How long to try, how often, and what is worth trying again.

use std::time::Duration;

use crate::http::connection::Reply;

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
    /// For each of the first calls to a server to be answered with success, with all its
    /// repetitions: what is no trainer shows soon. These are the calls of
    /// [`connect`](crate::ServiceClientBuilder::connect), and without a session all until the first
    /// success. 20 s.
    pub start_timeout: Duration,
    /// For a request to be accepted, with all its repetitions. 300 s in all.
    pub submit_timeout: Duration,
    /// Most times that a request is sent. 100.
    pub submit_attempts: u32,
    /// For a result, from the moment it is asked for. 3600 s in all, of which without any
    /// connection no more than `submit_timeout`.
    pub result_timeout: Duration,
    /// The first wait between two attempts; it doubles from one to the next. 0.5 s.
    pub first_delay: Duration,
    /// The longest such wait. 10 s.
    pub max_delay: Duration,
    /// The share of a wait that is left to chance, so that many clients do not come back at once.
    /// 0.25.
    pub jitter: f64,
    /// The longest wait that a server may ask for by `Retry-After`. 60 s.
    pub max_retry_after: Duration,
    /// The longest pause, in all, while the server wants a bill to be paid (402); such pauses count
    /// toward no other limit on submitting. A server may set less. 3600 s.
    pub billing_pause: Duration,
    /// Whether to repeat a request that may have arrived though no answer came back. Right for
    /// servers that know a repetition by its sequence id; where one does not (SkyRL-tx), the client
    /// does not repeat training requests anyway. Yes.
    pub resend_uncertain: bool,
    /// Between two heartbeats of a session. 10 s.
    pub heartbeat_period: Duration,
    /// How long heartbeats may fail before [`Event::HeartbeatLost`](crate::Event::HeartbeatLost).
    /// 120 s.
    pub heartbeat_warning: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        RetryConfig {
            connect_timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(60),
            poll_timeout: Duration::from_secs(45),
            try_timeout: Duration::from_secs(2),
            start_timeout: Duration::from_secs(20),
            submit_timeout: Duration::from_secs(300),
            submit_attempts: 100,
            result_timeout: Duration::from_secs(3600),
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(10),
            jitter: 0.25,
            max_retry_after: Duration::from_secs(60),
            billing_pause: Duration::from_secs(3600),
            resend_uncertain: true,
            heartbeat_period: Duration::from_secs(10),
            heartbeat_warning: Duration::from_secs(120),
        }
    }
}

impl RetryConfig {
    /// The wait after `failures` failures in a row (from 1): doubling, capped, and jittered by
    /// `dice`.
    pub(crate) fn delay(&self, failures: u32, dice: u64) -> Duration {
        let doubled = self.first_delay.saturating_mul(1 << (failures - 1).min(20));
        let chance = dice as f64 / u64::MAX as f64;
        doubled.min(self.max_delay).mul_f64((1.0 - self.jitter * chance).clamp(0.0, 1.0))
    }
}

/// What a request is for, as far as repeating it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first calls to a server.
    Start,
    /// What can be asked any number of times.
    Query,
    /// A request that the server executes.
    Submit,
    /// Saving under a name: 409 says that the name is taken, which waiting does not change.
    Save,
    /// A sample; when there are too many (429) this is the time to leave the server alone.
    Sample(Duration),
}

/// What to do about an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    /// Send the same again.
    Again,
    /// Send the same again, but under a new idempotency key: the server would repeat this answer to
    /// the old one.
    Anew,
    Final,
}

/// What to do about this answer. Where the server `may_do_twice` what it is sent twice, only
/// answers that promise that nothing was done lead to a repetition.
pub(crate) fn verdict(reply: &Reply, kind: Kind, may_do_twice: bool) -> Verdict {
    let by_status = match reply.status {
        200..300 => return Verdict::Done,
        409 if kind == Kind::Save => Verdict::Final,
        // What a server does not do now it does not do later.
        501 => Verdict::Final,
        408 | 500..=502 | 504.. if may_do_twice => Verdict::Final,
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

/// The pauses of a call while a bill is unpaid.
#[derive(Debug, Default)]
pub(crate) struct BillingPauses {
    total: Duration,
    last: Option<Duration>,
}

/// Between two questions whether a bill was paid.
const BILLING_STEP: Duration = Duration::from_secs(5);
/// After so long without another, the next pause belongs to another bill.
const BILLING_QUIET: Duration = Duration::from_secs(300);

impl BillingPauses {
    /// The next pause, from `now` on; none once they have lasted `limit`.
    pub fn next(&mut self, now: Duration, limit: Duration) -> Option<Duration> {
        if self.last.is_some_and(|last| now.saturating_sub(last) > BILLING_QUIET + BILLING_STEP) {
            self.total = Duration::ZERO;
        }
        self.last = Some(now);
        self.total += BILLING_STEP;
        (self.total <= limit).then_some(BILLING_STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn billing_pauses_end_and_another_bill_starts_anew() {
        let mut pauses = BillingPauses::default();
        let (step, limit) = (Duration::from_secs(5), Duration::from_secs(12));
        assert_eq!(pauses.next(step, limit), Some(step));
        assert_eq!(pauses.next(2 * step, limit), Some(step));
        assert_eq!(pauses.next(3 * step, limit), None);
        let later = 3 * step + Duration::from_secs(306);
        assert_eq!(pauses.next(later, limit), Some(step));
    }
}
