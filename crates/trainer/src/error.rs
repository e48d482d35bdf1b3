//! Everything that can go wrong in a trainer.

use std::path::PathBuf;

use tinsmith_wire::ErrorCategory;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A datum of a training request is unsuitable.
    #[error("data[{index}].{field}: {problem}")]
    Datum {
        /// Its place in the request.
        index: usize,
        /// The field of the datum.
        field: String,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// A field of a request is unsuitable.
    #[error("{field}: {problem}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// A body could not be read.
    #[error(transparent)]
    Body(#[from] tinsmith_wire::Error),
    /// A request names something that is not here.
    #[error("no {kind} `{id}` on this trainer; {hint}")]
    NotFound {
        /// What was looked for.
        kind: &'static str,
        /// The name it was looked for by.
        id: String,
        /// What to do.
        hint: String,
    },
    /// A request contradicts an earlier one.
    #[error("{0}")]
    Conflict(String),
    /// A session is over, or a result has been dropped.
    #[error("{0}")]
    Gone(String),
    /// The trainer was given a key and the request did not carry it.
    #[error("wrong or missing API key; send the trainer's key as `X-API-Key`")]
    Unauthorized,
    /// The token in place of the key is not good any more.
    #[error("the token is spent, or of another trainer; exchange the key for one at `auth/token`")]
    TokenSpent,
    /// A body is longer than the trainer takes.
    #[error("the body is longer than {limit} bytes; send fewer datums per request")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// A body in a form that is not read here.
    #[error("the body is `{found}`; {wanted}")]
    MediaType {
        /// Its `Content-Type` or `Content-Encoding`.
        found: String,
        /// What to send.
        wanted: &'static str,
    },
    /// An optimizer step was asked for after a forward_backward of the same step had failed.
    #[error(
        "a forward_backward of this step failed ({0}); its other gradients have been dropped and the weights are unchanged"
    )]
    BrokenStep(String),
    /// A checkpoint cannot be used.
    #[error("checkpoint {}: {problem}", .path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file or folder does not hold what it should: a model that this trainer can run, notes that
    /// it has written.
    #[error("cannot use {}: {problem}", .path.display())]
    Unusable {
        /// The folder or the file at fault.
        path: PathBuf,
        /// What is wrong with it: the tensor or the field, what was expected and what was found.
        problem: String,
    },
    /// The file system failed.
    #[error("cannot {action} {}: {problem}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        problem: String,
    },
    /// A computation failed.
    #[error("computation failed: {0}")]
    Compute(String),
    /// The trainer could not start.
    #[error("cannot listen on {address}: {problem}")]
    Bind {
        /// The address asked for.
        address: String,
        /// What the system said.
        problem: String,
    },
    /// The trainer is being shut down.
    #[error("the trainer is shutting down")]
    ShuttingDown,
    /// A fault of the trainer's own.
    #[error("internal error: {0}; this is a bug in the trainer")]
    Internal(String),
}

impl Error {
    /// The HTTP status that tells a client.
    pub fn status(&self) -> u16 {
        match self {
            Self::Datum { .. } | Self::Field { .. } | Self::BrokenStep(_) => 400,
            Self::Unauthorized | Self::TokenSpent => 401,
            Self::NotFound { .. } => 404,
            Self::Conflict(_) => 409,
            Self::Gone(_) => 410,
            Self::TooLarge { .. } => 413,
            Self::MediaType { .. } => 415,
            Self::Body(_) | Self::Checkpoint { .. } | Self::Unusable { .. } => 422,
            Self::ShuttingDown => 503,
            Self::Io { .. } | Self::Compute(_) | Self::Bind { .. } | Self::Internal(_) => 500,
        }
    }

    /// Whose fault it is.
    pub fn category(&self) -> ErrorCategory {
        match self.status() {
            500.. => ErrorCategory::Server,
            _ => ErrorCategory::User,
        }
    }

    pub(crate) fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Field { field, problem: problem.into() }
    }

    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
        error: &std::io::Error,
    ) -> Self {
        Self::Io { action, path: path.into(), problem: error.to_string() }
    }
}

impl From<tinsmith_grad::Error> for Error {
    fn from(error: tinsmith_grad::Error) -> Self {
        Self::Compute(error.to_string())
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Compute(error.to_string())
    }
}
