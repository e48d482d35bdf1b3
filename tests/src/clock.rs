//! Time that passes only by sleeping.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tinsmith_client::Clock;

/// A clock that moves only when someone sleeps by it, and then at once. Clones share their time.
///
/// ```
/// use std::time::Duration;
/// use tinsmith_client::Clock;
/// use tinsmith_tests::StillClock;
///
/// let clock = StillClock::default();
/// clock.sleep(Duration::from_secs(300));
/// assert_eq!((clock.now(), clock.naps().len()), (Duration::from_secs(300), 1));
/// ```
#[derive(Debug, Clone, Default)]
pub struct StillClock(Arc<Mutex<Vec<Duration>>>);

impl StillClock {
    /// Every sleep so far.
    pub fn naps(&self) -> Vec<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Clock for StillClock {
    fn now(&self) -> Duration {
        self.naps().iter().sum()
    }

    fn sleep(&self, duration: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(duration);
    }

    fn random(&self) -> u64 {
        // Distinct, as idempotency keys must be, and as a share of u64::MAX in effect 0: no jitter.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }
}
