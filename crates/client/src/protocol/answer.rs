//! The results that futures promise, in the forms that they travel in.

use serde::de::DeserializeOwned;
use tinsmith_wire::{
    self as wire, CreateCustomLossResponse, CreateModelResponse, ForwardBackwardOutput,
    LoadWeightsResponse, OptimStepResponse, SampleResponse, SaveWeightsExternalResponse,
    SaveWeightsForSamplerResponse, SaveWeightsResponse, UnloadModelResponse, proto,
};

/// A result of a future.
pub(crate) trait Answer: DeserializeOwned {
    /// Its protobuf form; most results have none.
    const FROM_PROTOBUF: Option<fn(Vec<u8>) -> wire::Result<Self>> = None;
}

impl Answer for CreateCustomLossResponse {}
impl Answer for CreateModelResponse {}
impl Answer for LoadWeightsResponse {}
impl Answer for OptimStepResponse {}
impl Answer for SaveWeightsExternalResponse {}
impl Answer for SaveWeightsForSamplerResponse {}
impl Answer for SaveWeightsResponse {}
impl Answer for UnloadModelResponse {}

impl Answer for ForwardBackwardOutput {
    const FROM_PROTOBUF: Option<fn(Vec<u8>) -> wire::Result<Self>> = Some(proto::from_vec);
}

impl Answer for SampleResponse {
    const FROM_PROTOBUF: Option<fn(Vec<u8>) -> wire::Result<Self>> = Some(proto::from_vec);
}
