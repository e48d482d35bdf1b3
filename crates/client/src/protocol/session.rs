//! A session with a server: what all clients made from it share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tinsmith_wire::{
    CreateSamplingSessionRequest, CreateSamplingSessionResponse, CreateSessionRequest,
    CreateSessionResponse, FinishReason, FinishSessionRequest, JoinSamplingSessionRequest,
    JoinSamplingSessionResponse, Submitted,
};

use crate::{
    CallInfo, Error, Event, RequestOrder, Result, ServiceClientBuilder, Severity,
    http::buffer_pool::Buffers,
    http::connection::{Http, Payload, Request},
    http::retry::Kind,
    protocol::background::{Notice, Notices},
    protocol::flavour::Server,
    protocol::heartbeat::Heartbeat,
    protocol::poll::Pending,
};

/// What all clients of a session share.
#[derive(Debug)]
pub(crate) struct Session {
    pub http: Arc<Http>,
    pub server: Server,
    pub id: String,
    /// For the bodies of training passes.
    pub bodies: Buffers<u8>,
    /// For gradients by logprobs.
    pub gradients: Buffers<f32>,
    heartbeat: Heartbeat,
    models: AtomicU64,
    samplers: AtomicU64,
    custom_losses: AtomicU64,
    /// Samples under way.
    pub samples: AtomicU64,
    notices: Notices,
}

/// A request whose result comes later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Submission {
    /// What it is called in errors.
    pub call: &'static str,
    /// The last part of its address.
    pub path: &'static str,
    /// What it is called when its result is asked for.
    pub request_type: &'static str,
    pub seq_id: Option<u64>,
    pub kind: Kind,
}

impl Submission {
    pub fn new(call: &'static str, request_type: &'static str) -> Self {
        Submission { call, path: call, request_type, seq_id: None, kind: Kind::Submit }
    }

    pub fn kind(self, kind: Kind) -> Self {
        Submission { kind, ..self }
    }

    pub fn seq(self, seq_id: u64) -> Self {
        Submission { seq_id: Some(seq_id), ..self }
    }
}

impl Session {
    pub fn start(mut http: Http, settings: &ServiceClientBuilder) -> Result<Self> {
        let server = Server::meet(&http, settings)?;
        if let Some(config) = &server.config {
            let pause =
                Duration::try_from_secs_f64(config.billing_exception_max_pause_duration_sec);
            http.retry.billing_pause = http.retry.billing_pause.min(pause.unwrap_or_default());
        }
        let request = CreateSessionRequest {
            tags: settings.session_tags(),
            user_metadata: settings.user_metadata.clone(),
            sdk_version: settings.sdk_version.clone(),
            project_id: settings.project_id.clone(),
            display_name: settings.display_name.clone(),
        };
        let info = CallInfo::of("create_session");
        let created: CreateSessionResponse =
            http.call("/api/v1/create_session", &request, info, Kind::Start).map_err(no_trainer)?;
        let messages = [
            (Severity::Info, created.info_message),
            (Severity::Warning, created.warning_message),
            (Severity::Error, created.error_message),
        ];
        for (severity, text) in messages {
            if let Some(text) = text {
                let text = http.words(text.as_bytes());
                http.progress.event(&Event::Message { severity, text });
            }
        }
        let http = Arc::new(http);
        Ok(Session {
            notices: Notices::new(http.clone(), &settings.sdk_version),
            heartbeat: Heartbeat::start(http.clone(), &created.session_id)?,
            http,
            server,
            id: created.session_id,
            bodies: Buffers::default(),
            gradients: Buffers::default(),
            models: AtomicU64::new(0),
            samplers: AtomicU64::new(0),
            custom_losses: AtomicU64::new(0),
            samples: AtomicU64::new(0),
        })
    }

    /// Sends a JSON request whose result comes later.
    pub fn submit<P>(&self, submission: Submission, body: &impl Serialize) -> Result<Pending<P>> {
        let (_, pending) = self.submit_payload(submission, &Payload::json(body)?, &[])?;
        Ok(pending)
    }

    /// Sends a request whose result comes later, and gives what the server said on accepting it.
    pub fn submit_payload<P>(
        &self,
        submission: Submission,
        payload: &Payload,
        headers: &[(&str, &str)],
    ) -> Result<(Submitted, Pending<P>)> {
        if self.heartbeat.is_over() {
            return Err(Error::SessionOver);
        }
        let mut info = CallInfo {
            seq_id: submission.seq_id,
            knows_repetition: self.http.retry.resend_uncertain
                && self.server.order() == RequestOrder::BySequence,
            ..CallInfo::of(submission.call)
        };
        let path = format!("/api/v1/{}", submission.path);
        let request = Request { headers, ..Request::post(&path, payload) };
        let start = self.http.clock.now();
        let reply = self.http.exchange(&request, &mut info, submission.kind)?;
        self.server.recognise(&reply);
        let roundtrip = self.http.since(start);
        let submitted: Submitted = self.http.read(&reply, info.clone())?;
        let id = submitted.request_id.clone();
        let mut pending = Pending::new(&info, submission.request_type, id, roundtrip);
        pending.bytes.sent = payload.bytes.len() as u64;
        Ok((submitted, pending))
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
        if self.server.config.is_some() {
            self.notices.give(notice);
        }
    }

    pub fn create_sampling_session(&self, model: &str) -> Result<String> {
        let is_path = model.starts_with("tinker://");
        let request = CreateSamplingSessionRequest {
            session_id: self.id.clone(),
            sampling_session_seq_id: self.next_sampler(),
            base_model: (!is_path).then(|| model.to_owned()),
            model_path: is_path.then(|| model.to_owned()),
        };
        let info = CallInfo::of("create_sampling_session");
        let path = "/api/v1/create_sampling_session";
        let created: CreateSamplingSessionResponse =
            self.http.call(path, &request, info, Kind::Query)?;
        Ok(created.sampling_session_id)
    }

    /// The number of another client of a sampling session.
    pub fn join_sampling_session(&self, id: &str) -> Result<u64> {
        let request = JoinSamplingSessionRequest { sampling_session_id: id.to_owned() };
        let info = CallInfo::of("join_sampling_session");
        let path = "/api/v1/join_sampling_session";
        let joined: JoinSamplingSessionResponse =
            self.http.call(path, &request, info, Kind::Query)?;
        Ok(joined.client_counter)
    }

    /// Tells the server how the session ended, where it wants to know, and ends the heartbeat.
    pub fn finish(&self, reason: FinishReason, detail: Option<String>) -> Result<()> {
        let payload = Payload::json(&FinishSessionRequest { reason, detail })?;
        let path = format!("/api/v1/sessions/{}/finish", self.id);
        let mut info = CallInfo::of("sessions/finish");
        let answer = self.http.exchange(&Request::post(&path, &payload), &mut info, Kind::Query);
        self.heartbeat.end();
        match answer {
            Ok(_) => Ok(()),
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
