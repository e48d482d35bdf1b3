//! How long to try, how often, and what is worth trying again.

use std::time::Duration;

use crate::{http::message::Reply, settings::settings};

settings! {
    /// Times and counts of everything that waits. The defaults suit a hosted trainer.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tinsmith_client::RetryConfig;
    /// let patient = RetryConfig::default().result_timeout(Duration::from_secs(8 * 3600));
    /// assert_eq!(patient.first_delay, Duration::from_millis(500));
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    #[non_exhaustive]
    pub struct RetryConfig {
        /// To open a connection. 5 s.
        pub connect_timeout: Duration,
        /// How long an HTTP exchange may go without a byte in either direction. A long transfer may
        /// take longer in all, up to the deadline of its call. 60 s.
        pub attempt_timeout: Duration,
        /// The same for a question whether a result is ready; servers may hold it for a while. 45
        /// s.
        pub poll_timeout: Duration,
        /// For the question of [`try_result`](crate::ApiFuture::try_result). 2 s.
        pub try_timeout: Duration,
        /// For each of the first calls to a server to be answered with success, with all its
        /// repetitions: what is no trainer shows soon. These are the calls of
        /// [`connect`](crate::ServiceClientBuilder::connect), and without a session all until the
        /// first success. 20 s.
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
        /// The share of a wait that is left to chance, so that many clients do not come back at
        /// once. 0.25.
        pub jitter: f64,
        /// The longest wait that a server may ask for by `Retry-After`; one that asks for more is
        /// asked again after this. 60 s.
        pub max_retry_after: Duration,
        /// The longest pause, in all, while the server wants a bill to be paid (402); such pauses
        /// count toward no other limit on submitting. A server may set less. 3600 s.
        pub billing_pause: Duration,
        /// Whether to repeat a request that may have arrived though no answer came back. Right for
        /// servers that know a repetition by its sequence id; where one does not (SkyRL-tx), the
        /// client does not repeat training requests anyway. Yes.
        pub resend_uncertain: bool,
        /// Between two heartbeats of a session. 10 s.
        pub heartbeat_period: Duration,
        /// How long heartbeats may fail before
        /// [`Event::HeartbeatLost`](crate::Event::HeartbeatLost). 120 s.
        pub heartbeat_warning: Duration,
    }
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
pub(crate) enum Purpose {
    /// The first calls to a server.
    Start,
    /// What can be asked any number of times.
    Query,
    /// A request that the server executes.
    Submit,
    /// Saving under a name: 409 may say that the name is taken, which waiting does not change.
    Save,
    /// A sample; when there are too many (429) this is the time to leave the server alone.
    Sample(Duration),
}

/// Most times that a save is sent again because of 409: some gateways make these up.
const MAX_SAVE_CONFLICTS: u32 = 3;

/// What to do about an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryDecision {
    Done,
    /// Send the same again.
    Again,
    /// Send the same again, but under a new idempotency key: the server would repeat this answer to
    /// the old one.
    AgainAsNew,
    Final,
}

/// What to do about this answer to attempt number `attempts`. Where the server `may_do_twice` what
/// it is sent twice, only answers that promise that nothing was done lead to a repetition.
pub(crate) fn decide(
    reply: &Reply,
    purpose: Purpose,
    attempts: u32,
    may_do_twice: bool,
) -> RetryDecision {
    use RetryDecision::{Again, AgainAsNew, Done, Final};
    let by_status = match reply.status {
        200..300 => return Done,
        409 if purpose == Purpose::Save
            && (may_do_twice || attempts > MAX_SAVE_CONFLICTS || says_exists(&reply.body)) =>
        {
            Final
        }
        // What a server does not do now it does not do later.
        501 => Final,
        // A gateway says so of what broke on its way back, too, unless it says when to come again.
        503 if may_do_twice && reply.retry_after.is_none() => Final,
        408 | 500..=502 | 504.. if may_do_twice => Final,
        402 | 408 | 409 | 425 | 429 | 500.. => Again,
        // Proxies inject these, and promise nothing by them.
        400 if reply.body.is_empty() && !may_do_twice => AgainAsNew,
        _ => Final,
    };
    match (reply.should_retry, by_status) {
        (Some(true), _) => Again,
        (Some(false), Again) => AgainAsNew,
        (_, decision) => decision,
    }
}

/// Whether a conflict is about a name that is taken.
fn says_exists(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).to_ascii_lowercase().contains("exist")
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

    fn reply(status: u16, body: &str, headers: &[(&str, &str)]) -> Reply {
        let header = |name: &str| headers.iter().find(|(own, _)| *own == name).map(|it| it.1);
        Reply { body: body.into(), ..Reply::head(status, header) }
    }

    #[test]
    fn what_may_be_done_twice_is_sent_again_only_after_a_promise() {
        use RetryDecision::{Again, AgainAsNew, Done, Final};
        let soon = [("retry-after", "1")];
        let again = [("x-should-retry", "true")];
        for (status, body, headers, knows_repetition, does_it_twice) in [
            (200, "{}", &[][..], Done, Done),
            (400, "", &[], AgainAsNew, Final),
            (400, "bad", &[], Final, Final),
            (401, "", &[], Final, Final),
            (408, "", &[], Again, Final),
            (409, "", &[], Again, Again),
            (413, "", &[], Final, Final),
            (425, "", &[], Again, Again),
            (429, "", &[], Again, Again),
            (500, "", &[], Again, Final),
            (501, "", &[], Final, Final),
            (502, "", &[], Again, Final),
            (503, "", &[], Again, Final),
            (503, "", &soon, Again, Again),
            (504, "", &[], Again, Final),
            (504, "", &again, Again, Again),
        ] {
            let reply = reply(status, body, headers);
            let decided = [false, true].map(|twice| decide(&reply, Purpose::Submit, 1, twice));
            assert_eq!(decided, [knows_repetition, does_it_twice], "{status} {headers:?}");
        }
    }

    #[test]
    fn a_save_is_sent_again_a_few_times_after_a_conflict() {
        let conflict = reply(409, "busy", &[]);
        let decided =
            (1..6).map(|n| decide(&conflict, Purpose::Save, n, false) == RetryDecision::Again);
        assert_eq!(decided.collect::<Vec<_>>(), [true, true, true, false, false]);
        assert_eq!(decide(&conflict, Purpose::Save, 1, true), RetryDecision::Final);
        let taken = reply(409, "checkpoint a already exists", &[]);
        assert_eq!(decide(&taken, Purpose::Save, 1, false), RetryDecision::Final);
    }

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
