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

use tinsmith_wire::SessionHeartbeatRequest;

use crate::{
    Error, Event, Result,
    http::{
        api::Api,
        connection::Limits,
        message::{Payload, Request},
    },
    protocol::endpoints::SESSION_HEARTBEAT,
};

/// For one heartbeat to be answered.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A thread that reports to the server until it is dropped, or until the server says (410) that the
/// session is over.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    over: Arc<AtomicBool>,
    /// Dropping it wakes the thread, which then ends by itself: nobody waits for a heartbeat under
    /// way.
    _stop: Sender<()>,
}

impl Heartbeat {
    pub fn start(api: Arc<Api>, session_id: &str) -> Result<Self> {
        let session_id = session_id.to_owned();
        let payload = Payload::json(&SessionHeartbeatRequest { session_id })?;
        let path = SESSION_HEARTBEAT.path("");
        let over = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = channel();
        let flag = over.clone();
        let beat = move || {
            let mut silence = Silence::new(api.clock.now(), api.retry.heartbeat_warning);
            while !flag.load(Ordering::Relaxed)
                && stopped.recv_timeout(api.retry.heartbeat_period)
                    == Err(RecvTimeoutError::Timeout)
            {
                // Any failure but 410 may pass; a session outlives a few missed heartbeats.
                let limits = Limits { total: TIMEOUT, silence: TIMEOUT };
                let status = api
                    .send(&Request::post(&path, &payload), limits)
                    .map_or(0, |reply| reply.status);
                if status == 410 {
                    flag.store(true, Ordering::Relaxed);
                }
                let answered = (200..300).contains(&status);
                if let Some(event) = silence.note(api.clock.now(), answered) {
                    api.progress.event(&event);
                }
            }
        };
        thread::Builder::new().name("tinsmith-heartbeat".into()).spawn(beat).map_err(|error| {
            Error::Config { what: "heartbeat thread", reason: error.to_string() }
        })?;
        Ok(Heartbeat { over, _stop: stop })
    }

    /// Whether the session has ended.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Ends the session on this side: no more heartbeats.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// How long no heartbeat has been answered.
struct Silence {
    since: Duration,
    limit: Duration,
    is_told: bool,
}

impl Silence {
    fn new(now: Duration, limit: Duration) -> Self {
        Silence { since: now, limit, is_told: false }
    }

    /// What there is to tell after another heartbeat.
    fn note(&mut self, now: Duration, answered: bool) -> Option<Event> {
        if answered {
            let was_told = std::mem::take(&mut self.is_told);
            self.since = now;
            return was_told.then_some(Event::HeartbeatBack);
        }
        let silent = now.saturating_sub(self.since);
        if silent < self.limit || self.is_told {
            return None;
        }
        self.is_told = true;
        Some(Event::HeartbeatLost(silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_silence_is_told_once_and_so_is_its_end() {
        let at = Duration::from_secs;
        let mut silence = Silence::new(at(0), at(120));
        let told: Vec<Option<Event>> = [
            (10, true),
            (20, false),
            (129, false),
            (130, false),
            (140, false),
            (150, true),
            (160, true),
        ]
        .into_iter()
        .map(|(now, answered)| silence.note(at(now), answered))
        .collect();
        let lost = Some(Event::HeartbeatLost(at(120)));
        let back = Some(Event::HeartbeatBack);
        assert_eq!(told, [None, None, None, lost, None, back, None]);
    }
}
