//! Everything that can go wrong, in words for the person who has to act on it.

mod call_info;
mod consequences;
mod datum_problem;
mod forward_problem;
mod phrases;

pub use call_info::CallInfo;
pub(crate) use consequences::leaves_open;
pub use datum_problem::DatumProblem;
pub use forward_problem::ForwardProblem;

use phrases::{Because, List, Whose};
use std::{fmt, panic::Location, path::PathBuf, time::Duration};

use tinsmith_grad as grad;
use tinsmith_wire::{self as wire, ErrorCategory};

use crate::{Dialect, Drift};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and what to do about it.
///
/// The first group is found before anything is sent; the second between the passes of a custom
/// loss, before anything is sent that could train; the third comes from the server or the way to
/// it.
///
/// ```
/// use tinsmith_client::{Error, LoraConfig, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// match service.create_lora_training_client("no-such-model", &LoraConfig::rank(8)) {
///     Err(error) if error.is_retryable() => eprintln!("later perhaps: {error}"),
///     Err(Error::Status { message, .. }) => assert!(message.contains("no-such-model")), // the server's own words
///     other => panic!("{other:?}"),
/// }
/// # anyhow::Ok(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting cannot be used.
    #[error("{what}: {reason}")]
    Config {
        /// The setting.
        what: &'static str,
        /// Why not, and what would do.
        reason: String,
    },
    /// The command that prints the API key did not.
    #[error("the command for the API key, `{command}`, {problem}")]
    KeyCommand {
        /// The command line, without anything that may be a key.
        command: String,
        /// How it ended, and what it wrote to its standard error.
        problem: String,
    },
    /// A batch without data.
    #[error("the batch is empty: a training pass needs at least one datum")]
    EmptyBatch,
    /// A datum that no server could train on.
    #[error("datum {index}: `{field}` {problem}")]
    Datum {
        /// Its place in the batch.
        index: usize,
        /// The field at fault.
        field: String,
        /// What is wrong with it.
        problem: DatumProblem,
    },
    /// A value cannot be written for the server to read.
    #[error(transparent)]
    Encode(wire::Error),

    /// The forward pass answered for another number of data.
    #[error("the forward pass returned {found} outputs for {expected} data; nothing was trained")]
    OutputCount {
        /// Data sent.
        expected: usize,
        /// Outputs received.
        found: usize,
    },
    /// The forward pass gave a datum logprobs that cannot be used.
    #[error(
        "the forward pass returned for datum {index}: `logprobs` {problem}; nothing was trained"
    )]
    Logprobs {
        /// Its place in the batch.
        index: usize,
        /// What is wrong with them.
        problem: DatumProblem,
    },
    /// The loss function itself gave up.
    #[error("the loss function (called at {at}) failed: {source:#}; nothing was trained")]
    LossFailed {
        /// What it returned.
        source: anyhow::Error,
        /// The call of `forward_backward_custom`.
        at: &'static Location<'static>,
    },
    /// The loss could not be recorded or evaluated: shapes, dtypes or lengths that do not fit.
    #[error("the loss cannot be computed: {0}; nothing was trained")]
    Loss(grad::Error),
    /// A term of a loss could not be recorded: shapes, dtypes or lengths that do not fit.
    #[error(
        "the term {name:?} of the loss (added at {at}) cannot be computed: {cause}; nothing was trained"
    )]
    Term {
        /// Its name.
        name: String,
        /// What does not fit, and where.
        cause: Box<grad::Error>,
        /// Where [`Loss::regularize`](crate::Loss::regularize) was called.
        at: &'static Location<'static>,
    },
    /// A metric could not be recorded: shapes, dtypes or lengths that do not fit.
    #[error(
        "metric {name:?} of the loss (made at {at}) cannot be computed: {cause}; nothing was trained"
    )]
    Metric {
        /// Its name.
        name: String,
        /// What does not fit, and where.
        cause: Box<grad::Error>,
        /// Where [`Loss::new`](crate::Loss::new) was called.
        at: &'static Location<'static>,
    },
    /// The loss, or a term of it, is not one number.
    #[error(
        "{} (made at {at}) has shape {shape:?}, not one number: reduce it with .sum() or .mean(); nothing was trained",
        Whose(term)
    )]
    LossNotScalar {
        /// The term, of a loss that has several.
        term: Option<String>,
        /// Its shape.
        shape: Vec<usize>,
        /// Where [`Loss::new`](crate::Loss::new) or [`Loss::regularize`](crate::Loss::regularize)
        /// was called.
        at: &'static Location<'static>,
    },
    /// The loss is NaN or infinite.
    #[error("{} (made at {at}) is {value}{}; nothing was trained", Whose(term), Because(cause))]
    LossNotFinite {
        /// The first term that is, of a loss that has several; none if all of them are finite and
        /// only their sum is not.
        term: Option<String>,
        /// Its value.
        value: f64,
        /// The first op that gave such a value.
        cause: Option<Box<grad::Error>>,
        /// Where [`Loss::new`](crate::Loss::new) or [`Loss::regularize`](crate::Loss::regularize)
        /// was called.
        at: &'static Location<'static>,
    },
    /// A term of a loss does not depend on the logprobs.
    #[error(
        "the term {name:?} of the loss (added at {at}) does not depend on the logprobs, so it would be added to the loss and train \
         nothing: compute it from batch.logprobs(), make it a metric, or call Loss::allow_constant_terms; nothing was trained"
    )]
    ConstantTerm {
        /// Its name.
        name: String,
        /// Where [`Loss::regularize`](crate::Loss::regularize) was called.
        at: &'static Location<'static>,
    },
    /// A metric is not one number.
    #[error(
        "metric {name:?} of the loss (made at {at}) has shape {shape:?}, not one number; nothing was trained"
    )]
    MetricNotScalar {
        /// Its name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Where [`Loss::new`](crate::Loss::new) was called.
        at: &'static Location<'static>,
    },
    /// Two terms or two metrics of one name.
    #[error(
        "the loss (made at {at}) gives the name {name:?} twice: rename one; nothing was trained"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Where [`Loss::new`](crate::Loss::new) was called.
        at: &'static Location<'static>,
    },
    /// The loss does not depend on the logprobs of some data.
    #[error(
        "the loss (made at {at}) does not use the logprobs of datum {}, so it would not be trained on: use it, leave it out of \
         the batch, or call Loss::allow_unused; nothing was trained",
        List(data)
    )]
    UnusedData {
        /// Their places in the batch.
        data: Vec<usize>,
        /// Where [`Loss::new`](crate::Loss::new) was called.
        at: &'static Location<'static>,
    },
    /// The gradient has a NaN or an infinity.
    #[error(
        "the gradient of {} (made at {at}) is {value} for datum {index}, element {position}{}; nothing was trained",
        Whose(term),
        Because(cause)
    )]
    GradientNotFinite {
        /// The first term of which the gradient is so, of a loss that has several; none if only the
        /// sum is.
        term: Option<String>,
        /// Place of the datum in the batch.
        index: usize,
        /// Element of its logprobs, row-major.
        position: usize,
        /// The value.
        value: f32,
        /// The first op that gave such a value.
        cause: Option<Box<grad::Error>>,
        /// Where [`Loss::new`](crate::Loss::new) or [`Loss::regularize`](crate::Loss::regularize)
        /// was called.
        at: &'static Location<'static>,
    },
    /// A finished forward pass cannot stand for the first pass of a custom loss.
    #[error(
        "the forward pass (request {seq_id}) cannot be used again: {problem}; make a new one with precompute_forward; nothing was trained"
    )]
    StaleForward {
        /// Its sequence id.
        seq_id: u64,
        /// Why not.
        problem: ForwardProblem,
    },
    /// The server was to divide a gradient that was divided here.
    #[error(
        "the gradient of request {pass} was divided by its count here already (Loss::normalize), and optim_step asks the server to divide it \
         again: drop one of the two; nothing was sent"
    )]
    NormalizedTwice {
        /// Sequence id of the custom loss.
        pass: u64,
    },
    /// Two gradients that were divided each by its own count would be added.
    #[error(
        "the gradient of request {pass}, which has not been applied yet, was divided by the count of its own data (Loss::normalize), and \
         so would this one be: their sum is no mean over both. Give all data of an optimizer step in one call; nothing was trained"
    )]
    NormalizedApart {
        /// Sequence id of the earlier custom loss.
        pass: u64,
    },
    /// The logprobs of the two passes differ by more than
    /// [`Loss::max_drift`](crate::Loss::max_drift) allows.
    #[error(
        "the logprobs of the two passes differ by up to {:.6} nats, and the loss allows {limit}: the gradient that has gathered on the \
         server is not that of the loss. Do not apply it: optim_step would; create a new training client from the last saved state",
        drift.max_abs
    )]
    Drift {
        /// The difference.
        drift: Drift,
        /// The most that is allowed, in nats.
        limit: f64,
    },
    /// The gradient of a loss is not its derivative; found by [`check_loss`](crate::check_loss()).
    #[error("the gradient of the loss (checked at {at}) is not its derivative: {cause}")]
    WrongGradient {
        /// Where they differ.
        cause: Box<grad::Error>,
        /// The call of `check_loss`.
        at: &'static Location<'static>,
    },
    /// A file of metrics or recorded steps cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The model was used inside its own loss function, while its turn to send was taken.
    #[error(
        "a training client cannot be used inside its own loss function: make the call before or after forward_backward_custom"
    )]
    InsideLoss,

    /// An earlier request of this training client could not be delivered, so no later one can be
    /// put in order.
    #[error(
        "nobody can tell whether an earlier request of this training client was executed, so none is sent after it: {first}; save_state \
         still works, and a new training client goes on from there"
    )]
    Poisoned {
        /// That request's error.
        first: String,
    },
    /// The session has ended on the server.
    #[error(
        "the session is over: the server no longer accepts its heartbeat; create a new ServiceClient"
    )]
    SessionOver,
    /// The server refused a request.
    #[error("{call}: the server answered {status}: {message}")]
    Status {
        /// What was asked.
        call: Box<CallInfo>,
        /// The HTTP status.
        status: u16,
        /// The server's own words, cut to a readable length.
        message: String,
    },
    /// The server refused the first training pass in a way that suggests another dialect.
    #[error(
        "{call}: the server answered {status}: {message}; the request was in the {} dialect, so if this server speaks {} \
         set ServiceClientBuilder::dialect",
        dialect_name(*spoken),
        other_dialect_name(*spoken)
    )]
    WrongDialect {
        /// What was asked.
        call: Box<CallInfo>,
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        message: String,
        /// What the request was in.
        spoken: Dialect,
    },
    /// The server accepted a request and failed to execute it.
    #[error("{call}: failed on the server ({}): {message}", category_name(category))]
    RequestFailed {
        /// What was asked.
        call: Box<CallInfo>,
        /// Whose fault it is.
        category: ErrorCategory,
        /// The server's own words.
        message: String,
    },
    /// The server has forgotten the result.
    #[error("{call}: the server no longer has the result (410): {message}")]
    Expired {
        /// What was asked.
        call: Box<CallInfo>,
        /// The server's own words.
        message: String,
    },
    /// No answer came.
    #[error("{call}: no answer: {reason}")]
    Unreachable {
        /// What was asked.
        call: Box<CallInfo>,
        /// What happened on the way.
        reason: String,
        /// Whether the server may have received the request all the same.
        maybe_received: bool,
    },
    /// What was fetched cannot be written where it was to go.
    #[error("{call}: what was fetched cannot be written: {source}")]
    Write {
        /// What was asked.
        call: Box<CallInfo>,
        /// Why.
        source: std::io::Error,
    },
    /// A [`CancelToken`](crate::CancelToken) ended the wait.
    #[error("{call}: cancelled by this program")]
    Cancelled {
        /// What was asked, and how far it came.
        call: Box<CallInfo>,
    },
    /// Time ran out.
    #[error("{call}: not done within {limit:?}{}", Last(last))]
    Deadline {
        /// What was asked, and how far it came.
        call: Box<CallInfo>,
        /// The time that was given.
        limit: Duration,
        /// The last thing that stood in the way.
        last: Option<String>,
    },
    /// The answer is not what this request is answered with.
    #[error("{call}: {source}; the answer begins {excerpt:?}")]
    Reply {
        /// What was asked.
        call: Box<CallInfo>,
        /// What could not be read.
        source: Box<wire::Error>,
        /// The first bytes of the answer.
        excerpt: String,
    },
    /// The answer reads well but cannot be right.
    #[error("{call}: {problem}")]
    Unexpected {
        /// What was asked.
        call: Box<CallInfo>,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The result of a future was taken before.
    #[error("the result of this future was taken already")]
    ResultTaken,
}

fn category_name(category: &ErrorCategory) -> &str {
    match category {
        ErrorCategory::User => "the request is at fault",
        ErrorCategory::Server => "the server is at fault",
        ErrorCategory::Unknown => "cause not given",
        ErrorCategory::Other(word) => word,
    }
}

fn dialect_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Json => "JSON",
        Dialect::Protobuf => "protobuf",
    }
}

fn other_dialect_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Json => "protobuf",
        Dialect::Protobuf => "JSON",
    }
}

struct Last<'a>(&'a Option<String>);

impl fmt::Display for Last<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |last| write!(f, "; last: {last}"))
    }
}
