//! Memory that a step needs and the next needs again: taking fresh memory of a few megabytes costs
//! more than filling it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers that wait to be used again.
#[derive(Debug)]
pub(crate) struct BufferPool<T>(Mutex<Vec<Vec<T>>>);

impl<T> Default for BufferPool<T> {
    fn default() -> Self {
        BufferPool(Mutex::default())
    }
}

impl<T> BufferPool<T> {
    /// An empty buffer, with room if there was one.
    pub fn take(&self) -> Vec<T> {
        self.lock().pop().unwrap_or_default()
    }

    /// For the next that needs one.
    pub fn give(&self, mut buffer: Vec<T>) {
        buffer.clear();
        self.lock().push(buffer);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
