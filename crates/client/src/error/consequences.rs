//! What an error means for what may be done next.

use std::ops::Range;

use tinsmith_wire::ErrorCategory;

use crate::Error;

/// Whether a request that was answered so may have been executed all the same.
pub(crate) fn leaves_open(status: u16) -> bool {
    matches!(status, 408 | 500..)
}

impl Error {
    /// Whether the same call may succeed later, unchanged.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Status { status, .. } => matches!(status, 402 | 408 | 409 | 425 | 429 | 500..),
            Error::RequestFailed { category, .. } => *category == ErrorCategory::Server,
            Error::Unreachable { .. } | Error::Deadline { .. } => true,
            _ => false,
        }
    }

    /// Whether time ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Error::Deadline { .. })
    }

    /// Whether the server may have executed the request, or may execute it yet. Sending it anew
    /// under a new sequence id, an optimizer step say, could then do the work twice.
    ///
    /// ```
    /// use tinsmith_client::{AdamParams, LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// match training.optim_step(&AdamParams::default())?.result() {
    ///     Err(error) if error.may_have_been_applied() => eprintln!("go on from the last checkpoint: {error}"),
    ///     other => println!("{:?}", other?.metrics),
    /// }
    /// # anyhow::Ok(())
    /// ```
    pub fn may_have_been_applied(&self) -> bool {
        match self {
            Error::Deadline { call, .. } | Error::Cancelled { call } => {
                call.request_id.is_some() || call.is_uncertain
            }
            Error::Unreachable { maybe_received, .. } => *maybe_received,
            Error::Status { call, status, .. } | Error::WrongDialect { call, status, .. } => {
                call.is_uncertain || leaves_open(*status)
            }
            Error::Expired { .. } | Error::Reply { .. } | Error::Unexpected { .. } => true,
            // Found before anything was sent that could train, or told by the server as not done.
            Error::Config { .. }
            | Error::KeyCommand { .. }
            | Error::EmptyBatch
            | Error::Datum { .. }
            | Error::Encode(_)
            | Error::OutputCount { .. }
            | Error::Logprobs { .. }
            | Error::LossFailed { .. }
            | Error::Loss(_)
            | Error::Term { .. }
            | Error::Metric { .. }
            | Error::LossNotScalar { .. }
            | Error::LossNotFinite { .. }
            | Error::ConstantTerm { .. }
            | Error::MetricNotScalar { .. }
            | Error::NameTaken { .. }
            | Error::UnusedData { .. }
            | Error::GradientNotFinite { .. }
            | Error::StaleForward { .. }
            | Error::NormalizedTwice { .. }
            | Error::NormalizedApart { .. }
            | Error::Drift { .. }
            | Error::WrongGradient { .. }
            | Error::File { .. }
            | Error::InsideLoss
            | Error::Poisoned { .. }
            | Error::SessionOver
            | Error::RequestFailed { .. }
            | Error::Write { .. }
            | Error::ResultTaken => false,
        }
    }

    /// Whether the server took the request and said that it did not execute it.
    pub(crate) fn is_failure(&self) -> bool {
        match self {
            Error::RequestFailed { .. } => true,
            // SkyRL-tx's way.
            Error::Status { status, .. } => *status == 400,
            _ => false,
        }
    }

    /// As the error of a request that holds these data of a larger batch.
    pub(crate) fn about_data(mut self, data: Option<Range<usize>>) -> Self {
        if let Error::Status { call, .. }
        | Error::Unreachable { call, .. }
        | Error::Deadline { call, .. }
        | Error::Reply { call, .. } = &mut self
        {
            call.data = data;
        }
        self
    }

    /// Whether the server refused the request, and has not executed it.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Error::Status { .. } | Error::WrongDialect { .. })
            && !self.may_have_been_applied()
    }
}
