//! Work that a server has accepted and answers later.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Error, Result, json,
    tolerant::{open_words, or_default},
};

/// Reply to a request whose result comes later.
///
/// ```
/// use tinsmith_wire::{Submitted, json};
/// let it: Submitted = json::from_slice(br#"{"request_id":"7","future_id":"7","status":"pending"}"#)?;
/// assert_eq!((it.request_id.as_str(), it.model_id), ("7", None)); // SkyRL-tx says more
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// What to ask `retrieve_future` for.
    pub request_id: String,
    /// The model it works on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// The names of the sequences to come, one a sample, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_sequence_ids: Option<Vec<String>>,
}

/// Body of `POST /api/v1/retrieve_future`.
///
/// ```
/// use tinsmith_wire::{RetrieveFutureRequest, json};
/// let body = RetrieveFutureRequest { request_id: "r".into(), allow_metadata_only: true };
/// assert_eq!(json::to_vec(&body)?, br#"{"request_id":"r","allow_metadata_only":true}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetrieveFutureRequest {
    /// The request asked for.
    pub request_id: String,
    /// Whether the server may answer [`FutureReply::CompleteMetadata`] in place of a large result.
    #[serde(default)]
    pub allow_metadata_only: bool,
}

/// What a server says about a request it has accepted.
///
/// ```
/// use tinsmith_wire::{FutureReply, OptimStepResponse};
/// let read = |body: &str| FutureReply::<OptimStepResponse>::from_json(body.as_bytes());
/// assert!(matches!(read(r#"{"metrics":{"lr":0.1}}"#)?, FutureReply::Ready(step) if step.metrics["lr"] == 0.1));
/// assert!(matches!(read(r#"{"error":"out of memory","category":"server"}"#)?, FutureReply::Failed(_)));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum FutureReply<T> {
    /// Not ready.
    TryAgain(TryAgain),
    /// Ready, but large: ask again with `allow_metadata_only: false`.
    CompleteMetadata {
        /// Size of the result in bytes.
        response_payload_size: Option<u64>,
    },
    /// Failed, for good.
    Failed(RequestFailed),
    /// The result.
    Ready(T),
}

/// A request is not ready.
///
/// ```
/// use tinsmith_wire::{TryAgain, json};
/// let it: TryAgain = json::from_slice(br#"{"type":"try_again","request_id":"r","queue_state":"paused_capacity"}"#)?;
/// assert_eq!(it.queue_state.as_deref(), Some("paused_capacity"));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "try_again")]
pub struct TryAgain {
    /// The request asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// `active`, `paused_capacity` or `paused_rate_limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_state: Option<String>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_state_reason: Option<String>,
}

/// A request has failed for good.
///
/// ```
/// use tinsmith_wire::{RequestFailed, ErrorCategory, json};
/// let it: RequestFailed = json::from_slice(br#"{"error":"rank too large","category":"user"}"#)?;
/// assert_eq!(it.category, ErrorCategory::User);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFailed {
    /// What went wrong.
    pub error: String,
    /// Whose fault it is.
    #[serde(default, deserialize_with = "or_default")]
    pub category: ErrorCategory,
}

open_words! {
    /// Whose fault a failure is.
    ///
    /// ```
    /// use tinsmith_wire::{ErrorCategory, json};
    /// let it: ErrorCategory = json::from_slice(br#""quota""#)?;
    /// assert_eq!(it, ErrorCategory::Other("quota".into()));
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    #[derive(Default)]
    pub enum ErrorCategory {
        /// The request was wrong.
        User = "user",
        /// The server failed.
        Server = "server",
        /// The server does not say.
        #[default]
        Unknown = "unknown",
    }
}

impl<T: serde::de::DeserializeOwned> FutureReply<T> {
    /// Reads a reply of status 200 of `retrieve_future`.
    ///
    /// # Errors
    /// [`Error::Decode`](crate::Error::Decode) when it is none of the four.
    ///
    /// ```
    /// use tinsmith_wire::{FutureReply, OptimStepResponse};
    /// let reply = FutureReply::<OptimStepResponse>::from_json(br#"{"type":"try_again","queue_state":"active"}"#)?;
    /// assert!(matches!(reply, FutureReply::TryAgain(t) if t.queue_state.as_deref() == Some("active")));
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    pub fn from_json(body: &[u8]) -> Result<Self> {
        if is_result(body) {
            let named = |error| match json::from_slice::<Head>(body) {
                Ok(head) => head.named(error),
                Err(_) => error,
            };
            return json::from_slice(body).map(FutureReply::Ready).map_err(named);
        }
        let head: Head = json::from_slice(body)?;
        if head.kind.as_deref() == Some("try_again") {
            Ok(FutureReply::TryAgain(json::from_slice(body)?))
        } else if head.status.as_deref() == Some("complete_metadata") {
            Ok(FutureReply::CompleteMetadata { response_payload_size: head.response_payload_size })
        } else if let Some(error) = head.error {
            Ok(FutureReply::Failed(RequestFailed {
                error: error.as_str().map_or_else(|| error.to_string(), str::to_owned),
                category: head.category.map(Into::into).unwrap_or_default(),
            }))
        } else {
            json::from_slice(body).map(FutureReply::Ready).map_err(|error| head.named(error))
        }
    }
}

/// Whether `body` can be nothing but a result, as it lacks the word that each other reply has.
/// Results may be megabytes of numbers, which are thus read once, not twice.
fn is_result(body: &[u8]) -> bool {
    let has = |word: &str| memchr::memmem::find(body, word.as_bytes()).is_some();
    // An escape could hide a word.
    !["\\", "\"try_again\"", "\"complete_metadata\"", "\"error\""].into_iter().any(has)
}

/// Body of `POST /api/v1/cancel_future`; for samples only.
///
/// ```
/// use tinsmith_wire::{CancelFutureRequest, json};
/// let body = CancelFutureRequest { request_id: "r".into() };
/// assert_eq!(json::to_vec(&body)?, br#"{"request_id":"r"}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelFutureRequest {
    /// The request that nobody waits for any longer.
    pub request_id: String,
}

/// Body of `POST /api/v1/retrieve_futures`: which samples of a sampling session are done.
///
/// ```
/// use tinsmith_wire::{FuturesTarget, RetrieveFuturesRequest, json};
/// let target = FuturesTarget::SamplingSession { sampling_session_id: "s".into(), cloned_sampler_id: 0 };
/// let body = RetrieveFuturesRequest { target, prev_cursor: 3, timeout: None, retrieved_request_ids: vec![] };
/// assert!(json::to_vec(&body)?.ends_with(br#""prev_cursor":3,"retrieved_request_ids":[]}"#));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetrieveFuturesRequest {
    /// Whose samples.
    pub target: FuturesTarget,
    /// The cursor of the last reply, 0 at first. The server forgets what came up to it.
    pub prev_cursor: u64,
    /// Seconds that the server may wait for news: as it likes when absent, 0 to acknowledge only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// Requests whose results or errors have been read.
    #[serde(default, deserialize_with = "or_default")]
    pub retrieved_request_ids: Vec<String>,
}

/// Whose samples `retrieve_futures` tells of.
///
/// ```
/// use tinsmith_wire::{FuturesTarget, json};
/// let body = FuturesTarget::SamplingSession { sampling_session_id: "s".into(), cloned_sampler_id: 2 };
/// assert_eq!(json::to_vec(&body)?, br#"{"type":"sampling_session","sampling_session_id":"s","cloned_sampler_id":2}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum FuturesTarget {
    /// Of one copy of a sampling client.
    SamplingSession {
        /// The sampling session.
        sampling_session_id: String,
        /// The number of the copy; 0 is the original.
        #[serde(default)]
        cloned_sampler_id: u64,
    },
}

/// Reply to retrieve_futures.
///
/// ```
/// use tinsmith_wire::{RetrieveFuturesResponse, CompletionState, json};
/// let it: RetrieveFuturesResponse = json::from_slice(
///     br#"{"completions":[{"state":"failed","request_id":"r"}],"cursor":4}"#,
/// )?;
/// assert_eq!((it.cursor, &it.completions[0].state), (4, &CompletionState::Failed));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetrieveFuturesResponse {
    /// What has ended since `prev_cursor`.
    #[serde(default, deserialize_with = "or_default")]
    pub completions: Vec<Completion>,
    /// To send back with the next question.
    pub cursor: u64,
}

/// A sample that has ended. `retrieve_future` has its result.
///
/// ```
/// use tinsmith_wire::{Completion, json};
/// let it: Completion = json::from_slice(
///     br#"{"state":"finished","request_id":"r","response_payload_uncompressed_size":64}"#,
/// )?;
/// assert_eq!(it.response_payload_uncompressed_size, Some(64));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// How it ended.
    pub state: CompletionState,
    /// The request.
    pub request_id: String,
    /// Size of the result in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_payload_uncompressed_size: Option<u64>,
}

open_words! {
    /// How a sample ended.
    ///
    /// ```
    /// use tinsmith_wire::{CompletionState, json};
    /// let body = CompletionState::Finished;
    /// assert_eq!(json::to_vec(&body)?, br#""finished""#);
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    pub enum CompletionState {
        /// With a result.
        Finished = "finished",
        /// With an error.
        Failed = "failed",
    }
}

/// The fields that tell the replies apart.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type", default, deserialize_with = "text")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "text")]
    status: Option<String>,
    response_payload_size: Option<u64>,
    error: Option<serde_json::Value>,
    #[serde(default, deserialize_with = "text")]
    category: Option<String>,
}

impl Head {
    /// The error of reading a result, if what came may be a reply of a kind that is not known.
    fn named(&self, mut error: Error) -> Error {
        let word = |what, word: &Option<String>| word.as_ref().map(|w| format!("{what} `{w}`"));
        let named = word("type", &self.kind).or_else(|| word("status", &self.status));
        if let (Error::Decode { reason, .. }, Some(named)) = (&mut error, named) {
            *reason = format!(
                "it is no result, nor another reply that is known, but of the {named}: {reason}"
            );
        }
        error
    }
}

/// A string, or nothing when a result uses the name for something else.
fn text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<String>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_str().map(str::to_owned))
}

impl<T: Serialize> Serialize for FutureReply<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            FutureReply::TryAgain(reply) => reply.serialize(serializer),
            FutureReply::CompleteMetadata { response_payload_size } => {
                #[derive(Serialize)]
                struct Metadata {
                    status: &'static str,
                    #[serde(skip_serializing_if = "Option::is_none")]
                    response_payload_size: Option<u64>,
                }
                let status = "complete_metadata";
                let response_payload_size = *response_payload_size;
                Metadata { status, response_payload_size }.serialize(serializer)
            }
            FutureReply::Failed(reply) => reply.serialize(serializer),
            FutureReply::Ready(result) => result.serialize(serializer),
        }
    }
}
