//! Sampling.

use serde::{Deserialize, Serialize};

use crate::{
    ModelInput, TensorData,
    numbers::{optional_floats, optional_or_null, optional_pairs},
    tensor_json::{Finite, all_finite},
    tolerant::{finite, is_default, open_words, or_default, with_defaults},
};

/// Body of `POST /api/v1/create_sampling_session`.
///
/// ```
/// use tinsmith_wire::{CreateSamplingSessionRequest, json};
/// let body = CreateSamplingSessionRequest {
///     session_id: "s".into(),
///     sampling_session_seq_id: 0,
///     base_model: Some("tiny".into()),
///     model_path: None,
/// };
/// assert!(json::to_vec(&body)?.ends_with(br#""sampling_session_seq_id":0,"base_model":"tiny"}"#));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "create_sampling_session")]
pub struct CreateSamplingSessionRequest {
    /// The session.
    pub session_id: String,
    /// Number of the sampling session within the session, from 0; shared with saves for a sampler.
    pub sampling_session_seq_id: u64,
    /// The model to sample from, this or `model_path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    /// The checkpoint to sample from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_path: Option<String>,
}

/// Reply to create_sampling_session.
///
/// ```
/// use tinsmith_wire::{CreateSamplingSessionResponse, json};
/// let it: CreateSamplingSessionResponse = json::from_slice(br#"{"sampling_session_id":"x"}"#)?;
/// assert_eq!(it.sampling_session_id, "x");
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "create_sampling_session")]
pub struct CreateSamplingSessionResponse {
    /// The new sampling session.
    pub sampling_session_id: String,
}

/// Reply to `GET /api/v1/samplers/{id}`.
///
/// ```
/// use tinsmith_wire::{SamplerInfo, json};
/// let it: SamplerInfo = json::from_slice(
///     br#"{"sampler_id":"x","base_model":"tiny","model_path":"tinker://r/sampler_weights/a"}"#,
/// )?;
/// assert!(it.model_path.is_some());
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerInfo {
    /// The sampling session.
    pub sampler_id: String,
    /// Name of the base model.
    pub base_model: String,
    /// The checkpoint it samples from, if it is not the base model itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_path: Option<String>,
}

/// Body of `POST /api/v1/join_sampling_session`: a copy of a sampling client in another process
/// asks for its number.
///
/// ```
/// use tinsmith_wire::{JoinSamplingSessionRequest, json};
/// let body = JoinSamplingSessionRequest { sampling_session_id: "x".into() };
/// assert_eq!(json::to_vec(&body)?, br#"{"type":"join_sampling_session","sampling_session_id":"x"}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "join_sampling_session")]
pub struct JoinSamplingSessionRequest {
    /// The sampling session.
    pub sampling_session_id: String,
}

/// Reply to join_sampling_session.
///
/// ```
/// use tinsmith_wire::{JoinSamplingSessionResponse, json};
/// let it: JoinSamplingSessionResponse = json::from_slice(br#"{"client_counter":3}"#)?;
/// assert_eq!(it.client_counter * 1_000_000_000, 3_000_000_000); // the first seq_id
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinSamplingSessionResponse {
    /// The number of the copy; its requests count from a billion times this.
    pub client_counter: u64,
}

with_defaults! {
    /// How to sample.
    ///
    /// ```
    /// use tinsmith_wire::SamplingParams;
    /// let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::max_tokens(16) };
    /// assert_eq!(greedy.top_k, -1);
    /// ```
    pub struct SamplingParams {
        /// Most tokens to sample.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub max_tokens: Option<u32> = None,
        /// Seed; random when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub seed: Option<u64> = None,
        /// Where to stop. Absent: at the end-of-text token only.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stop: Option<Stop> = None,
        /// Divides the logits; 0 takes the likeliest token.
        #[serde(serialize_with = "finite")]
        pub temperature: f64 = 1.0,
        /// Sample among this many likeliest tokens; -1 among all.
        pub top_k: i64 = -1,
        /// Sample among the likeliest tokens of this total probability.
        #[serde(serialize_with = "finite")]
        pub top_p: f64 = 1.0,
    }
}

impl SamplingParams {
    /// At most this many tokens, at temperature 1.
    pub fn max_tokens(n: u32) -> Self {
        SamplingParams { max_tokens: Some(n), ..Self::default() }
    }
}

/// What ends a sample.
///
/// ```
/// use tinsmith_wire::{Stop, json};
/// let it: Stop = json::from_slice(br#""\n""#)?;
/// assert_eq!(it, Stop::Strings(vec!["\n".into()]));
/// assert_eq!(json::to_vec(&Stop::Tokens(vec![0]))?, b"[0]");
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Stop {
    /// Any of these strings. None at all: not even the end-of-text token.
    Strings(Vec<String>),
    /// Any of these tokens.
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for Stop {
    /// A bare string is a list of one.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "`stop` is a string, a list of strings or a list of token ids"
        )]
        enum Given {
            String(String),
            Strings(Vec<String>),
            Tokens(Vec<u32>),
        }
        Ok(match Given::deserialize(deserializer)? {
            Given::String(one) => Stop::Strings(vec![one]),
            Given::Strings(all) => Stop::Strings(all),
            Given::Tokens(all) => Stop::Tokens(all),
        })
    }
}

/// Body of `POST /api/v1/asample`.
///
/// ```
/// use tinsmith_wire::{SampleRequest, json};
/// let it: SampleRequest = json::from_slice(
///     br#"{"prompt":{"chunks":[{"tokens":[1,2]}]},"sampling_params":{"max_tokens":4},"base_model":"tiny"}"#,
/// )?;
/// assert_eq!((it.num_samples, it.prompt.len()), (1, Some(2)));
/// assert_eq!((it.sampling_params.max_tokens, it.sampling_params.temperature), (Some(4), 1.0));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "sample")]
pub struct SampleRequest {
    /// How many sequences.
    #[serde(default = "one")]
    pub num_samples: u32,
    /// What they continue.
    pub prompt: ModelInput,
    /// How to sample.
    #[serde(default, deserialize_with = "or_default")]
    pub sampling_params: SamplingParams,
    /// The sampling session; else `base_model` or `model_path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_session_id: Option<String>,
    /// Place in the sampling session, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq_id: Option<u64>,
    /// The model to sample from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    /// The checkpoint to sample from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_path: Option<String>,
    /// Whether the logprobs of the prompt are wanted.
    #[serde(default, deserialize_with = "or_default")]
    pub prompt_logprobs: bool,
    /// How many likeliest tokens per prompt position are wanted.
    #[serde(default, deserialize_with = "or_default")]
    pub topk_prompt_logprobs: u32,
    /// How many likeliest tokens per sampled token are wanted. This and what follows is left out
    /// while it is unset, since older servers do not know it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub topk_sample_logprobs: u32,
    /// The tokens whose logprobs are wanted at each prompt position after the first: `int64`
    /// `[len - 1, K]`, -1 for none. Dense or CSR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_prompt_logprobs: Option<TensorData>,
    /// How many other tokens than the given one are wanted per prompt position.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub prompt_alt_tokens_k: u32,
    /// Of how many positions at the end of the prompt logprobs are wanted; of all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs_last_n: Option<u32>,
    /// Whether the server is to keep what it needs to tell how stable the sample is.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub record_stability_info: bool,
}

fn one() -> u32 {
    1
}

open_words! {
    /// Why a sample ended.
    ///
    /// ```
    /// use tinsmith_wire::{StopReason, json};
    /// let body = [StopReason::Stop, StopReason::Length];
    /// assert_eq!(json::to_vec(&body)?, br#"["stop","length"]"#);
    /// assert_eq!(json::from_slice::<StopReason>(br#""eos""#)?, StopReason::Other("eos".into()));
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    #[derive(Default)]
    pub enum StopReason {
        /// It came to a stop string or token.
        #[default]
        Stop = "stop",
        /// It came to `max_tokens`.
        Length = "length",
        /// The server does not say.
        Unstated = "",
    }
}

/// Why it ended, or null.
fn stop_reason<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<StopReason, D::Error> {
    let stated = Option::<StopReason>::deserialize(deserializer)?;
    Ok(stated.unwrap_or_else(unstated))
}

fn unstated() -> StopReason {
    StopReason::Unstated
}

fn is_unstated(reason: &StopReason) -> bool {
    *reason == StopReason::Unstated
}

/// One sample.
///
/// ```
/// use tinsmith_wire::{SampledSequence, json};
/// let it: SampledSequence = json::from_slice(br#"{"stop_reason":"length","tokens":[5,6],"logprobs":[-0.5,-1.0]}"#)?;
/// assert_eq!((it.tokens, it.logprobs), (vec![5, 6], Some(vec![-0.5, -1.0])));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SampledSequence {
    /// Why it ended.
    #[serde(default = "unstated", skip_serializing_if = "is_unstated")]
    #[serde(deserialize_with = "stop_reason")]
    pub stop_reason: StopReason,
    /// Its tokens, the stop token included.
    pub tokens: Vec<u32>,
    /// The logprob of each, under the sampled model at temperature 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "finite_list", deserialize_with = "optional_floats")]
    pub logprobs: Option<Vec<f32>>,
    /// The likeliest tokens at each sampled position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "finite_pairs", deserialize_with = "optional_pairs")]
    pub topk_logprobs: Option<Vec<Option<TopLogprobs>>>,
    /// Its name, by which a [`Provenance`](crate::Provenance) refers to it. No part of the result:
    /// servers give it on accepting the request
    /// ([`Submitted::sample_sequence_ids`](crate::Submitted::sample_sequence_ids)).
    #[serde(skip)]
    pub sequence_id: Option<String>,
}

fn finite_list<S: serde::Serializer>(
    logprobs: &Option<Vec<f32>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    logprobs.as_deref().map(Finite).serialize(serializer)
}

/// Null stands for none, so it cannot stand for NaN too.
fn finite_or_null<S: serde::Serializer>(
    logprobs: &Option<Vec<Option<f32>>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    all_finite(logprobs.iter().flatten().flatten())?;
    logprobs.serialize(serializer)
}

fn finite_pairs<S: serde::Serializer>(
    places: &Option<Vec<Option<TopLogprobs>>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let pairs = places.iter().flatten().flatten().flatten();
    all_finite(pairs.map(|(_, logprob)| logprob))?;
    places.serialize(serializer)
}

/// The likeliest tokens of one position and their logprobs.
pub type TopLogprobs = Vec<(u32, f32)>;

/// Result of a sample request.
///
/// ```
/// use tinsmith_wire::{SampleResponse, StopReason, json};
/// let it: SampleResponse = json::from_slice(
///     br#"{"sequences":[{"stop_reason":"stop","tokens":[5]}],"prompt_logprobs":[null,-2.0]}"#,
/// )?;
/// assert_eq!(it.sequences[0].stop_reason, StopReason::Stop);
/// assert_eq!(it.prompt_logprobs.unwrap(), [None, Some(-2.0)]);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "sample")]
pub struct SampleResponse {
    /// The samples.
    pub sequences: Vec<SampledSequence>,
    /// The logprob of each prompt token; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "finite_or_null", deserialize_with = "optional_or_null")]
    pub prompt_logprobs: Option<Vec<Option<f32>>>,
    /// The likeliest tokens at each prompt position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "finite_pairs", deserialize_with = "optional_pairs")]
    pub topk_prompt_logprobs: Option<Vec<Option<TopLogprobs>>>,
    /// The logprobs of the tokens asked for, `float32`, shaped as the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_prompt_logprobs: Option<TensorData>,
    /// Other tokens at each prompt position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_alt_tokens: Option<PromptAltTokens>,
    /// How many tokens of the prompt the server remembered.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub prompt_cache_hit_tokens: u32,
}

/// Other tokens than the given ones at each prompt position.
///
/// ```
/// use tinsmith_wire::{PromptAltTokens, json};
/// let it: PromptAltTokens = json::from_slice(
///     br#"{"tokens":{"dtype":"int64","data":[7,8],"shape":[1,2]},"logprobs":{"dtype":"float32","data":[-1.0,
///          -2.0],"shape":[1,2]}}"#,
/// )?;
/// assert_eq!(it.tokens.shape(), it.logprobs.shape());
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptAltTokens {
    /// Their ids, `int64` `[positions, K]`.
    pub tokens: TensorData,
    /// Their logprobs, `float32`, of the same shape.
    pub logprobs: TensorData,
}
