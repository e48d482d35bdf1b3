//! A session with a server: where models and samplers come from.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tinsmith_wire::{
    CreateModelRequest, CreateModelResponse, CreateSamplingSessionRequest,
    CreateSamplingSessionResponse, CreateSessionRequest, CreateSessionResponse, Health, LoraConfig,
    ServerCapabilities, Submitted, WeightsInfoRequest, WeightsInfoResponse,
};

use crate::{
    ApiFuture, CallInfo, ChunkLimits, Error, Result, SamplingClient, ServiceClientBuilder,
    TrainingClient, future::Pending, heartbeat::Heartbeat, retry::Kind, transport::Http,
};

/// A session with a training service. It lives on the server as long as this, or any client made from it, lives here;
/// clones share it.
///
/// ```
/// use tinsmith_client::{LoraConfig, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// let models = service.get_server_capabilities()?.supported_models;
/// let training = service.create_lora_training_client(&models[0].model_name, &LoraConfig::rank(8))?;
/// assert_eq!(training.get_info()?.lora_rank, Some(8));
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct ServiceClient {
    session: Arc<Session>,
}

/// What all clients of a session share.
#[derive(Debug)]
pub(crate) struct Session {
    pub http: Arc<Http>,
    pub id: String,
    pub chunks: ChunkLimits,
    heartbeat: Heartbeat,
    models: AtomicU64,
    samplers: AtomicU64,
}

impl ServiceClient {
    /// Starts a session with the server that the environment names: `TINKER_BASE_URL` (the hosted service when unset),
    /// `TINKER_API_KEY`, `TINKER_TAGS`.
    ///
    /// # Errors
    /// As [`ServiceClientBuilder::connect`].
    pub fn from_env() -> Result<Self> {
        Self::builder().connect()
    }

    /// Settings, to start a session with.
    pub fn builder() -> ServiceClientBuilder {
        ServiceClientBuilder::default()
    }

    pub(crate) fn start(http: Http, settings: &ServiceClientBuilder) -> Result<Self> {
        let request = CreateSessionRequest {
            tags: settings.session_tags(),
            user_metadata: settings.user_metadata.clone(),
            sdk_version: settings.sdk_version.clone(),
            project_id: settings.project_id.clone(),
            ..CreateSessionRequest::default()
        };
        let info = call("create_session");
        let created: CreateSessionResponse =
            http.call("/api/v1/create_session", &request, info, Kind::Start)?;
        let http = Arc::new(http);
        let session = Session {
            heartbeat: Heartbeat::start(http.clone(), &created.session_id)?,
            http,
            id: created.session_id,
            chunks: settings.chunks,
            models: AtomicU64::new(0),
            samplers: AtomicU64::new(0),
        };
        Ok(ServiceClient {
            session: Arc::new(session),
        })
    }

    /// The session's id on the server.
    pub fn session_id(&self) -> &str {
        &self.session.id
    }

    /// The models that the server offers.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Reply`].
    pub fn get_server_capabilities(&self) -> Result<ServerCapabilities> {
        self.session
            .get("get_server_capabilities", "/api/v1/get_server_capabilities")
    }

    /// Whether the server is well: an error if not.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Reply`].
    pub fn health(&self) -> Result<Health> {
        self.session.get("healthz", "/api/v1/healthz")
    }

    /// What a checkpoint (`tinker://..`) was trained from.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Reply`].
    pub fn weights_info(&self, path: &str) -> Result<WeightsInfoResponse> {
        let request = WeightsInfoRequest {
            tinker_path: path.to_owned(),
        };
        self.session.http.call(
            "/api/v1/weights_info",
            &request,
            call("weights_info"),
            Kind::Submit,
        )
    }

    /// Creates a LoRA adapter on `base_model` and waits until it can be trained.
    ///
    /// # Errors
    /// [`Error::Config`] for an adapter that trains nothing, before anything is sent; [`Error::Status`] or
    /// [`Error::RequestFailed`] for a model that the server does not have.
    pub fn create_lora_training_client(
        &self,
        base_model: &str,
        config: &LoraConfig,
    ) -> Result<TrainingClient> {
        check_lora(config)?;
        let session = &self.session;
        let request = CreateModelRequest {
            session_id: session.id.clone(),
            model_seq_id: session.models.fetch_add(1, Ordering::Relaxed),
            base_model: base_model.to_owned(),
            lora_config: config.clone(),
            ..CreateModelRequest::default()
        };
        let pending =
            session.submit("create_model", "CreateModel", &request, None, Kind::Submit)?;
        let created: CreateModelResponse =
            ApiFuture::single(session.clone(), pending, |_, answer| Ok(answer)).result()?;
        Ok(TrainingClient::new(session.clone(), created.model_id))
    }

    /// Samples from `model`: the name of a base model, or a checkpoint (`tinker://..`) saved for sampling.
    ///
    /// # Errors
    /// [`Error::Status`] for a model or checkpoint that the server does not have.
    pub fn create_sampling_client(&self, model: &str) -> Result<SamplingClient> {
        SamplingClient::create(self.session.clone(), model)
    }
}

impl Session {
    /// Sends a request whose result comes later. `call` is also the last part of its address.
    pub fn submit<B: serde::Serialize, P>(
        &self,
        name: &'static str,
        request_type: &'static str,
        body: &B,
        seq_id: Option<u64>,
        kind: Kind,
    ) -> Result<Pending<P>> {
        if self.heartbeat.is_over() {
            return Err(Error::SessionOver);
        }
        let info = CallInfo {
            seq_id,
            ..call(name)
        };
        let submitted: Submitted = self
            .http
            .call(&format!("/api/v1/{name}"), body, info, kind)?;
        Ok(Pending::new(
            name,
            request_type,
            seq_id,
            submitted.request_id,
        ))
    }

    fn get<T: serde::de::DeserializeOwned>(&self, name: &'static str, path: &str) -> Result<T> {
        let mut info = call(name);
        let answer = self.http.exchange(path, None, &mut info, Kind::Submit)?;
        self.http.read(&answer, info)
    }

    /// The next number of a sampling session or of a save for a throw-away sampler.
    pub fn next_sampler(&self) -> u64 {
        self.samplers.fetch_add(1, Ordering::Relaxed)
    }

    pub fn create_sampling_session(&self, model: &str) -> Result<String> {
        let is_path = model.starts_with("tinker://");
        let request = CreateSamplingSessionRequest {
            session_id: self.id.clone(),
            sampling_session_seq_id: self.next_sampler(),
            base_model: (!is_path).then(|| model.to_owned()),
            model_path: is_path.then(|| model.to_owned()),
        };
        let info = call("create_sampling_session");
        let path = "/api/v1/create_sampling_session";
        let created: CreateSamplingSessionResponse =
            self.http.call(path, &request, info, Kind::Submit)?;
        Ok(created.sampling_session_id)
    }
}

pub(crate) fn call(name: &'static str) -> CallInfo {
    CallInfo {
        call: name,
        ..CallInfo::default()
    }
}

fn check_lora(config: &LoraConfig) -> Result<()> {
    let reason = if config.rank == 0 {
        "the rank must be at least 1"
    } else if !(config.train_attn || config.train_mlp || config.train_unembed) {
        "at least one of train_attn, train_mlp and train_unembed must be set"
    } else {
        return Ok(());
    };
    Err(Error::Config {
        what: "LoraConfig",
        reason: reason.into(),
    })
}
