//! Results as they are kept until a client fetches them, in the form that it asks for.

use std::sync::OnceLock;

use axum::body::Bytes;
use serde::Serialize;
use tinsmith_wire::{ForwardBackwardOutput, RequestFailed, SampleResponse, json, proto};

use crate::{Error, Result};

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Proto,
}

/// How a request ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A result that is JSON in every dialect.
    Json(Vec<u8>),
    /// Of forward and forward_backward.
    Pass(ForwardBackwardOutput),
    Sample(SampleResponse),
    Failed(RequestFailed),
}

impl Outcome {
    pub(crate) fn json(result: &impl Serialize) -> Result<Self> {
        Ok(Self::Json(json::to_vec(result)?))
    }

    /// How `result` ended.
    pub(crate) fn of(result: Result<Self>) -> Self {
        result.unwrap_or_else(|error| Self::Failed(failed(&error)))
    }

    /// The body, in `format` where the result has that form.
    fn encode(&self, format: Format) -> Result<Body> {
        let body = match (self, format) {
            (Self::Json(body), _) => (Format::Json, body.clone()),
            (Self::Failed(failed), _) => (Format::Json, json::to_vec(failed)?),
            (Self::Pass(output), Format::Json) => (format, json::to_vec(output)?),
            (Self::Pass(output), Format::Proto) => (format, proto::to_vec(output)?),
            (Self::Sample(response), Format::Json) => (format, json::to_vec(response)?),
            (Self::Sample(response), Format::Proto) => (format, proto::to_vec(response)?),
        };
        Ok(Body { format: body.0, bytes: body.1.into() })
    }

    /// Roughly how many bytes of memory it holds.
    fn size(&self) -> usize {
        match self {
            Self::Json(body) => body.len(),
            Self::Failed(failed) => failed.error.len(),
            Self::Pass(output) => {
                let records = output.loss_fn_outputs.iter().flat_map(|record| record.values());
                records.map(|tensor| 64 + 4 * tensor.shape().iter().product::<usize>()).sum()
            }
            Self::Sample(response) => {
                let tokens: usize = response.sequences.iter().map(|s| s.tokens.len()).sum();
                let prompt = response.prompt_logprobs.as_ref().map_or(0, Vec::len);
                let top = response.topk_prompt_logprobs.iter().flatten().flatten();
                8 * (tokens + prompt + top.map(Vec::len).sum::<usize>())
            }
        }
    }
}

fn failed(error: &Error) -> RequestFailed {
    RequestFailed { error: error.to_string(), category: error.category() }
}

/// An answer, ready to be sent. Clones share the bytes.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    pub(crate) format: Format,
    pub(crate) bytes: Bytes,
}

impl Body {
    pub(crate) fn json(value: &impl Serialize) -> Result<Self> {
        Ok(Self { format: Format::Json, bytes: json::to_vec(value)?.into() })
    }
}

/// An outcome and the bodies that it has been asked for as.
#[derive(Debug)]
pub(crate) struct Finished {
    outcome: Outcome,
    json: OnceLock<Body>,
    proto: OnceLock<Body>,
}

impl Finished {
    pub(crate) fn new(outcome: Outcome) -> Self {
        Self { outcome, json: OnceLock::new(), proto: OnceLock::new() }
    }

    pub(crate) fn is_failure(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }

    /// Roughly how many bytes of memory it holds, once fetched.
    pub(crate) fn size(&self) -> usize {
        2 * self.outcome.size()
    }

    /// The body in `format`, encoded once. A result that the format cannot carry is a failure.
    pub(crate) fn body(&self, format: Format) -> Result<Body> {
        let cell = match format {
            Format::Json => &self.json,
            Format::Proto => &self.proto,
        };
        if let Some(body) = cell.get() {
            return Ok(body.clone());
        }
        let body = match self.outcome.encode(format) {
            Ok(body) => body,
            Err(error) => Body::json(&failed(&error))?,
        };
        Ok(cell.get_or_init(|| body).clone())
    }
}
