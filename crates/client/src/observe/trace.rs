//! Spans of the `tracing` crate, behind the feature of that name: `step` holds `pass`, `loss` and
//! `pass`; these hold `request`s; an attempt that failed is an event. All are of the level `debug`
//! and the target `tinsmith_client`.

use crate::CallInfo;

#[cfg(feature = "tracing")]
mod spans {
    use std::time::Duration;

    use tracing::{Span, debug, debug_span, span::EnteredSpan};

    use super::CallInfo;

    const TARGET: &str = "tinsmith_client";

    /// Ends when dropped.
    pub(crate) type Entered = EnteredSpan;

    /// A span that threads may share.
    #[derive(Debug, Clone)]
    pub(crate) struct Parent(Span);

    impl Parent {
        /// The span that this thread is in.
        pub fn current() -> Self {
            Parent(Span::current())
        }

        /// Puts this thread into it.
        pub fn enter(&self) -> Entered {
            self.0.clone().entered()
        }
    }

    pub(crate) fn step(model_id: &str) -> Entered {
        debug_span!(target: TARGET, "step", model_id).entered()
    }

    pub(crate) fn loss() -> Entered {
        debug_span!(target: TARGET, "loss").entered()
    }

    pub(crate) fn pass(name: &'static str, seq_id: u64, data: usize) -> Entered {
        debug_span!(target: TARGET, "pass", name, seq_id, data).entered()
    }

    pub(crate) fn request(info: &CallInfo) -> Entered {
        let CallInfo { call, seq_id, request_id, attempts, .. } = info;
        let (request_id, attempt) = (request_id.as_deref(), attempts);
        debug_span!(target: TARGET, "request", call, seq_id, request_id, attempt).entered()
    }

    pub(crate) fn retry(info: &CallInfo, reason: &str, wait: Duration) {
        let wait = wait.as_secs_f64();
        debug!(target: TARGET, call = info.call, seq_id = info.seq_id, reason, wait, "retry");
    }
}

#[cfg(not(feature = "tracing"))]
mod spans {
    use std::time::Duration;

    use super::CallInfo;

    /// Nothing to end.
    #[derive(Debug)]
    pub(crate) struct Entered;

    #[derive(Debug, Clone)]
    pub(crate) struct Parent;

    impl Parent {
        pub fn current() -> Self {
            Parent
        }

        pub fn enter(&self) -> Entered {
            Entered
        }
    }

    pub(crate) fn step(_: &str) -> Entered {
        Entered
    }

    pub(crate) fn loss() -> Entered {
        Entered
    }

    pub(crate) fn pass(_: &'static str, _: u64, _: usize) -> Entered {
        Entered
    }

    pub(crate) fn request(_: &CallInfo) -> Entered {
        Entered
    }

    pub(crate) fn retry(_: &CallInfo, _: &str, _: Duration) {}
}

pub(crate) use spans::{Parent, loss, pass, request, retry, step};
