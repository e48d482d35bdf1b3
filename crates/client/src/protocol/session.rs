//! A session with a server: what all clients made from it share.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tinsmith_wire::{
    CreateSamplingSessionRequest, CreateSessionRequest, FinishReason, FinishSessionRequest,
    JoinSamplingSessionRequest, UserMetadata,
};

use crate::{
    Error, Event, Result, Severity,
    http::{api::Api, buffer_pool::BufferPool, semaphore::Semaphore},
    protocol::{
        background::{Background, Notice},
        endpoints::{
            CREATE_SAMPLING_SESSION, CREATE_SESSION, FINISH_SESSION, JOIN_SAMPLING_SESSION,
        },
        flavour::{Flavour, FlavourSettings},
        heartbeat::Heartbeat,
    },
};

/// What all clients of a session share.
#[derive(Debug)]
pub(crate) struct Session {
    pub api: Arc<Api>,
    pub flavour: Flavour,
    pub id: String,
    /// Bytes of training requests being sent.
    pub sending: Semaphore,
    /// Bytes of large results being received.
    pub receiving: Semaphore,
    /// Bytes of sample requests being sent.
    pub sampling: Semaphore,
    /// For the bodies of training passes.
    pub bodies: BufferPool<u8>,
    /// For gradients by logprobs.
    pub gradients: BufferPool<f32>,
    heartbeat: Heartbeat,
    models: AtomicU64,
    samplers: AtomicU64,
    custom_losses: AtomicU64,
    /// Samples under way.
    pub samples: AtomicU64,
    background: Background,
}

/// What the user says of a session.
#[derive(Debug, Clone)]
pub(crate) struct SessionSettings {
    pub flavour: FlavourSettings,
    pub tags: Vec<String>,
    pub user_metadata: UserMetadata,
    pub project_id: Option<String>,
    pub display_name: Option<String>,
}

impl Session {
    pub fn start(mut api: Api, settings: SessionSettings) -> Result<Self> {
        let flavour = Flavour::discover(&api, &settings.flavour)?;
        if let Some(pause) = flavour.billing_pause {
            api.retry.billing_pause = api.retry.billing_pause.min(pause);
        }
        let sdk_version = settings.flavour.sdk_version;
        let request = CreateSessionRequest {
            tags: settings.tags,
            user_metadata: settings.user_metadata,
            sdk_version: sdk_version.clone(),
            project_id: settings.project_id,
            display_name: settings.display_name,
        };
        let created = CREATE_SESSION.call(&api, &request).map_err(no_trainer)?;
        let messages = [
            (Severity::Info, created.info_message),
            (Severity::Warning, created.warning_message),
            (Severity::Error, created.error_message),
        ];
        for (severity, text) in messages {
            if let Some(text) = text {
                let text = api.words(text.as_bytes());
                api.progress.event(&Event::Message { severity, text });
            }
        }
        let api = Arc::new(api);
        Ok(Session {
            background: Background::new(api.clone(), &sdk_version),
            heartbeat: Heartbeat::start(api.clone(), &created.session_id)?,
            sending: Semaphore::new(flavour.limits.sending),
            receiving: Semaphore::new(flavour.limits.receiving),
            sampling: Semaphore::new(flavour.limits.sampling),
            api,
            flavour,
            id: created.session_id,
            bodies: BufferPool::default(),
            gradients: BufferPool::default(),
            models: AtomicU64::new(0),
            samplers: AtomicU64::new(0),
            custom_losses: AtomicU64::new(0),
            samples: AtomicU64::new(0),
        })
    }

    /// An error once the session has ended.
    pub fn check_alive(&self) -> Result<()> {
        match self.heartbeat.is_over() {
            true => Err(Error::SessionOver),
            false => Ok(()),
        }
    }

    /// The next number of a model.
    pub fn next_model(&self) -> u64 {
        self.models.fetch_add(1, Ordering::Relaxed)
    }

    /// The next number of a custom loss of the server's.
    pub fn next_custom_loss(&self) -> u64 {
        self.custom_losses.fetch_add(1, Ordering::Relaxed)
    }

    /// The next number of a sampling session or of a save for a throw-away sampler.
    pub fn next_sampler(&self) -> u64 {
        self.samplers.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the server, in time, what it may want to know.
    pub fn notify(&self, notice: Notice) {
        if self.flavour.wants_notices {
            self.background.give(notice);
        }
    }

    /// What makes a sampling session on a base model or a path, however often it is sent.
    pub fn sampling_session_request(&self, model: &str) -> CreateSamplingSessionRequest {
        let is_path = model.starts_with("tinker://");
        CreateSamplingSessionRequest {
            session_id: self.id.clone(),
            sampling_session_seq_id: self.next_sampler(),
            base_model: (!is_path).then(|| model.to_owned()),
            model_path: is_path.then(|| model.to_owned()),
        }
    }

    pub fn create_sampling_session(&self, model: &str) -> Result<String> {
        let request = self.sampling_session_request(model);
        Ok(CREATE_SAMPLING_SESSION.call(&self.api, &request)?.sampling_session_id)
    }

    /// The number of another client of a sampling session.
    pub fn join_sampling_session(&self, id: &str) -> Result<u64> {
        let request = JoinSamplingSessionRequest { sampling_session_id: id.to_owned() };
        Ok(JOIN_SAMPLING_SESSION.call(&self.api, &request)?.client_counter)
    }

    /// Tells the server how the session ended, where it wants to know, and ends the heartbeat.
    pub fn finish(&self, reason: FinishReason, detail: Option<String>) -> Result<()> {
        let request = FinishSessionRequest { reason, detail };
        let answer = FINISH_SESSION.act(&self.api, &self.id, &request);
        self.heartbeat.end();
        match answer {
            Ok(()) => Ok(()),
            Err(Error::Status { status: 404 | 405, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Says what a server is that does not know the one call that every trainer knows.
fn no_trainer(error: Error) -> Error {
    match error {
        Error::Status { call, status: status @ (404 | 405 | 501), message } => Error::Status {
            call,
            status,
            message: format!(
                "{message}; no trainer is there: the base URL is what comes before /api/v1"
            ),
        },
        other => other,
    }
}
