//! Where models and samplers come from.

use std::sync::Arc;

use tinsmith_wire::{
    CustomLossInput, FinishReason, Health, LoraConfig, LossFn, LossFnConfig, LossGraph,
    ServerCapabilities, WeightsInfoResponse,
};

#[cfg(doc)]
use crate::Error;
use crate::{
    Capabilities, Dialect, ModelOptions, RequestOrder, RestClient, Result, SamplingClient, Traffic,
    TrainingClient, capabilities,
    custom_loss::server_side,
    http::api::Api,
    protocol::{
        endpoints::{CAPABILITIES, HEALTH},
        session::{Session, SessionSettings},
    },
};

/// A session with a training service. It lives on the server as long as this, or any client made
/// from it, lives here; clones share it.
///
/// ```
/// use tinsmith_client::{LoraConfig, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// let models = service.server_capabilities()?.supported_models;
/// let training = service.create_lora_training_client(&models[0].model_name, &LoraConfig::rank(8))?;
/// assert_eq!(training.info()?.lora_rank, Some(8));
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct ServiceClient {
    session: Arc<Session>,
}

impl ServiceClient {
    pub(crate) fn start(api: Api, settings: SessionSettings) -> Result<Self> {
        let session = Arc::new(Session::start(api, settings)?);
        Ok(ServiceClient { session })
    }

    /// The session's id on the server.
    pub fn session_id(&self) -> &str {
        &self.session.id
    }

    /// What is spoken with the server.
    pub fn dialect(&self) -> Dialect {
        self.session.flavour.dialect
    }

    /// By what the server orders requests, as far as is known: SkyRL-tx is recognized when it
    /// accepts the first model.
    pub fn request_order(&self) -> RequestOrder {
        self.session.flavour.order()
    }

    /// What this session has sent and received so far.
    pub fn traffic(&self) -> Traffic {
        self.session.api.traffic()
    }

    /// The models that the server offers.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Reply`].
    ///
    /// ```
    /// use tinsmith_client::ServiceClient;
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// let models = service.server_capabilities()?.supported_models;
    /// assert!(models.iter().any(|model| model.model_name == "tiny-qwen3"));
    /// # anyhow::Ok(())
    /// ```
    pub fn server_capabilities(&self) -> Result<ServerCapabilities> {
        CAPABILITIES.get(&self.session.api, "")
    }

    /// What the server supports, as it says itself and as harmless questions show.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Unreachable`]; a question that the server refuses is an
    /// answer.
    ///
    /// ```
    /// use tinsmith_client::{ServiceClient, Support};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// let capabilities = service.capabilities()?;
    /// assert_eq!(capabilities.health, Support::Yes);
    /// assert!(!capabilities.models.is_empty());
    /// # anyhow::Ok(())
    /// ```
    pub fn capabilities(&self) -> Result<Capabilities> {
        capabilities::probe(&self.session)
    }

    /// Whether the server is well: an error if not.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Reply`].
    pub fn health(&self) -> Result<Health> {
        HEALTH.get(&self.session.api, "")
    }

    /// A client for what the server keeps: runs, checkpoints, sessions.
    pub fn rest(&self) -> RestClient {
        RestClient::new(self.session.api.clone())
    }

    /// What a checkpoint (`tinker://..`) was trained from.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Reply`].
    pub fn weights_info(&self, path: &str) -> Result<WeightsInfoResponse> {
        self.rest().weights_info(path)
    }

    /// Creates a LoRA adapter on `base_model` and waits until it can be trained.
    ///
    /// # Errors
    /// [`Error::Config`] for an adapter that trains nothing, before anything is sent;
    /// [`Error::Status`] or [`Error::RequestFailed`] for a model that the server does not have.
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// let config = LoraConfig { train_unembed: false, ..LoraConfig::rank(16).seed(7) };
    /// let training = service.create_lora_training_client("tiny-qwen3", &config)?;
    /// assert_eq!(training.info()?.lora_rank, Some(16));
    /// # anyhow::Ok(())
    /// ```
    pub fn create_lora_training_client(
        &self,
        base_model: &str,
        config: &LoraConfig,
    ) -> Result<TrainingClient> {
        self.create_training_client(base_model, config, &ModelOptions::default())
    }

    /// As [`create_lora_training_client`](Self::create_lora_training_client), with another
    /// optimizer or with notes.
    ///
    /// # Errors
    /// As [`create_lora_training_client`](Self::create_lora_training_client).
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ModelOptions, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// let notes = [("purpose".to_owned(), "a test".into())].into();
    /// let options = ModelOptions::default().user_metadata(notes);
    /// let training = service.create_training_client("tiny-qwen3", &LoraConfig::rank(8), &options)?;
    /// # drop(training);
    /// # anyhow::Ok(())
    /// ```
    pub fn create_training_client(
        &self,
        base_model: &str,
        config: &LoraConfig,
        options: &ModelOptions,
    ) -> Result<TrainingClient> {
        TrainingClient::create(&self.session, base_model, config, options)
    }

    /// Creates a model that goes on from a checkpoint (`tinker://..`) of
    /// [`save_state`](TrainingClient::save_state): with its weights, and with a new optimizer.
    ///
    /// # Errors
    /// [`Error::Status`] or [`Error::RequestFailed`] for a checkpoint that the server does not
    /// have.
    pub fn create_training_client_from_state(&self, path: &str) -> Result<TrainingClient> {
        TrainingClient::from_state(&self.session, path, false)
    }

    /// As [`create_training_client_from_state`](Self::create_training_client_from_state), with the
    /// optimizer's state too.
    ///
    /// # Errors
    /// As [`create_training_client_from_state`](Self::create_training_client_from_state).
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// let first = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let saved = first.save_state("halfway")?.result()?;
    /// let second = service.create_training_client_from_state_with_optimizer(&saved.path)?;
    /// assert_eq!(second.info()?.lora_rank, Some(8));
    /// # anyhow::Ok(())
    /// ```
    pub fn create_training_client_from_state_with_optimizer(
        &self,
        path: &str,
    ) -> Result<TrainingClient> {
        TrainingClient::from_state(&self.session, path, true)
    }

    /// Samples from `model`: the name of a base model, or a checkpoint (`tinker://..`) saved for
    /// sampling.
    ///
    /// # Errors
    /// [`Error::Status`] for a model or checkpoint that the server does not have.
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ModelInput, SamplingParams, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let path = training.save_weights_for_sampler(Some("best"))?.result()?.path().unwrap().to_owned();
    /// let prompt = ModelInput::from_tokens(vec![1, 2, 3]);
    /// for model in ["tiny-qwen3", &path] {
    ///     let sampler = service.create_sampling_client(model)?;
    ///     sampler.sample(&prompt, 1, &SamplingParams::max_tokens(4))?.result()?;
    /// }
    /// # anyhow::Ok(())
    /// ```
    pub fn create_sampling_client(&self, model: &str) -> Result<SamplingClient> {
        SamplingClient::create(self.session.clone(), model)
    }

    /// Samples beside another client from its sampling session ([`SamplingClient::sampler_id`]),
    /// which may be that of another process or machine.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Reply`] where the server hands out numbers
    /// to its clients. Elsewhere nothing is sent yet, and a session that is not there shows with
    /// the first sample.
    ///
    /// ```
    /// use tinsmith_client::{ModelInput, SamplingParams, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let connect = || ServiceClient::builder().base_url(trainer.url()).connect();
    /// let first = connect()?.create_sampling_client("tiny-qwen3")?;
    /// let second = connect()?.join_sampling_session(first.sampler_id())?;
    /// let prompt = ModelInput::from_tokens(vec![1, 2, 3]);
    /// let params = SamplingParams { seed: Some(7), ..SamplingParams::max_tokens(4) };
    /// let samples = [&first, &second].map(|it| it.sample(&prompt, 1, &params)?.result());
    /// let [a, b] = samples.map(|it| it.unwrap().sequences.remove(0).tokens);
    /// assert_eq!(a, b);
    /// # anyhow::Ok(())
    /// ```
    pub fn join_sampling_session(&self, sampler_id: &str) -> Result<SamplingClient> {
        SamplingClient::join(self.session.clone(), sampler_id)
    }

    /// Tells the server how the session ended; it accepts no further requests from here. Without
    /// this the session ends when its last client is dropped, and the server notices by the missing
    /// heartbeat.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`]. A server that does not want to know is no error.
    ///
    /// ```
    /// use tinsmith_client::{FinishReason, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// service.finish(FinishReason::Errored, Some("out of data"))?;
    /// # anyhow::Ok(())
    /// ```
    pub fn finish(&self, reason: FinishReason, detail: Option<&str>) -> Result<()> {
        self.session.finish(reason, detail.map(str::to_owned))
    }

    /// Hands a loss function, as a graph of PyTorch's operations, to a server that evaluates such
    /// losses itself, and gives what [`forward_backward`](TrainingClient::forward_backward) then
    /// takes. One pass is enough there; the data need all of the `inputs` but the first, which is
    /// `logprobs`. The loss is known within this session only; create it once.
    ///
    /// The function is of one datum, and gives its loss and a dictionary of metrics named
    /// `custom/..:sum` or `custom/..:mean`. Which operations a server knows it says in its error.
    ///
    /// # Errors
    /// [`Error::Config`], before anything is sent, for a server without the switch
    /// [`custom_loss_server_side`](tinsmith_wire::ClientConfig::custom_loss_server_side) and for
    /// inputs that no server takes; [`Error::RequestFailed`], [`Error::Status`] for a graph that it
    /// refuses.
    ///
    /// ```
    /// use tinsmith_client::{ServiceClient, wire::{CustomLossInput, LossGraph, json}};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// let negative_sum: LossGraph = json::from_slice(br#"{"format": 1, "nodes": [
    ///     {"op": "placeholder", "name": "logprobs", "target": "logprobs"},
    ///     {"op": "call_method", "name": "sum_1", "target": "sum", "args": [{"ref": "logprobs"}]},
    ///     {"op": "call_function", "name": "neg", "target": "operator.neg", "args": [{"ref": "sum_1"}]},
    ///     {"op": "output", "name": "output", "target": "output", "args": [{"tuple": [{"ref": "neg"}, {"dict": {}}]}]}]}"#)?;
    /// let inputs = [CustomLossInput { name: "logprobs".into(), rank: 1 }];
    /// // The local trainer is no such server; elsewhere this gives a loss_fn and its config.
    /// let error = service.create_custom_loss("negative_sum", &inputs, &negative_sum).unwrap_err();
    /// assert!(error.to_string().contains("forward_backward_custom"));
    /// # anyhow::Ok(())
    /// ```
    pub fn create_custom_loss(
        &self,
        name: &str,
        inputs: &[CustomLossInput],
        graph: &LossGraph,
    ) -> Result<(LossFn, LossFnConfig)> {
        server_side::create(&self.session, name, inputs, graph)
    }
}
