//! Telling a server, in the background, what spares it work and memory.

use std::{
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use serde::Serialize;
use tinsmith_wire::{
    CancelFutureRequest, ClientConfigRequest, DynamicConfig, RetrieveFuturesRequest, json,
};

use crate::{
    http::{
        api::Api,
        connection::Limits,
        message::{Payload, Reply, Request},
    },
    protocol::endpoints::{CANCEL_FUTURE, DYNAMIC_CONFIG, Endpoint, RETRIEVE_FUTURES},
};

/// For a request to be answered.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For results to be acknowledged.
const SHORT_TIMEOUT: Duration = Duration::from_secs(5);
/// The shortest time, in seconds, after which a server may want to be asked for its settings again.
const MIN_REFRESH: f64 = 10.0;

/// What a server may want to know.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Nobody waits for this sample any longer.
    Abandoned { request_id: String },
    /// These results were read, so that it need not keep them.
    Read(RetrieveFuturesRequest),
}

/// Gives notice on a thread, so that nobody waits for it, and of one thing after another: that is
/// as few cancellations at once as a server may ask for.
#[derive(Debug)]
pub(crate) struct Background {
    api: Arc<Api>,
    sdk_version: String,
    /// Made with the thread, at the first notice; none if there can be no thread.
    sender: OnceLock<Option<Sender<Notice>>>,
}

impl Background {
    pub fn new(api: Arc<Api>, sdk_version: &str) -> Self {
        Background { api, sdk_version: sdk_version.to_owned(), sender: OnceLock::new() }
    }

    pub fn give(&self, notice: Notice) {
        if let Some(sender) = self.sender.get_or_init(|| self.start()) {
            // Without a receiver the server finds out by itself, at the end of the session.
            let _ = sender.send(notice);
        }
    }

    fn start(&self) -> Option<Sender<Notice>> {
        let (send, receive) = channel();
        let settings = Settings {
            api: self.api.clone(),
            sdk_version: self.sdk_version.clone(),
            config: DynamicConfig::default(),
            asked: None,
        };
        let thread = thread::Builder::new()
            .name("tinsmith-background".into())
            .spawn(move || give_all(settings, &receive));
        thread.ok().map(|_| send)
    }
}

/// Ends when the session does, once all notice is given. What is refused is not given again: a
/// sample may have ended meanwhile, a result been dropped.
fn give_all(mut settings: Settings, notices: &Receiver<Notice>) {
    for notice in notices {
        let api = settings.api.clone();
        match notice {
            Notice::Abandoned { request_id } if settings.current().sample_cancel_enabled => {
                let body = CancelFutureRequest { request_id };
                post(&api, &CANCEL_FUTURE, &body, TIMEOUT);
            }
            Notice::Abandoned { .. } => {}
            Notice::Read(body) => {
                post(&api, &RETRIEVE_FUTURES, &body, SHORT_TIMEOUT);
            }
        }
    }
}

/// What the server may change during a session.
struct Settings {
    api: Arc<Api>,
    sdk_version: String,
    config: DynamicConfig,
    asked: Option<Duration>,
}

impl Settings {
    /// As of the last refresh. If that fails, what was so before stays so.
    fn current(&mut self) -> &DynamicConfig {
        let now = self.api.clock.now();
        let seconds = self.config.refresh_interval_sec.max(MIN_REFRESH);
        let good_for = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        if self.asked.is_none_or(|asked| now.saturating_sub(asked) >= good_for) {
            self.asked = Some(now);
            if let Some(config) = self.ask() {
                self.config = config;
            }
        }
        &self.config
    }

    fn ask(&self) -> Option<DynamicConfig> {
        let request = ClientConfigRequest { sdk_version: self.sdk_version.clone() };
        let reply = post(&self.api, &DYNAMIC_CONFIG, &request, TIMEOUT)?;
        match reply.status {
            200..300 => json::from_slice(&reply.body).ok(),
            404 | 405 => Some(DynamicConfig::default()),
            _ => None,
        }
    }
}

/// The answer, if one comes.
fn post<Q: Serialize, A>(
    api: &Api,
    endpoint: &Endpoint<Q, A>,
    body: &Q,
    timeout: Duration,
) -> Option<Reply> {
    let payload = Payload::json(body).ok()?;
    let path = endpoint.path("");
    let key = api.idempotency_key();
    let request =
        Request { headers: &[("X-Idempotency-Key", &key)], ..Request::post(&path, &payload) };
    api.send(&request, Limits { total: timeout, silence: timeout }).ok()
}
