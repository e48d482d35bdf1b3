//! Time that passes only by sleeping.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tinsmith_client::{Clock, SystemClock};

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
#[derive(Clone, Default)]
pub struct StillClock {
    time: Arc<Mutex<Time>>,
    on_nap: Option<Arc<dyn Fn() + Send + Sync>>,
}

#[derive(Debug, Default)]
struct Time {
    now: Duration,
    naps: Vec<Duration>,
}

impl fmt::Debug for StillClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("StillClock");
        shown.field("now", &self.lock().now).finish_non_exhaustive()
    }
}

impl StillClock {
    /// A clock that does this at the end of every sleep, such as [`Proxy::tick`](crate::Proxy).
    pub fn on_nap(act: impl Fn() + Send + Sync + 'static) -> Self {
        StillClock { on_nap: Some(Arc::new(act)), ..StillClock::default() }
    }

    /// Every sleep so far.
    pub fn naps(&self) -> Vec<Duration> {
        self.lock().naps.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Time> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for StillClock {
    fn now(&self) -> Duration {
        self.lock().now
    }

    fn sleep(&self, duration: Duration) {
        {
            let mut time = self.lock();
            time.now += duration;
            time.naps.push(duration);
        }
        if let Some(act) = &self.on_nap {
            act();
        }
    }

    fn random(&self) -> u64 {
        // Distinct, as idempotency keys must be, and as a share of u64::MAX in effect 0: no jitter.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }
}

/// The machine's clock, running so many times as fast: waits are short, and limits come as soon.
///
/// ```
/// use std::time::Duration;
/// use tinsmith_client::Clock;
/// use tinsmith_tests::FastClock;
///
/// let clock = FastClock::times(1_000);
/// clock.sleep(Duration::from_secs(1));
/// assert!(clock.now() >= Duration::from_secs(1));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct FastClock {
    real: SystemClock,
    factor: u32,
}

impl FastClock {
    /// A clock that runs so many times as fast as the machine's.
    pub fn times(factor: u32) -> Self {
        FastClock { real: SystemClock::default(), factor }
    }
}

impl Clock for FastClock {
    fn now(&self) -> Duration {
        self.real.now() * self.factor
    }

    fn sleep(&self, duration: Duration) {
        self.real.sleep(duration / self.factor);
    }

    fn random(&self) -> u64 {
        self.real.random()
    }
}
