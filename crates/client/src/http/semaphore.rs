//! A server's limit on what may be under way at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// So many bytes may be under way at once.
#[derive(Debug)]
pub(crate) struct Semaphore {
    size: u64,
    used: Mutex<u64>,
    freed: Condvar,
}

/// A part of it, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    semaphore: &'a Semaphore,
    amount: u64,
}

impl Semaphore {
    pub fn new(size: u64) -> Self {
        Semaphore { size, used: Mutex::new(0), freed: Condvar::new() }
    }

    /// Waits until there is room. What is more than its whole size waits until it is alone.
    pub fn take(&self, amount: u64) -> Permit<'_> {
        let amount = amount.min(self.size);
        let is_full = |used: &mut u64| *used + amount > self.size;
        let mut used =
            self.freed.wait_while(self.lock(), is_full).unwrap_or_else(PoisonError::into_inner);
        *used += amount;
        Permit { semaphore: self, amount }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.semaphore.lock() -= self.amount;
        self.semaphore.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        thread,
    };

    use super::*;

    #[test]
    fn no_more_than_its_size_is_under_way_and_the_oversized_go_alone() {
        let (semaphore, now, most) = (Semaphore::new(10), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for amount in [3, 4, 5, 99, 6, 2, 10, 1] {
                let (semaphore, now, most) = (&semaphore, &now, &most);
                scope.spawn(move || {
                    let _permit = semaphore.take(amount);
                    let counted = amount.min(10);
                    most.fetch_max(
                        now.fetch_add(counted, Ordering::SeqCst) + counted,
                        Ordering::SeqCst,
                    );
                    thread::yield_now();
                    now.fetch_sub(counted, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.into_inner(), 10);
        assert_eq!(*semaphore.lock(), 0);
    }
}
