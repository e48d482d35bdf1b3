//! The types of the Tinker training protocol, and their JSON codec.
//!
//! ```
//! use tinsmith_wire::{Datum, ForwardBackwardInput, ForwardBackwardRequest, LossFn, ModelInput, TensorData, json};
//!
//! let datum = Datum::new(ModelInput::from_tokens(vec![1, 2, 3]))
//!     .with("target_tokens", TensorData::from(vec![2i64, 3, 4]));
//! let request = ForwardBackwardRequest {
//!     forward_backward_input: ForwardBackwardInput {
//!         data: vec![datum],
//!         loss_fn: LossFn::CrossEntropy,
//!         loss_fn_config: None,
//!     },
//!     model_id: "model".into(),
//!     seq_id: 1,
//! };
//! let body = json::to_vec(&request)?;
//! assert_eq!(json::from_slice::<ForwardBackwardRequest>(&body)?, request);
//! # Ok::<(), tinsmith_wire::Error>(())
//! ```
//!
//! * One set of types for both sides: a client writes what a server reads, and the other way round.
//! * **Writing is strict**: no nulls, defaults spelled out, `type` tags present, no NaN. That is the form of the Python
//!   SDK 0.18, which every server reads.
//! * **Reading is tolerant**: every `type` tag and every defaulted field may be missing or null, unknown fields
//!   are ignored. What comes out is well formed: a [`TensorData`] whose shape and data disagree is never made.
//! * Errors name the JSON path: ``at `data[3].loss_fn_inputs.weights`: ..``.
//! * Clones are cheap: tokens, images and tensor values are shared.
//!
//! Feature `candle` adds conversions between [`TensorData`] and candle tensors.

#[cfg(feature = "candle")]
mod candle;
mod datum;
mod error;
mod future;
pub mod json;
mod metrics;
mod sampling;
mod session;
mod tensor;
mod tensor_json;
mod tolerant;
mod training;
mod weights;

pub use datum::{Chunk, Datum, ModelInput};
pub use error::{Error, Result};
pub use future::{
    ErrorCategory, FutureReply, RequestFailed, RetrieveFutureRequest, Submitted, TryAgain,
};
pub use metrics::Metrics;
pub use sampling::{
    CreateSamplingSessionRequest, CreateSamplingSessionResponse, SampleRequest, SampleResponse,
    SampledSequence, SamplingParams, Stop, StopReason, TopLogprobs,
};
pub use session::{
    CreateModelRequest, CreateModelResponse, CreateSessionRequest, CreateSessionResponse,
    ErrorBody, GetInfoRequest, GetInfoResponse, Health, LoraConfig, ModelData, ServerCapabilities,
    SessionHeartbeatRequest, SessionHeartbeatResponse, SupportedModel, UnloadModelRequest,
    UnloadModelResponse, UserMetadata,
};
pub use tensor::{Csr, DType, Data, TensorData};
pub use training::{
    AdamParams, ConfigValue, ForwardBackwardInput, ForwardBackwardOutput, ForwardBackwardRequest,
    ForwardRequest, LossFn, LossFnConfig, OptimStepRequest, OptimStepResponse,
};
pub use weights::{
    LoadWeightsRequest, LoadWeightsResponse, SaveWeightsForSamplerRequest,
    SaveWeightsForSamplerResponse, SaveWeightsRequest, SaveWeightsResponse, WeightsInfoRequest,
    WeightsInfoResponse,
};
