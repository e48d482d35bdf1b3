//! The one table of what a server can be asked: name, method, path, request, answer, and what a
//! repetition would do.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tinsmith_wire::{
    self as wire, CancelFutureRequest, CheckpointsResponse, ClientConfigRequest,
    CreateByLoadRequest, CreateCustomLossRequest, CreateCustomLossResponse, CreateModelRequest,
    CreateModelResponse, CreateSamplingSessionRequest, CreateSamplingSessionResponse,
    CreateSessionRequest, CreateSessionResponse, ExternalWeightsUrls, FinishSessionRequest,
    ForwardBackwardOutput, GetInfoRequest, GetInfoResponse, Health, JoinSamplingSessionRequest,
    JoinSamplingSessionResponse, LoadWeightsRequest, LoadWeightsResponse, OptimStepRequest,
    OptimStepResponse, PassRequest, RetrieveFutureRequest, RetrieveFuturesRequest, SampleRequest,
    SampleResponse, SamplerInfo, SaveWeightsExternalRequest, SaveWeightsExternalResponse,
    SaveWeightsForSamplerRequest, SaveWeightsForSamplerResponse, SaveWeightsRequest,
    SaveWeightsResponse, ServerCapabilities, SessionHeartbeatRequest, SessionInfo,
    SessionsResponse, SetTtlRequest, TrainingRun, TrainingRunsResponse, UnloadModelRequest,
    UnloadModelResponse, WeightsInfoRequest, WeightsInfoResponse,
};
use ureq::http::Method;

use crate::{
    CallInfo, Result,
    http::{
        api::Api,
        connection::Limits,
        message::{LIST, Payload, Reply, Request},
        retry::Purpose,
    },
};

/// Something that a server can be asked, answered at once.
#[derive(Debug)]
pub(crate) struct Endpoint<Q, A> {
    /// What it is called in errors.
    pub name: &'static str,
    pub method: Method,
    /// From the base URL on; `{}` stands for what it is asked about.
    path: &'static str,
    purpose: Purpose,
    max_answer: u64,
    types: PhantomData<fn(Q) -> A>,
}

/// Something that a server does in its own time: a future has the result.
#[derive(Debug)]
pub(crate) struct Task<Q, A> {
    /// What it is called in errors.
    pub name: &'static str,
    pub path: &'static str,
    /// What it is called when its result is asked for.
    pub request_type: &'static str,
    pub purpose: Purpose,
    types: PhantomData<fn(Q) -> A>,
}

/// No body.
#[derive(Debug)]
pub(crate) enum Nothing {}

const SHORT: u64 = crate::http::message::SHORT_ANSWER;

macro_rules! endpoints {
    ($($NAME:ident: $method:ident $path:literal, $name:literal, $request:ty => $answer:ty, $purpose:ident, $max:ident;)*) => {
        $(pub(crate) const $NAME: Endpoint<$request, $answer> = Endpoint {
            name: $name,
            method: Method::$method,
            path: concat!("/api/v1/", $path),
            purpose: Purpose::$purpose,
            max_answer: $max,
            types: PhantomData,
        };)*
    };
}

// What is answered at once.
endpoints! {
    CLIENT_CONFIG: POST "client/config", "client/config", ClientConfigRequest => wire::ClientConfig, Start, SHORT;
    DYNAMIC_CONFIG: POST "client/dynamic_config", "client/dynamic_config", ClientConfigRequest => wire::DynamicConfig, Query, SHORT;
    CREATE_SESSION: POST "create_session", "create_session", CreateSessionRequest => CreateSessionResponse, Start, SHORT;
    SESSION_HEARTBEAT: POST "session_heartbeat", "session_heartbeat", SessionHeartbeatRequest => Value, Query, SHORT;
    FINISH_SESSION: POST "sessions/{}/finish", "sessions/finish", FinishSessionRequest => Value, Query, SHORT;
    CREATE_SAMPLING_SESSION: POST "create_sampling_session", "create_sampling_session", CreateSamplingSessionRequest => CreateSamplingSessionResponse, Query, SHORT;
    JOIN_SAMPLING_SESSION: POST "join_sampling_session", "join_sampling_session", JoinSamplingSessionRequest => JoinSamplingSessionResponse, Query, SHORT;
    GET_INFO: POST "get_info", "get_info", GetInfoRequest => GetInfoResponse, Query, SHORT;
    WEIGHTS_INFO: POST "weights_info", "weights_info", WeightsInfoRequest => WeightsInfoResponse, Query, SHORT;
    RETRIEVE_FUTURE: POST "retrieve_future", "retrieve_future", RetrieveFutureRequest => Value, Query, SHORT;
    RETRIEVE_FUTURES: POST "retrieve_futures", "retrieve_futures", RetrieveFuturesRequest => wire::RetrieveFuturesResponse, Query, LIST;
    CANCEL_FUTURE: POST "cancel_future", "cancel_future", CancelFutureRequest => Value, Query, SHORT;

    CAPABILITIES: GET "get_server_capabilities", "get_server_capabilities", Nothing => ServerCapabilities, Query, LIST;
    HEALTH: GET "healthz", "healthz", Nothing => Health, Query, SHORT;
    TRAINING_RUNS: GET "training_runs?{}", "training_runs", Nothing => TrainingRunsResponse, Query, LIST;
    TRAINING_RUN: GET "training_runs/{}", "training_runs", Nothing => TrainingRun, Query, SHORT;
    RUN_CHECKPOINTS: GET "training_runs/{}/checkpoints", "checkpoints", Nothing => CheckpointsResponse, Query, LIST;
    ALL_CHECKPOINTS: GET "checkpoints?{}", "checkpoints", Nothing => CheckpointsResponse, Query, LIST;
    SESSIONS: GET "sessions", "sessions", Nothing => SessionsResponse, Query, LIST;
    SESSION: GET "sessions/{}", "sessions", Nothing => SessionInfo, Query, LIST;
    SAMPLER: GET "samplers/{}", "samplers", Nothing => SamplerInfo, Query, SHORT;
    DELETE_CHECKPOINT: DELETE "training_runs/{}", "checkpoints", Nothing => Value, Query, SHORT;
    PUBLISH_CHECKPOINT: POST "training_runs/{}/publish", "checkpoints", Nothing => Value, Query, SHORT;
    UNPUBLISH_CHECKPOINT: DELETE "training_runs/{}/publish", "checkpoints", Nothing => Value, Query, SHORT;
    SET_TTL: PUT "training_runs/{}/ttl", "checkpoints/ttl", SetTtlRequest => Value, Query, SHORT;
    ARCHIVE: GET "training_runs/{}/archive", "checkpoints/archive", Nothing => Value, Query, SHORT;
    EXTERNAL_WEIGHTS: GET "training_runs/{}/external_weights_urls", "checkpoints/external_weights_urls", Nothing => ExternalWeightsUrls, Query, LIST;
}

macro_rules! tasks {
    ($($NAME:ident: $path:literal, $name:literal, $request_type:literal, $request:ty => $answer:ty, $purpose:ident;)*) => {
        $(pub(crate) const $NAME: Task<$request, $answer> = Task {
            name: $name,
            path: concat!("/api/v1/", $path),
            request_type: $request_type,
            purpose: Purpose::$purpose,
            types: PhantomData,
        };)*
    };
}

// What a future has the result of.
tasks! {
    CREATE_MODEL: "create_model", "create_model", "CreateModel", CreateModelRequest => CreateModelResponse, Submit;
    CREATE_BY_LOAD: "load_weights", "load_weights", "LoadWeights", CreateByLoadRequest => LoadWeightsResponse, Submit;
    FORWARD: "forward", "forward", "Forward", PassRequest<'static> => ForwardBackwardOutput, Submit;
    FORWARD_BACKWARD: "forward_backward", "forward_backward", "ForwardBackward", PassRequest<'static> => ForwardBackwardOutput, Submit;
    OPTIM_STEP: "optim_step", "optim_step", "OptimStep", OptimStepRequest => OptimStepResponse, Submit;
    SAVE_WEIGHTS: "save_weights", "save_weights", "SaveWeights", SaveWeightsRequest => SaveWeightsResponse, Save;
    SAVE_FOR_SAMPLER: "save_weights_for_sampler", "save_weights_for_sampler", "SaveWeightsForSampler", SaveWeightsForSamplerRequest => SaveWeightsForSamplerResponse, Save;
    SAVE_EXTERNAL: "save_weights_external", "save_weights_external", "SaveWeightsExternal", SaveWeightsExternalRequest => SaveWeightsExternalResponse, Save;
    LOAD_WEIGHTS: "load_weights", "load_weights", "LoadWeights", LoadWeightsRequest => LoadWeightsResponse, Submit;
    UNLOAD_MODEL: "unload_model", "unload_model", "UnloadModel", UnloadModelRequest => UnloadModelResponse, Submit;
    CREATE_CUSTOM_LOSS: "create_custom_loss", "create_custom_loss", "CreateCustomLoss", CreateCustomLossRequest => CreateCustomLossResponse, Submit;
    SAMPLE: "asample", "asample", "Sample", SampleRequest => SampleResponse, Submit;
}

impl<Q, A> Endpoint<Q, A> {
    /// Its path, for what it is asked about.
    pub fn path(&self, about: &str) -> String {
        self.path.replace("{}", about)
    }
}

impl<Q: Serialize, A: DeserializeOwned> Endpoint<Q, A> {
    /// Asks until it is answered with success, refused, or given up on.
    pub fn call(&self, api: &Api, body: &Q) -> Result<A> {
        let mut info = CallInfo::of(self.name);
        let payload = Payload::json(body)?;
        let request = Request { max_answer: self.max_answer, ..Request::post(self.path, &payload) };
        api.exchange_and_read(&request, &mut info, self.purpose).map(|(answer, _)| answer)
    }

    /// Asks once, for a moment. `None`: no answer yet.
    pub fn try_call(&self, api: &Api, body: &Q) -> Result<Option<A>> {
        let mut info = CallInfo::of(self.name);
        let payload = Payload::json(body)?;
        let request = Request { max_answer: self.max_answer, ..Request::post(self.path, &payload) };
        let moment = api.retry.try_timeout;
        let limits = Limits { total: moment, silence: moment };
        let reply = api.try_exchange(&request, &mut info, self.purpose, limits)?;
        reply.map(|reply| api.read(&reply, &info)).transpose()
    }

    /// The same where success says all there is to say.
    pub fn act(&self, api: &Api, about: &str, body: &Q) -> Result<()> {
        let payload = Payload::json(body)?;
        let path = self.path(about);
        let request = Request { method: self.method.clone(), ..Request::post(&path, &payload) };
        api.exchange(&request, &mut CallInfo::of(self.name), self.purpose).map(drop)
    }
}

impl<A: DeserializeOwned> Endpoint<Nothing, A> {
    /// Gets what there is about something.
    pub fn get(&self, api: &Api, about: &str) -> Result<A> {
        let path = self.path(about);
        let request =
            Request { max_answer: self.max_answer, ..Request::bare(self.method.clone(), &path) };
        let mut info = CallInfo::of(self.name);
        api.exchange_and_read(&request, &mut info, self.purpose).map(|(answer, _)| answer)
    }

    /// Does what success says all about.
    pub fn act_on(&self, api: &Api, about: &str) -> Result<()> {
        let path = self.path(about);
        let request = Request::bare(self.method.clone(), &path);
        api.exchange(&request, &mut CallInfo::of(self.name), self.purpose).map(drop)
    }

    /// Asks where something is.
    pub fn redirect(&self, api: &Api, about: &str) -> Result<(Reply, CallInfo)> {
        let path = self.path(about);
        let request = Request::bare(self.method.clone(), &path);
        let mut info = CallInfo::of(self.name);
        let reply = api.exchange_for_redirect(&request, &mut info, self.purpose)?;
        Ok((reply, info))
    }
}
