//! Telling a server of samples that nobody waits for any longer.

use std::{
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use tinsmith_wire::{CancelFutureRequest, ClientConfigRequest, DynamicConfig, json};

use crate::{
    Result,
    transport::{Http, Payload, Reply, Request},
};

/// For one request to be answered.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest time, in seconds, after which a server may want to be asked for its settings again.
const MIN_REFRESH: f64 = 10.0;

/// Cancels samples where the server wants to know of them: on a thread, so that dropping one waits for nothing, and one
/// after another, which is as few at once as a server may ask for.
#[derive(Debug)]
pub(crate) struct Abandoned {
    http: Arc<Http>,
    sdk_version: String,
    /// Made with the thread, when the first sample is abandoned; none if there can be no thread.
    requests: OnceLock<Option<Sender<String>>>,
}

impl Abandoned {
    pub fn new(http: Arc<Http>, sdk_version: &str) -> Self {
        Abandoned {
            http,
            sdk_version: sdk_version.to_owned(),
            requests: OnceLock::new(),
        }
    }

    pub fn push(&self, request_id: String) {
        if let Some(requests) = self.requests.get_or_init(|| self.start()) {
            // Without a receiver the server finds out by itself.
            let _ = requests.send(request_id);
        }
    }

    fn start(&self) -> Option<Sender<String>> {
        let (send, receive) = channel();
        let settings = Settings {
            http: self.http.clone(),
            sdk_version: self.sdk_version.clone(),
            config: DynamicConfig::default(),
            asked: None,
        };
        let thread = thread::Builder::new()
            .name("tinsmith-cancel".into())
            .spawn(move || cancel_all(settings, &receive));
        thread.ok().map(|_| send)
    }
}

/// Ends when the session does, once all are told.
fn cancel_all(mut settings: Settings, requests: &Receiver<String>) {
    for request_id in requests {
        if settings.current().sample_cancel_enabled {
            // One that has ended meanwhile cannot be cancelled, which is as well.
            let _ = post(
                &settings.http,
                "cancel_future",
                &CancelFutureRequest { request_id },
            );
        }
    }
}

/// What the server may change during a session.
struct Settings {
    http: Arc<Http>,
    sdk_version: String,
    config: DynamicConfig,
    asked: Option<Duration>,
}

impl Settings {
    /// As of the last refresh. If that fails, what was so before stays so.
    fn current(&mut self) -> &DynamicConfig {
        let now = self.http.clock.now();
        let seconds = self.config.refresh_interval_sec.max(MIN_REFRESH);
        let good_for = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        if self
            .asked
            .is_none_or(|asked| now.saturating_sub(asked) >= good_for)
        {
            self.asked = Some(now);
            if let Some(config) = self.ask() {
                self.config = config;
            }
        }
        &self.config
    }

    fn ask(&self) -> Option<DynamicConfig> {
        let request = ClientConfigRequest {
            sdk_version: self.sdk_version.clone(),
        };
        let reply = post(&self.http, "client/dynamic_config", &request).ok()??;
        match reply.status {
            200..300 => json::from_slice(&reply.body).ok(),
            404 | 405 => Some(DynamicConfig::default()),
            _ => None,
        }
    }
}

/// The answer, if one comes.
fn post(http: &Http, call: &str, body: &impl serde::Serialize) -> Result<Option<Reply>> {
    let payload = Payload::json(body)?;
    let path = format!("/api/v1/{call}");
    let key = http.idempotency_key();
    let request = Request {
        headers: &[("X-Idempotency-Key", &key)],
        ..Request::post(&path, &payload)
    };
    Ok(http.send(&request, TIMEOUT).ok())
}
