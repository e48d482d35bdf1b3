//! Checkpoints.

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{OptimizerConfig, UserMetadata, tolerant::or_default};

/// Body of `POST /api/v1/save_weights`: a checkpoint that training can go on from.
///
/// ```
/// use tinsmith_wire::{SaveWeightsRequest, json};
/// let it: SaveWeightsRequest = json::from_slice(br#"{"model_id":"m","path":"halfway","seq_id":4}"#)?;
/// assert_eq!((it.path.as_deref(), it.overwrite), (Some("halfway"), false));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "save_weights")]
pub struct SaveWeightsRequest {
    /// The model.
    pub model_id: String,
    /// Name of the checkpoint: letters, digits, `-` and `_`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Place in the model's order of training requests.
    pub seq_id: u64,
    /// Whether an existing checkpoint of that name may be replaced.
    #[serde(default, deserialize_with = "or_default")]
    pub overwrite: bool,
    /// Life time in seconds; for good when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// The user's notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<UserMetadata>,
}

/// Result of save_weights.
///
/// ```
/// use tinsmith_wire::{SaveWeightsResponse, json};
/// let it: SaveWeightsResponse = json::from_slice(br#"{"path":"tinker://m/weights/halfway"}"#)?;
/// assert!(it.path.ends_with("halfway"));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "save_weights")]
pub struct SaveWeightsResponse {
    /// Where the checkpoint is: `tinker://{run}/weights/{name}`.
    pub path: String,
}

/// Body of `POST /api/v1/load_weights` when it loads into an existing model.
///
/// ```
/// use tinsmith_wire::{LoadWeightsRequest, json};
/// let it: LoadWeightsRequest = json::from_slice(br#"{"model_id":"m","path":"tinker://m/weights/a","seq_id":1}"#)?;
/// assert!(!it.optimizer);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "load_weights")]
pub struct LoadWeightsRequest {
    /// The model.
    pub model_id: String,
    /// The checkpoint, `tinker://..`.
    pub path: String,
    /// Place in the model's order of training requests.
    pub seq_id: u64,
    /// Whether the optimizer's state comes along.
    #[serde(default, deserialize_with = "or_default")]
    pub optimizer: bool,
    /// The right to read a checkpoint that somebody else owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_access_token: Option<String>,
}

/// Body of `POST /api/v1/load_weights` when it makes a new model of a checkpoint. The model's
/// training requests count from 1.
///
/// ```
/// use tinsmith_wire::{CreateByLoadRequest, json};
/// let it: CreateByLoadRequest = json::from_slice(
///     br#"{"session_id":"s","model_seq_id":1,"path":"tinker://m/weights/a","optimizer":true}"#,
/// )?;
/// assert_eq!((it.model_seq_id, it.optimizer), (1, true));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "load_weights")]
pub struct CreateByLoadRequest {
    /// The session.
    pub session_id: String,
    /// Number of the model within the session, from 0; shared with create_model.
    pub model_seq_id: u64,
    /// The checkpoint, `tinker://..`.
    pub path: String,
    /// Whether the optimizer's state comes along.
    #[serde(default, deserialize_with = "or_default")]
    pub optimizer: bool,
    /// Name of the base model, if the checkpoint's own is to be checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    /// The optimizer, when not that of the checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer_config: Option<OptimizerConfig>,
    /// The user's notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<UserMetadata>,
    /// The right to read a checkpoint that somebody else owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_access_token: Option<String>,
}

/// What a server reads at `POST /api/v1/load_weights`: a body with a `model_id` loads into that
/// model, one without makes a new model.
///
/// ```
/// use tinsmith_wire::{LoadWeights, json};
/// let body = br#"{"session_id":"s","model_seq_id":0,"path":"tinker://r/weights/a"}"#;
/// assert!(matches!(json::from_slice(body)?, LoadWeights::NewModel(request) if !request.optimizer));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum LoadWeights {
    /// Into an existing model.
    IntoModel(LoadWeightsRequest),
    /// Into a new one.
    NewModel(CreateByLoadRequest),
}

impl<'de> Deserialize<'de> for LoadWeights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let body = serde_json::Value::deserialize(deserializer)?;
        let read = if body.get("model_id").is_some_and(|id| !id.is_null()) {
            LoadWeightsRequest::deserialize(body).map(LoadWeights::IntoModel)
        } else {
            CreateByLoadRequest::deserialize(body).map(LoadWeights::NewModel)
        };
        read.map_err(de::Error::custom)
    }
}

/// Result of load_weights.
///
/// ```
/// use tinsmith_wire::{LoadWeightsResponse, json};
/// let it: LoadWeightsResponse = json::from_slice(br#"{"model_id":"s:train:1"}"#)?;
/// assert_eq!(it.model_id.as_deref(), Some("s:train:1"));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "load_weights")]
pub struct LoadWeightsResponse {
    /// The checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
}

/// Body of `POST /api/v1/save_weights_for_sampler`: named by `path`, or thrown away with its
/// sampling session.
///
/// ```
/// use tinsmith_wire::{SaveWeightsForSamplerRequest, SamplerKind, json};
/// let it: SaveWeightsForSamplerRequest = json::from_slice(
///     br#"{"model_id":"m","sampling_session_seq_id":0,"seq_id":5,"kind":"inflight"}"#,
/// )?;
/// assert_eq!((it.path, it.kind), (None, Some(SamplerKind::Inflight)));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "save_weights_for_sampler")]
pub struct SaveWeightsForSamplerRequest {
    /// The model.
    pub model_id: String,
    /// Name of the checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Place in the session's order of sampling sessions, when there is no `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_session_seq_id: Option<u64>,
    /// Place in the model's order of training requests.
    pub seq_id: u64,
    /// Whether an existing checkpoint of that name may be replaced; left to the server when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overwrite: Option<bool>,
    /// Life time in seconds; for good when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// The user's notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<UserMetadata>,
    /// What the sampler is made for; a snapshot when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<SamplerKind>,
}

/// What a sampler is made for.
///
/// ```
/// use tinsmith_wire::{SamplerKind, json};
/// let body = SamplerKind::Snapshot;
/// assert_eq!(json::to_vec(&body)?, br#""snapshot""#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// To sample from these very weights.
    Snapshot,
    /// To go on with samples that are under way.
    Inflight,
}

/// Result of save_weights_for_sampler: `path` for a named one, `sampling_session_id` for the other.
///
/// ```
/// use tinsmith_wire::{SaveWeightsForSamplerResponse, json};
/// let it: SaveWeightsForSamplerResponse = json::from_slice(br#"{"sampling_session_id":"x"}"#)?;
/// assert_eq!((it.path, it.sampling_session_id.as_deref()), (None, Some("x")));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "save_weights_for_sampler")]
pub struct SaveWeightsForSamplerResponse {
    /// Where the checkpoint is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The session that samples from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_session_id: Option<String>,
}

/// Body of `POST /api/v1/save_weights_external`: a checkpoint to take away.
///
/// ```
/// use tinsmith_wire::{SaveWeightsExternalRequest, json};
/// let it: SaveWeightsExternalRequest = json::from_slice(
///     br#"{"model_id":"m","path":"out","seq_id":6,"age_encryption_recipients":["age1x"]}"#,
/// )?;
/// assert_eq!(it.age_encryption_recipients.unwrap(), ["age1x"]);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "save_weights_external")]
pub struct SaveWeightsExternalRequest {
    /// The model.
    pub model_id: String,
    /// Name of the checkpoint.
    pub path: String,
    /// Place in the model's order of training requests.
    pub seq_id: u64,
    /// The public keys (of age) that the files are encrypted for; plain when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_encryption_recipients: Option<Vec<String>>,
    /// Life time in seconds; for good when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// The user's notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<UserMetadata>,
}

/// Result of save_weights_external.
///
/// ```
/// use tinsmith_wire::{SaveWeightsExternalResponse, json};
/// let it: SaveWeightsExternalResponse = json::from_slice(br#"{"path":"tinker://m/external_weights/out"}"#)?;
/// assert!(it.path.ends_with("out"));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "save_weights_external")]
pub struct SaveWeightsExternalResponse {
    /// Where the checkpoint is: `tinker://{run}/external_weights/{name}`.
    pub path: String,
}

/// Body of `POST /api/v1/weights_info`.
///
/// ```
/// use tinsmith_wire::{WeightsInfoRequest, json};
/// let body = WeightsInfoRequest { tinker_path: "tinker://m/weights/a".into() };
/// assert_eq!(json::to_vec(&body)?, br#"{"tinker_path":"tinker://m/weights/a"}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightsInfoRequest {
    /// The checkpoint, `tinker://..`.
    pub tinker_path: String,
}

/// Reply to weights_info.
///
/// ```
/// use tinsmith_wire::{WeightsInfoResponse, json};
/// let it: WeightsInfoResponse = json::from_slice(br#"{"base_model":"tiny","is_lora":true,"lora_rank":8}"#)?;
/// assert_eq!((it.base_model.as_str(), it.lora_rank), ("tiny", Some(8)));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WeightsInfoResponse {
    /// Name of the base model.
    pub base_model: String,
    /// Whether it is an adapter.
    #[serde(default, deserialize_with = "or_default")]
    pub is_lora: bool,
    /// Rank of the adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_rank: Option<u32>,
    /// Whether the output projection has an adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_unembed: Option<bool>,
    /// Whether the feed-forward layers have adapters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_mlp: Option<bool>,
    /// Whether the attention layers have adapters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_attn: Option<bool>,
    /// The optimizer; AdamW when the server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer_config: Option<OptimizerConfig>,
}
