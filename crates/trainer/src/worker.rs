//! The thread that computes: one request after another, so that HTTP never waits for arithmetic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Receiver;

use crate::engine::Engine;
use crate::{Error, Result};

/// A piece of work.
pub(crate) type Job = Box<dyn FnOnce(&mut Engine) + Send>;

/// Runs jobs until their senders are gone.
pub(crate) fn run(jobs: &Receiver<Job>, mut engine: Engine) {
    for job in jobs {
        job(&mut engine);
    }
}

/// `work`, a panic in it made an error. The engine changes a model only at the end of a
/// computation, so it stays sound.
pub(crate) fn guarded<R>(
    engine: &mut Engine,
    work: impl FnOnce(&mut Engine) -> Result<R>,
) -> Result<R> {
    catch_unwind(AssertUnwindSafe(|| work(engine))).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Error::Internal(format!("panic: {message}")))
    })
}
