//! Sampling.

use serde::{Deserialize, Serialize};

use crate::{
    ModelInput,
    tensor_json::Finite,
    tolerant::{finite, or_default, with_defaults},
};

/// Body of `POST /api/v1/create_sampling_session`.
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "create_sampling_session")]
pub struct CreateSamplingSessionResponse {
    /// The new sampling session.
    pub sampling_session_id: String,
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
        SamplingParams {
            max_tokens: Some(n),
            ..Self::default()
        }
    }
}

/// What ends a sample.
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
}

fn one() -> u32 {
    1
}

/// Why a sample ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// It came to a stop string or token.
    Stop,
    /// It came to `max_tokens`.
    Length,
}

/// One sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampledSequence {
    /// Why it ended.
    pub stop_reason: StopReason,
    /// Its tokens, the stop token included.
    pub tokens: Vec<u32>,
    /// The logprob of each, under the sampled model at temperature 1.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "finite_list"
    )]
    pub logprobs: Option<Vec<f32>>,
}

fn finite_list<S: serde::Serializer>(
    logprobs: &Option<Vec<f32>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    logprobs.as_deref().map(Finite).serialize(serializer)
}

/// The likeliest tokens of one position and their logprobs.
pub type TopLogprobs = Vec<(u32, f32)>;

/// Result of a sample request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "sample")]
pub struct SampleResponse {
    /// The samples.
    pub sequences: Vec<SampledSequence>,
    /// The logprob of each prompt token; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<Vec<Option<f32>>>,
    /// The likeliest tokens at each prompt position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topk_prompt_logprobs: Option<Vec<Option<TopLogprobs>>>,
}
