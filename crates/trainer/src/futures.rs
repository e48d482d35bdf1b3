//! Results that are fetched later: filled in by the worker, polled by clients.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::outcome::{Finished, Outcome};
use crate::{Error, Result};

/// Most bytes of finished results that are kept for clients to fetch (again); the oldest go first.
const KEPT_BYTES: usize = 512 << 20;

/// The model and sequence id of a training request.
pub(crate) type Place = (String, u64);

/// All futures of a trainer.
#[derive(Default)]
pub(crate) struct Futures {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    issued: u64,
    cells: HashMap<String, Arc<Cell>>,
    finished: VecDeque<(String, usize)>,
    bytes: usize,
}

#[derive(Default)]
struct Cell {
    place: Option<Place>,
    finished: OnceLock<Arc<Finished>>,
    ready: Notify,
}

impl Futures {
    /// A new future, pending. `instance` tells the trainers' ids apart, so that none answers for
    /// another after a restart.
    pub(crate) fn issue(&self, instance: &str, place: Option<Place>) -> String {
        let mut inner = self.lock();
        let id = format!("{instance}-{}", inner.issued);
        inner.issued += 1;
        let cell = Cell { place, ..Cell::default() };
        inner.cells.insert(id.clone(), Arc::new(cell));
        id
    }

    /// Sets how `id` ended.
    pub(crate) fn finish(&self, id: &str, outcome: Outcome) {
        let finished = Finished::new(outcome);
        let mut inner = self.lock();
        let Some(cell) = inner.cells.get(id).cloned() else {
            return;
        };
        inner.bytes += finished.size();
        inner.finished.push_back((id.to_owned(), finished.size()));
        while inner.bytes > KEPT_BYTES && inner.finished.len() > 1 {
            if let Some((oldest, len)) = inner.finished.pop_front() {
                inner.cells.remove(&oldest);
                inner.bytes -= len;
            }
        }
        drop(inner);
        // A future is finished once; a second outcome would be ignored.
        let _ = cell.finished.set(Arc::new(finished));
        cell.ready.notify_waiters();
    }

    /// How `id` ended, or `None` when it is not ready within `patience`.
    pub(crate) async fn wait(
        &self,
        id: &str,
        instance: &str,
        patience: Duration,
    ) -> Result<Option<Arc<Finished>>> {
        let cell = self.find(id, instance)?;
        let notified = cell.ready.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if cell.finished.get().is_none() {
            let _ = tokio::time::timeout(patience, notified).await;
        }
        Ok(cell.finished.get().cloned())
    }

    /// Where the request of `id` stands, if it is a training request.
    pub(crate) fn place(&self, id: &str) -> Option<Place> {
        self.lock().cells.get(id)?.place.clone()
    }

    /// Whether `id` has ended with an error.
    pub(crate) fn has_failed(&self, id: &str) -> bool {
        let inner = self.lock();
        let finished = inner.cells.get(id).and_then(|cell| cell.finished.get());
        finished.is_some_and(|finished| finished.is_failure())
    }

    fn find(&self, id: &str, instance: &str) -> Result<Arc<Cell>> {
        let inner = self.lock();
        if let Some(cell) = inner.cells.get(id) {
            return Ok(cell.clone());
        }
        let number = id.strip_prefix(instance).and_then(|rest| rest.strip_prefix('-'));
        match number.and_then(|n| n.parse::<u64>().ok()) {
            Some(n) if n < inner.issued => {
                Err(Error::Gone(format!("the result of request `{id}` is no longer kept")))
            }
            _ => Err(Error::NotFound {
                kind: "request",
                id: id.to_owned(),
                hint: "a restarted trainer forgets the requests of the one before".to_owned(),
            }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
