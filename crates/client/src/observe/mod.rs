//! What a program can see while calls wait, and the time they wait by.

pub(crate) mod cancel;
pub(crate) mod clock;
pub(crate) mod metrics_writer;
pub(crate) mod progress;
pub(crate) mod step_files;
pub(crate) mod trace;
