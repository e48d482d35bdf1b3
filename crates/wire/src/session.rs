//! Sessions, models, and what a server says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    OptimizerConfig,
    tolerant::{or_default, with_defaults},
};

/// The user's own notes on a session, model or checkpoint.
pub type UserMetadata = BTreeMap<String, Value>;

/// Body of `POST /api/v1/create_session`.
///
/// ```
/// use tinsmith_wire::{CreateSessionRequest, json};
/// let body = CreateSessionRequest { sdk_version: "0.38.0".into(), ..Default::default() };
/// assert_eq!(json::to_vec(&body)?, br#"{"type":"create_session","tags":[],"user_metadata":{},"sdk_version":"0.38.0"}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "create_session")]
pub struct CreateSessionRequest {
    /// Labels.
    #[serde(default, deserialize_with = "or_default")]
    pub tags: Vec<String>,
    /// The user's notes; written even when empty.
    #[serde(default, deserialize_with = "or_default")]
    pub user_metadata: UserMetadata,
    /// Version of the client.
    #[serde(default, deserialize_with = "or_default")]
    pub sdk_version: String,
    /// Project the session belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// Reply to create_session.
///
/// ```
/// use tinsmith_wire::{CreateSessionResponse, json};
/// let it: CreateSessionResponse = json::from_slice(br#"{"session_id":"s","warning_message":"closing at noon"}"#)?;
/// assert_eq!((it.session_id.as_str(), it.info_message), ("s", None));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "create_session")]
pub struct CreateSessionResponse {
    /// The new session.
    pub session_id: String,
    /// For the user to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info_message: Option<String>,
    /// For the user to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning_message: Option<String>,
    /// For the user to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
}

/// Body of `POST /api/v1/session_heartbeat`.
///
/// ```
/// use tinsmith_wire::{SessionHeartbeatRequest, json};
/// let body = SessionHeartbeatRequest { session_id: "s".into() };
/// assert_eq!(json::to_vec(&body)?, br#"{"type":"session_heartbeat","session_id":"s"}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "session_heartbeat")]
pub struct SessionHeartbeatRequest {
    /// The session to keep alive.
    pub session_id: String,
}

/// Reply to session_heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "session_heartbeat")]
pub struct SessionHeartbeatResponse {}

/// Body of `POST /api/v1/sessions/{id}/finish`; the first one counts.
///
/// ```
/// use tinsmith_wire::{FinishReason, FinishSessionRequest, json};
/// let body = FinishSessionRequest { reason: FinishReason::Success, detail: None };
/// assert_eq!(json::to_vec(&body)?, br#"{"reason":{"type":"success"},"detail":null}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishSessionRequest {
    /// How it ended.
    pub reason: FinishReason,
    /// In words; written even when there are none.
    pub detail: Option<String>,
}

/// How a session ended.
///
/// ```
/// use tinsmith_wire::{FinishReason, json};
/// let body = FinishReason::Interrupted;
/// assert_eq!(json::to_vec(&body)?, br#"{"type":"interrupted"}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FinishReason {
    /// The program came to its end.
    Success,
    /// The program failed.
    Errored,
    /// Somebody stopped the program.
    Interrupted,
}

with_defaults! {
    /// The adapter to train.
    ///
    /// ```
    /// use tinsmith_wire::LoraConfig;
    /// let config = LoraConfig { seed: Some(7), ..LoraConfig::rank(8) };
    /// assert!(config.train_mlp);
    /// ```
    pub struct LoraConfig {
        /// Rank of the adapter's matrices.
        pub rank: u32 = 32,
        /// Seed of the initial weights; random when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub seed: Option<u64> = None,
        /// Whether the output projection gets an adapter.
        pub train_unembed: bool = true,
        /// Whether the feed-forward layers get adapters.
        pub train_mlp: bool = true,
        /// Whether the attention layers get adapters.
        pub train_attn: bool = true,
    }
}

impl LoraConfig {
    /// An adapter of this rank on every kind of layer, randomly initialized.
    pub fn rank(rank: u32) -> Self {
        LoraConfig { rank, ..Self::default() }
    }

    /// The same with a fixed seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// Body of `POST /api/v1/create_model`.
///
/// ```
/// use tinsmith_wire::{CreateModelRequest, json};
/// let it: CreateModelRequest = json::from_slice(
///     br#"{"session_id":"s","model_seq_id":0,"base_model":"tiny","lora_config":{"rank":8}}"#,
/// )?;
/// assert_eq!((it.lora_config.rank, it.lora_config.train_mlp), (8, true));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "create_model")]
pub struct CreateModelRequest {
    /// The session.
    pub session_id: String,
    /// Number of the model within the session, from 0.
    pub model_seq_id: u64,
    /// Name of the model to adapt.
    pub base_model: String,
    /// The adapter.
    #[serde(default, deserialize_with = "or_default")]
    pub lora_config: LoraConfig,
    /// The optimizer; AdamW when absent, which is what servers without a choice have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer_config: Option<OptimizerConfig>,
    /// The user's notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<UserMetadata>,
}

/// Result of create_model.
///
/// ```
/// use tinsmith_wire::{CreateModelResponse, json};
/// let it: CreateModelResponse = json::from_slice(br#"{"model_id":"s:train:0"}"#)?;
/// assert_eq!(it.model_id, "s:train:0");
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "create_model")]
pub struct CreateModelResponse {
    /// The new model.
    pub model_id: String,
}

/// Body of `POST /api/v1/get_info`.
///
/// ```
/// use tinsmith_wire::{GetInfoRequest, json};
/// let body = GetInfoRequest { model_id: "m".into() };
/// assert_eq!(json::to_vec(&body)?, br#"{"type":"get_info","model_id":"m"}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "get_info")]
pub struct GetInfoRequest {
    /// The model.
    pub model_id: String,
}

/// Reply to get_info.
///
/// ```
/// use tinsmith_wire::{GetInfoResponse, json};
/// let it: GetInfoResponse = json::from_slice(
///     br#"{"model_id":"m","model_data":{"base_model":"tiny"},"lora_rank":8}"#,
/// )?;
/// assert_eq!((it.model_data.model_name.as_deref(), it.lora_rank), (Some("tiny"), Some(8)));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "get_info")]
pub struct GetInfoResponse {
    /// The model.
    pub model_id: String,
    /// About its base.
    #[serde(default, deserialize_with = "or_default")]
    pub model_data: ModelData,
    /// Whether it is an adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_lora: Option<bool>,
    /// Rank of the adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_rank: Option<u32>,
    /// Name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// The optimizer; AdamW when the server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer_config: Option<OptimizerConfig>,
}

/// About a base model.
///
/// ```
/// use tinsmith_wire::{ModelData, json};
/// let it: ModelData = json::from_slice(br#"{"arch":"qwen3","tokenizer_id":"Qwen/Qwen3-8B"}"#)?;
/// assert_eq!(it.tokenizer_id.as_deref(), Some("Qwen/Qwen3-8B"));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "GivenModelData")]
pub struct ModelData {
    /// Architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Name of the base model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// Where its tokenizer is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer_id: Option<String>,
}

/// As servers write it: SkyRL-tx gives the name twice.
#[derive(Deserialize)]
struct GivenModelData {
    arch: Option<String>,
    base_model: Option<String>,
    model_name: Option<String>,
    tokenizer_id: Option<String>,
}

impl From<GivenModelData> for ModelData {
    fn from(given: GivenModelData) -> Self {
        ModelData {
            arch: given.arch,
            model_name: given.model_name.or(given.base_model),
            tokenizer_id: given.tokenizer_id,
        }
    }
}

/// Body of `POST /api/v1/unload_model`.
///
/// ```
/// use tinsmith_wire::{UnloadModelRequest, json};
/// let body = UnloadModelRequest { model_id: "m".into() };
/// assert_eq!(json::to_vec(&body)?, br#"{"type":"unload_model","model_id":"m"}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "unload_model")]
pub struct UnloadModelRequest {
    /// The model.
    pub model_id: String,
}

/// Result of unload_model.
///
/// ```
/// use tinsmith_wire::{UnloadModelResponse, json};
/// let it: UnloadModelResponse = json::from_slice(br#"{"model_id":"m"}"#)?;
/// assert_eq!(it.model_id, "m");
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "unload_model")]
pub struct UnloadModelResponse {
    /// The model that is gone.
    pub model_id: String,
}

/// Reply to `GET /api/v1/get_server_capabilities`.
///
/// ```
/// use tinsmith_wire::{ServerCapabilities, json};
/// let it: ServerCapabilities = json::from_slice(br#"{"supported_models":[{"model_name":"tiny"}]}"#)?;
/// assert_eq!(it.supported_models[0].model_name, "tiny");
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerCapabilities {
    /// The models on offer.
    #[serde(default, deserialize_with = "or_default")]
    pub supported_models: Vec<SupportedModel>,
}

/// A model on offer.
///
/// ```
/// use tinsmith_wire::{SupportedModel, json};
/// let it: SupportedModel = json::from_slice(br#"{"model_name":"tiny","max_context_length":2048}"#)?;
/// assert_eq!((it.max_context_length, it.trainable), (Some(2048), None));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SupportedModel {
    /// Its name, for create_model and create_sampling_session.
    pub model_name: String,
    /// Longest input in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_context_length: Option<u64>,
    /// Whether it can be trained; servers that do not say can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainable: Option<bool>,
    /// Whether it can be sampled from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampleable: Option<bool>,
}

/// Reply to `GET /api/v1/healthz`.
///
/// ```
/// use tinsmith_wire::{Health, json};
/// let it: Health = json::from_slice(br#"{"status":"ok"}"#)?;
/// assert_eq!(it.status, "ok");
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`.
    pub status: String,
}

/// The body of an HTTP error: `{"detail": ..}`.
///
/// ```
/// use tinsmith_wire::{ErrorBody, json};
/// let body = ErrorBody::new("no such model");
/// assert_eq!(json::to_vec(&body)?, br#"{"detail":"no such model"}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong: a string, or a list of findings.
    #[serde(default, deserialize_with = "or_default")]
    pub detail: Value,
}

impl ErrorBody {
    /// An error in words.
    pub fn new(detail: impl Into<String>) -> Self {
        ErrorBody { detail: Value::String(detail.into()) }
    }

    /// The detail in words, `None` when there is none.
    ///
    /// ```
    /// use tinsmith_wire::{ErrorBody, json};
    /// let body: ErrorBody = json::from_slice(br#"{"detail":[{"loc":["body","rank"],"msg":"too large"}]}"#)?;
    /// assert_eq!(body.message().as_deref(), Some("body.rank: too large"));
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    pub fn message(&self) -> Option<String> {
        let text = words(&self.detail);
        (!text.trim().is_empty()).then_some(text)
    }
}

/// A detail as FastAPI and its kin write it: text, or `{"loc", "msg"}` findings.
fn words(detail: &Value) -> String {
    match detail {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join("; "),
        Value::Object(finding) => match (finding.get("loc"), finding.get("msg")) {
            (Some(Value::Array(place)), Some(Value::String(message))) => {
                let place: Vec<_> = place.iter().map(words).collect();
                format!("{}: {message}", place.join("."))
            }
            (_, Some(Value::String(message))) => message.clone(),
            _ => detail.to_string(),
        },
        other => other.to_string(),
    }
}
