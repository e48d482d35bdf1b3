//! Time and chance, so that a program or a test can supply its own.

use std::{
    fmt::Debug,
    hash::{BuildHasher, RandomState},
    thread,
    time::{Duration, Instant},
};

/// Where the client gets time and chance from: it waits by this clock and jitters by this dice.
///
/// ```
/// use std::{sync::Mutex, time::Duration};
/// use tinsmith_client::Clock;
///
/// /// Time that passes only by sleeping: a test of a five-minute deadline takes no time.
/// #[derive(Debug, Default)]
/// struct Still(Mutex<Duration>);
///
/// impl Clock for Still {
///     fn now(&self) -> Duration {
///         *self.0.lock().unwrap()
///     }
///     fn sleep(&self, duration: Duration) {
///         *self.0.lock().unwrap() += duration;
///     }
///     fn random(&self) -> u64 {
///         0
///     }
/// }
/// let clock = Still::default();
/// clock.sleep(Duration::from_secs(300));
/// assert_eq!(clock.now().as_secs(), 300);
/// ```
pub trait Clock: Debug + Send + Sync + 'static {
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;

    /// Lets this much time pass.
    fn sleep(&self, duration: Duration);

    /// A number that another process would not draw too: for jitter and idempotency keys.
    fn random(&self) -> u64;
}

/// The machine's own time and chance.
///
/// ```
/// use tinsmith_client::{Clock, SystemClock};
/// let clock = SystemClock::default();
/// let before = clock.now();
/// assert!(clock.now() >= before && clock.random() != clock.random());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        thread::sleep(duration);
    }

    fn random(&self) -> u64 {
        // Each RandomState has fresh keys; hashing nothing gives 64 well-mixed bits of them.
        RandomState::new().hash_one(())
    }
}
