//! News while a call waits, for those who want to show it.

use std::time::Duration;

use crate::CallInfo;

/// Something that a person who waits may want to know.
///
/// ```
/// use std::time::Duration;
/// use tinsmith_client::Event;
/// let event = Event::HeartbeatLost(Duration::from_secs(120));
/// assert_eq!(event.to_string(), "no heartbeat was answered for 120 s; the server may end the session");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The server has something to say to the user, at the start of a session.
    Message {
        /// How grave it is.
        severity: Severity,
        /// In the server's words.
        text: String,
    },
    /// A request waits in the server's queue: when its state changes, and once a minute.
    Queued(CallInfo),
    /// A result has been waited for so long: after five seconds, and then once a minute.
    Waiting {
        /// What is waited for.
        call: CallInfo,
        /// How long.
        waited: Duration,
    },
    /// An attempt has failed and another follows.
    Retry {
        /// What is tried.
        call: CallInfo,
        /// Why the last attempt failed.
        reason: String,
        /// The wait until the next one.
        wait: Duration,
    },
    /// The server wants a bill to be paid (402); the call goes on when it is.
    BillingPause(CallInfo),
    /// No heartbeat has been answered for this long: the server may end the session.
    HeartbeatLost(Duration),
    /// Heartbeats are answered again.
    HeartbeatBack,
}

/// How grave a message of the server is.
///
/// ```
/// use tinsmith_client::Severity;
/// assert!(Severity::Error > Severity::Warning);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// For information.
    Info,
    /// Something may go wrong.
    Warning,
    /// Something is wrong.
    Error,
}

/// Hears of events. It is called on the thread that waits, or on the heartbeat's, and should return
/// soon.
///
/// ```
/// use tinsmith_client::{Event, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// let service = ServiceClient::builder()
///     .base_url(trainer.url())
///     .progress(|event: &Event| eprintln!("{event}"))
///     .connect()?;
/// # anyhow::Ok(())
/// ```
pub trait Progress: Send + Sync + 'static {
    /// Takes note of an event.
    fn event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync + 'static> Progress for F {
    fn event(&self, event: &Event) {
        self(event);
    }
}

/// The default: events go to the `log` crate, as records of this crate.
///
/// ```
/// use tinsmith_client::{Event, LogProgress, Progress};
/// LogProgress.event(&Event::HeartbeatBack); // shown by whichever logger the program has set
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct LogProgress;

impl Progress for LogProgress {
    fn event(&self, event: &Event) {
        log::log!(event.level(), "{event}");
    }
}

/// Events go to standard error, a line each: a sign of life for programs at a terminal.
///
/// ```
/// use tinsmith_client::{ServiceClient, StderrProgress};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// let service = ServiceClient::builder().base_url(trainer.url()).progress(StderrProgress).connect()?;
/// # drop(service);
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct StderrProgress;

impl Progress for StderrProgress {
    fn event(&self, event: &Event) {
        eprintln!("tinsmith: {event}");
    }
}

impl Event {
    fn level(&self) -> log::Level {
        match self {
            Event::Message { severity, .. } => match severity {
                Severity::Info => log::Level::Info,
                Severity::Warning => log::Level::Warn,
                Severity::Error => log::Level::Error,
            },
            Event::Queued(_) | Event::Waiting { .. } | Event::HeartbeatBack => log::Level::Info,
            Event::Retry { .. } | Event::BillingPause(_) | Event::HeartbeatLost(_) => {
                log::Level::Warn
            }
        }
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Event::Message { text, .. } => write!(f, "the server says: {text}"),
            Event::Queued(call) => write!(f, "{call}"),
            Event::Waiting { call, waited } => write!(f, "{call}, for {} s", waited.as_secs()),
            Event::Retry { call, reason, wait } => {
                write!(f, "{call}: {reason}; again in {:.1} s", wait.as_secs_f64())
            }
            Event::BillingPause(call) => {
                write!(f, "{call}: the server waits for a bill to be paid")
            }
            Event::HeartbeatLost(time) => write!(
                f,
                "no heartbeat was answered for {} s; the server may end the session",
                time.as_secs()
            ),
            Event::HeartbeatBack => f.write_str("heartbeats are answered again"),
        }
    }
}

/// What a client has sent and received.
///
/// ```
/// use tinsmith_client::ServiceClient;
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// let before = service.traffic();
/// service.health()?;
/// assert_eq!(service.traffic().requests, before.requests + 1);
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// HTTP requests, repetitions included.
    pub requests: u64,
    /// Bytes of their bodies.
    pub bytes_sent: u64,
    /// Bytes of the answers' bodies, as they are after decompression.
    pub bytes_received: u64,
}
