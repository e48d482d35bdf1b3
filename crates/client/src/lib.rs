//! Fine-tune a language model on a remote trainer, with a loss of your own.
//!
//! ```
//! use tinsmith_client::{AdamParams, Datum, LoraConfig, Loss, ModelInput, ServiceClient};
//! use tinsmith_trainer::Trainer;
//!
//! let trainer = Trainer::spawn()?; // a small local one; ServiceClient::from_env() connects to any other
//! let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
//! let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
//!
//! let data = [Datum::new(ModelInput::from_tokens(vec![1, 2, 3]))
//!     .with("target_tokens", vec![2i64, 3, 4])
//!     .with("advantages", vec![0.0f32, 1.0, -0.5])];
//!
//! let step = training.forward_backward_custom(&data, |batch| {
//!     let logprobs = batch.logprobs();             // one sequence a datum
//!     let advantages = batch.input("advantages")?; // any input of the data, aligned to them
//!     Ok(Loss::new(-(&logprobs * advantages).sum()).metric("mean logprob", logprobs.mean()))
//! })?;
//! let optim = training.optim_step(&AdamParams::default().learning_rate(1e-5))?;
//!
//! println!("loss {}", step.result()?.output.metrics["loss:sum"]);
//! optim.result()?;
//! # anyhow::Ok(())
//! ```
//!
//! # Which server
//!
//! [`ServiceClientBuilder`] names it, or the environment does. What the server speaks ([`Dialect`])
//! and how much it takes at once is asked of the server; builder settings override the answers.
//! [`ServiceClientBuilder::fireworks`] trains on Fireworks. [`ServiceClient::capabilities`] shows
//! what a server supports. Feature `zstd` compresses training requests for servers that ask for it;
//! feature `tracing` gives spans of steps, passes, losses and requests.
//!
//! | to | there is |
//! | --- | --- |
//! | train | [`TrainingClient`]: [`forward_backward`](TrainingClient::forward_backward), [`forward_backward_custom`](TrainingClient::forward_backward_custom), [`optim_step`](TrainingClient::optim_step) |
//! | keep and go on | [`save_state`](TrainingClient::save_state), [`load_state`](TrainingClient::load_state), [`create_training_client_from_state`](ServiceClient::create_training_client_from_state) |
//! | sample | [`SamplingClient`], from a name, a checkpoint, or [`save_weights_for_sampler`](TrainingClient::save_weights_for_sampler) |
//! | list, delete, download | [`RestClient`] |
//! | see what goes on | [`Progress`], [`Traffic`], [`StepReport`] |
//!
//! # What holds everywhere
//!
//! * **Two passes.** The trainer's forward pass returns logprobs; the loss function and its
//!   gradient run here, in [`grad`]; the gradient goes back as the weights of a second, linear
//!   pass. [`losses`] has the usual losses ready.
//! * **Blocking, with futures.** A call returns when the trainer has accepted it, an [`ApiFuture`]
//!   waits for the result. Nothing waits for ever: [`RetryConfig`] holds every limit.
//! * **Exactly once.** A repetition carries the same bytes under the same sequence id. A server
//!   that does not know a repetition when it sees one (SkyRL-tx) is recognized, and sent none.
//!   Where nobody can know whether a request was executed, [`Error::may_have_been_applied`] says
//!   so.
//! * **Nothing trains by accident.** A loss that is not one number, not finite, or leaves out a
//!   datum is an error that names the datum and the source line, before the second pass is sent.
//! * **The API key** appears in no error and no debug output, and does not travel unencrypted
//!   except on this machine.

mod builder;
mod capabilities;
mod custom_loss;
mod dialect;
mod error;
mod http;
mod observe;
mod protocol;
mod report;
mod rest;
mod sampling;
mod service;
mod settings;
mod training;

pub use builder::ServiceClientBuilder;
pub use capabilities::{Capabilities, Support};
pub use custom_loss::{
    batch::Batch,
    check::{LossCheck, check_loss, check_loss_at},
    loss::{Loss, MetricValue},
    precomputed::PrecomputedForward,
    record::{ReplayedStep, replay},
    step::{CustomStep, StepOutput},
};
pub use dialect::{Dialect, RequestOrder};
pub use error::{CallInfo, DatumProblem, Error, ForwardProblem, Result};
pub use http::retry::RetryConfig;
pub use observe::{
    cancel::CancelToken,
    clock::{Clock, SystemClock},
    metrics_writer::MetricsWriter,
    progress::{Event, LogProgress, Progress, Severity, StderrProgress, Traffic},
};
pub use protocol::{awaiting::Awaiting, chunking::ChunkLimits, future::ApiFuture};
pub use report::{
    Drift, GradientReport, Normalization, PhaseTimes, PriceList, Rescaling, RolloutGap, RunTotals,
    ServerLoss, StepReport, SurrogateCheck, TermReport, Usage, Warning,
};
pub use rest::{ArchiveUrl, RestClient};
pub use sampling::client::{SampleOptions, SamplingClient};
pub use service::ServiceClient;
pub use training::{
    checkpoint::SaveOptions,
    checkpoint_path::CheckpointPath,
    client::{ModelOptions, TrainingClient},
    combine::combine as combine_outputs,
    lr_schedule::{LrCurve, LrOptions, LrSchedule},
    optim::OptimStep,
};

pub use tinsmith_grad as grad;
pub use tinsmith_losses as losses;
pub use tinsmith_wire as wire;
pub use wire::{
    AdamParams, ConfigValue, Datum, DimuonParams, FinishReason, ForwardBackwardOutput,
    GradAccumulationNormalization, GradNormMetrics, LoraConfig, LossFn, LossFnConfig, Metrics,
    ModelInput, OptimizerConfig, OptimizerParams, SampleResponse, SampledSequence, SamplerKind,
    SamplingParams, Stop, StopReason, TensorData,
};
