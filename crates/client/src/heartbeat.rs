//! The sign of life that keeps a session alive on the server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use tinsmith_wire::{SessionHeartbeatRequest, json};

use crate::{Error, Result, transport::Http};

/// For one heartbeat to be answered.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A thread that reports to the server until it is dropped, or until the server says (410) that the session is over.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    over: Arc<AtomicBool>,
    /// Dropping it wakes the thread, which then ends by itself: nobody waits for a heartbeat under way.
    _stop: Sender<()>,
}

impl Heartbeat {
    pub fn start(http: Arc<Http>, session_id: &str) -> Result<Self> {
        let session_id = session_id.to_owned();
        let body = json::to_vec(&SessionHeartbeatRequest { session_id }).map_err(Error::Encode)?;
        let over = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = channel();
        let flag = over.clone();
        let beat = move || {
            while stopped.recv_timeout(http.retry.heartbeat_period)
                == Err(RecvTimeoutError::Timeout)
            {
                // Any failure but 410 may pass; a session outlives a few missed heartbeats.
                let answer = http.send("/api/v1/session_heartbeat", Some(&body), &[], TIMEOUT);
                if answer.is_ok_and(|reply| reply.status == 410) {
                    flag.store(true, Ordering::Relaxed);
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("tinsmith-heartbeat".into())
            .spawn(beat)
            .map_err(|error| Error::Config {
                what: "heartbeat thread",
                reason: error.to_string(),
            })?;
        Ok(Heartbeat { over, _stop: stop })
    }

    /// Whether the server has ended the session.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}
