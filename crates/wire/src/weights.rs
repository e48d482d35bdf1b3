//! Checkpoints.

use serde::{Deserialize, Serialize};

use crate::{UserMetadata, tolerant::or_default};

/// Body of `POST /api/v1/save_weights`: a checkpoint that training can go on from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "save_weights")]
pub struct SaveWeightsResponse {
    /// Where the checkpoint is: `tinker://{run}/weights/{name}`.
    pub path: String,
}

/// Body of `POST /api/v1/load_weights`: into an existing model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "load_weights")]
pub struct LoadWeightsRequest {
    /// The model.
    pub model_id: String,
    /// The checkpoint, `tinker://..`.
    pub path: String,
    /// Place in the model's order of training requests.
    pub seq_id: u64,
    /// Whether the optimiser's state comes along.
    #[serde(default, deserialize_with = "or_default")]
    pub optimizer: bool,
}

/// Result of load_weights.
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

/// Body of `POST /api/v1/save_weights_for_sampler`: named by `path`, or thrown away with its sampling session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Life time in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// Result of save_weights_for_sampler: `path` for a named one, `sampling_session_id` for the other.
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

/// Body of `POST /api/v1/weights_info`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightsInfoRequest {
    /// The checkpoint, `tinker://..`.
    pub tinker_path: String,
}

/// Reply to weights_info.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
}
