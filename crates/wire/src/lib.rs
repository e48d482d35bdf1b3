//! The types of the Tinker training protocol, and their codecs: [`json`] for all of them, [`proto`]
//! for the bulky ones.
//!
//! ```
//! use tinsmith_wire::{Datum, LossFn, ModelInput, Pass, PassRequest, TensorData, json, proto};
//!
//! let data = [Datum::new(ModelInput::from_tokens(vec![1, 2, 3]))
//!     .with("target_tokens", TensorData::from(vec![2i64, 3, 4]))];
//! let request = PassRequest {
//!     pass: Pass::ForwardBackward,
//!     data: (&data).into(),
//!     loss_fn: LossFn::CrossEntropy,
//!     loss_fn_config: None,
//!     model_id: "model".into(),
//!     seq_id: 1,
//! };
//! assert_eq!(json::from_slice::<PassRequest>(&json::to_vec(&request)?)?, request);
//! assert_eq!(proto::from_vec::<PassRequest>(proto::to_vec(&request)?)?, request);
//! # Ok::<(), tinsmith_wire::Error>(())
//! ```
//!
//! * One set of types for both sides: a client writes what a server reads, and the other way round.
//! * **Writing JSON is strict**: no nulls, defaults spelled out, `type` tags present, no NaN. That
//!   is the form of the Python SDK 0.18, which every server reads.
//! * **Reading is tolerant**: every `type` tag and every defaulted field may be missing or null,
//!   unknown fields are ignored, and numbers of results may be NaN and infinite. What comes out is
//!   well formed: a [`TensorData`] whose shape and data disagree is never made.
//! * Errors name the message and the path: ``at `data[3].loss_fn_inputs.weights`: ..``.
//! * Clones are cheap: tokens, images and tensor values are shared.
//!
//! Feature `candle` adds conversions between [`TensorData`] and candle tensors, feature `zstd`
//! compressed bodies.

mod builders;
#[cfg(feature = "candle")]
mod candle;
mod config;
mod custom_loss;
mod datum;
mod elements;
mod error;
mod future;
pub mod json;
mod listing;
mod metrics;
mod number_arrays;
mod numbers;
mod optimizer;
pub mod proto;
mod provenance;
mod sampling;
mod session;
mod tensor;
mod tensor_json;
mod tolerant;
mod training;
mod weights;
mod words;
#[cfg(feature = "zstd")]
pub mod zstd;

pub use builders::{ShiftConfig, WeightReduction};
pub use config::{
    AuthTokenRequest, AuthTokenResponse, ClientConfig, ClientConfigRequest, DynamicConfig,
};
pub use custom_loss::{
    Argument, CreateCustomLossRequest, CreateCustomLossResponse, CustomLossInput, Form, GraphNode,
    LossGraph, NodeOp, NonFinite,
};
pub use datum::{Chunk, Datum, ImageDimensions, ModelInput};
pub use elements::DType;
pub use error::{Error, Result};
pub use future::{
    CancelFutureRequest, Completion, CompletionState, ErrorCategory, FutureReply, FuturesTarget,
    RequestFailed, RetrieveFutureRequest, RetrieveFuturesRequest, RetrieveFuturesResponse,
    Submitted, TryAgain,
};
pub use listing::{
    Checkpoint, CheckpointType, CheckpointsResponse, CopyWeights, Cursor, ExternalWeightsUrls,
    SessionInfo, SessionsResponse, SetTtlRequest, TrainingRun, TrainingRunsResponse,
};
pub use metrics::Metrics;
pub use optimizer::{
    AdamParams, DimuonParams, GradAccumulationNormalization, GradNormMetrics, OptimStepRequest,
    OptimStepResponse, OptimizerConfig, OptimizerParams,
};
pub use provenance::{Provenance, ProvenanceSource, ProvenanceSpan};
pub use sampling::{
    CreateSamplingSessionRequest, CreateSamplingSessionResponse, JoinSamplingSessionRequest,
    JoinSamplingSessionResponse, PromptAltTokens, SampleRequest, SampleResponse, SampledSequence,
    SamplerInfo, SamplingParams, Stop, StopReason, TopLogprobs,
};
pub use session::{
    CreateModelRequest, CreateModelResponse, CreateSessionRequest, CreateSessionResponse,
    ErrorBody, FinishReason, FinishSessionRequest, GetInfoRequest, GetInfoResponse, Health,
    LoraConfig, ModelData, ServerCapabilities, SessionHeartbeatRequest, SessionHeartbeatResponse,
    SupportedModel, UnloadModelRequest, UnloadModelResponse, UserMetadata,
};
pub use tensor::{Csr, Data, TensorData};
pub use training::{ConfigValue, ForwardBackwardOutput, LossFn, LossFnConfig, Pass, PassRequest};
pub use weights::{
    CreateByLoadRequest, LoadWeights, LoadWeightsRequest, LoadWeightsResponse, SamplerKind,
    SaveWeightsExternalRequest, SaveWeightsExternalResponse, SaveWeightsForSamplerRequest,
    SaveWeightsForSamplerResponse, SaveWeightsRequest, SaveWeightsResponse, WeightsInfoRequest,
    WeightsInfoResponse,
};
