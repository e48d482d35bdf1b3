//! What a server keeps: runs, checkpoints, sessions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    UserMetadata,
    tolerant::{open_words, or_default},
};

/// Place in a list that comes in pages.
///
/// ```
/// use tinsmith_wire::{Cursor, json};
/// let it: Cursor = json::from_slice(br#"{"offset":0,"limit":20,"total_count":57}"#)?;
/// assert!(it.offset + it.limit < it.total_count); // there are more
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Index of the first entry of this page.
    pub offset: u64,
    /// Most entries of a page.
    pub limit: u64,
    /// Entries of all pages.
    pub total_count: u64,
}

/// Reply to `GET /api/v1/training_runs?limit=20&offset=0`.
///
/// ```
/// use tinsmith_wire::{TrainingRunsResponse, json};
/// let it: TrainingRunsResponse = json::from_slice(
///     br#"{"training_runs":[{"training_run_id":"s:train:0","base_model":"tiny"}]}"#,
/// )?;
/// assert_eq!(it.training_runs[0].base_model, "tiny");
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingRunsResponse {
    /// One page of them.
    pub training_runs: Vec<TrainingRun>,
    /// Which page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// A model that is or was in training. Reply to `GET /api/v1/training_runs/{id}`.
///
/// ```
/// use tinsmith_wire::{TrainingRun, json};
/// let it: TrainingRun = json::from_slice(
///     br#"{"training_run_id":"s:train:0","base_model":"tiny","is_lora":true,"lora_rank":8}"#,
/// )?;
/// assert_eq!((it.lora_rank, it.corrupted), (Some(8), false));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingRun {
    /// The model.
    pub training_run_id: String,
    /// Name of its base.
    pub base_model: String,
    /// Whose it is.
    #[serde(default, deserialize_with = "or_default")]
    pub model_owner: String,
    /// Whether it is an adapter.
    #[serde(default, deserialize_with = "or_default")]
    pub is_lora: bool,
    /// Rank of the adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_rank: Option<u32>,
    /// Whether it has broken down.
    #[serde(default, deserialize_with = "or_default")]
    pub corrupted: bool,
    /// When it was last used, ISO 8601.
    #[serde(default, deserialize_with = "or_default")]
    pub last_request_time: String,
    /// Its newest checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_checkpoint: Option<Checkpoint>,
    /// Its newest checkpoint for sampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sampler_checkpoint: Option<Checkpoint>,
    /// The user's notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<UserMetadata>,
}

/// Reply to `GET /api/v1/training_runs/{id}/checkpoints`, all of a run, and
/// `GET /api/v1/checkpoints`, a page of all that the user has.
///
/// ```
/// use tinsmith_wire::{CheckpointsResponse, json};
/// let it: CheckpointsResponse = json::from_slice(
///     br#"{"checkpoints":[],"cursor":{"offset":0,"limit":100,"total_count":0}}"#,
/// )?;
/// assert!(it.checkpoints.is_empty());
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointsResponse {
    /// The checkpoints.
    pub checkpoints: Vec<Checkpoint>,
    /// Which page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// A checkpoint that a server keeps.
///
/// ```
/// use tinsmith_wire::{Checkpoint, CheckpointType, json};
/// let it: Checkpoint = json::from_slice(
///     br#"{"checkpoint_id":"weights/a","checkpoint_type":"training","time":"2026-11-21T12:00:00Z",
///          "tinker_path":"tinker://s:train:0/weights/a"}"#,
/// )?;
/// assert_eq!((it.checkpoint_type, it.size_bytes), (CheckpointType::Training, None));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Its name within the run: `weights/{name}`, or `{name}` alone.
    pub checkpoint_id: String,
    /// What it is for.
    #[serde(default, deserialize_with = "or_default")]
    pub checkpoint_type: CheckpointType,
    /// When it was made, ISO 8601.
    #[serde(default, deserialize_with = "or_default")]
    pub time: String,
    /// Its address, `tinker://..`.
    pub tinker_path: String,
    /// Its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Whether everybody may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// The user's notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<UserMetadata>,
    /// When it will be deleted, ISO 8601.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

open_words! {
    /// What a checkpoint is for.
    ///
    /// ```
    /// use tinsmith_wire::{CheckpointType, json};
    /// let it: CheckpointType = json::from_slice(br#""something new""#)?;
    /// assert_eq!(it, CheckpointType::Other("something new".into()));
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    #[derive(Default)]
    #[non_exhaustive]
    pub enum CheckpointType {
        /// To go on training.
        #[default]
        Training = "training",
        /// To sample from.
        Sampler = "sampler",
        /// To take away.
        External = "external",
    }
}

/// Body of `PUT /api/v1/training_runs/{id}/checkpoints/{checkpoint_id}/ttl`.
///
/// ```
/// use tinsmith_wire::{SetTtlRequest, json};
/// let body = SetTtlRequest { ttl_seconds: None };
/// assert_eq!(json::to_vec(&body)?, br#"{"ttl_seconds":null}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTtlRequest {
    /// Seconds to live from now; for good when null, which is written.
    pub ttl_seconds: Option<u64>,
}

/// Reply to `GET /api/v1/training_runs/{id}/checkpoints/{checkpoint_id}/external_weights_urls`.
///
/// ```
/// use tinsmith_wire::{ExternalWeightsUrls, json};
/// let it: ExternalWeightsUrls = json::from_slice(
///     br#"{"urls":{"adapter.safetensors":"https://files.example/1"},"expires":"2026-11-21T12:00:00Z"}"#,
/// )?;
/// assert!(it.urls["adapter.safetensors"].starts_with("https:"));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalWeightsUrls {
    /// Where to download each file, by the file's name. The addresses are secrets.
    pub urls: BTreeMap<String, String>,
    /// Until when, ISO 8601.
    #[serde(default, deserialize_with = "or_default")]
    pub expires: String,
}

/// Reply to `GET /api/v1/sessions`.
///
/// ```
/// use tinsmith_wire::{SessionsResponse, json};
/// let it: SessionsResponse = json::from_slice(br#"{"sessions":["a","b"]}"#)?;
/// assert_eq!(it.sessions, ["a", "b"]);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsResponse {
    /// Their ids.
    pub sessions: Vec<String>,
}

/// Reply to `GET /api/v1/sessions/{id}`.
///
/// ```
/// use tinsmith_wire::{SessionInfo, json};
/// let it: SessionInfo = json::from_slice(br#"{"training_run_ids":["s:train:0"],"sampler_ids":[]}"#)?;
/// assert_eq!((it.training_run_ids.len(), it.display_name), (1, None));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// The models it made.
    #[serde(default, deserialize_with = "or_default")]
    pub training_run_ids: Vec<String>,
    /// The sampling sessions it made.
    #[serde(default, deserialize_with = "or_default")]
    pub sampler_ids: Vec<String>,
    /// The user's notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<UserMetadata>,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// Body and reply of `POST /api/v1/copy_weights`: a checkpoint, and the user's own copy of it.
///
/// ```
/// use tinsmith_wire::{CopyWeights, json};
/// let body = CopyWeights { tinker_path: "tinker://r/weights/a".into() };
/// assert_eq!(json::to_vec(&body)?, br#"{"tinker_path":"tinker://r/weights/a"}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyWeights {
    /// Its address, `tinker://..`.
    pub tinker_path: String,
}
