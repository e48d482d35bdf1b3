//! The HTTP side: routes, and for each what it reads and asks of the hub.

mod auth;
mod body;
mod listing;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use tinsmith_wire::{
    ClientConfigRequest, CreateModelRequest, CreateSamplingSessionRequest, CreateSessionRequest,
    DynamicConfig, GetInfoRequest, JoinSamplingSessionRequest, LoadWeights, OptimStepRequest,
    RetrieveFutureRequest, RetrieveFuturesRequest, SampleRequest, SaveWeightsForSamplerRequest,
    SaveWeightsRequest, SessionHeartbeatRequest, SessionHeartbeatResponse, UnloadModelRequest,
    WeightsInfoRequest,
};

pub(crate) use self::auth::Keys;
use self::auth::{authenticate, token};
use self::body::{LAST, accepted, detail, ok};
use crate::Result;
use crate::hub::{Hub, Request};

/// What the HTTP side needs to know.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) hub: Arc<Hub>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) body_limit: usize,
}

type Reply = Result<Response>;

/// All routes of the trainer.
pub(crate) fn router(server: Server) -> Router {
    let api = Router::new()
        .route("/auth/token", post(token))
        .route("/client/config", post(client_config))
        .route("/client/dynamic_config", post(dynamic_config))
        .route("/get_server_capabilities", get(capabilities))
        .route("/create_session", post(create_session))
        .route("/session_heartbeat", post(heartbeat))
        .route("/sessions/{id}/finish", post(finish_session))
        .route("/create_model", post(create_model))
        .route("/get_info", post(get_info))
        .route("/unload_model", post(unload_model))
        .route("/forward", post(pass))
        .route("/forward_backward", post(pass))
        .route("/optim_step", post(optim_step))
        .route("/save_weights", post(save_weights))
        .route("/load_weights", post(load_weights))
        .route("/save_weights_for_sampler", post(save_weights_for_sampler))
        .route("/weights_info", post(weights_info))
        .route("/create_sampling_session", post(create_sampling_session))
        .route("/join_sampling_session", post(join_sampling_session))
        .route("/samplers/{id}", get(sampler_info))
        .route("/asample", post(sample))
        .route("/retrieve_future", post(retrieve_future))
        .route("/retrieve_futures", post(retrieve_futures))
        .route("/telemetry", post(telemetry))
        .merge(listing::routes())
        .route_layer(middleware::from_fn_with_state(server.clone(), authenticate))
        .route("/healthz", get(async || ok(&json!({"status": "ok"}))));
    Router::new()
        .nest("/api/v1", api)
        .fallback(async || (StatusCode::NOT_FOUND, LAST, detail("Not Found")))
        .method_not_allowed_fallback(async || {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            (status, LAST, detail("Method Not Allowed"))
        })
        .with_state(server)
}

async fn client_config(State(server): State<Server>, request: HttpRequest) -> Reply {
    server.read::<ClientConfigRequest>(request).await?;
    ok(server.hub.client_config())
}

async fn dynamic_config(State(server): State<Server>, request: HttpRequest) -> Reply {
    server.read::<ClientConfigRequest>(request).await?;
    ok(&DynamicConfig::default())
}

async fn capabilities(State(server): State<Server>) -> Reply {
    ok(&server.hub.capabilities())
}

async fn create_session(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<CreateSessionRequest>(request).await?;
    ok(&server.hub.create_session(request.body))
}

async fn heartbeat(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<SessionHeartbeatRequest>(request).await?;
    server.hub.heartbeat(&request.body.session_id)?;
    ok(&SessionHeartbeatResponse::default())
}

async fn finish_session(State(server): State<Server>, Path(id): Path<String>) -> Reply {
    server.hub.finish_session(&id)?;
    ok(&json!({}))
}

async fn create_model(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<CreateModelRequest>(request).await?;
    ok(&server.hub.create_model(request)?)
}

async fn get_info(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<GetInfoRequest>(request).await?;
    ok(&server.hub.get_info(&request.body.model_id)?)
}

async fn unload_model(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<UnloadModelRequest>(request).await?;
    ok(&server.hub.unload_model(request.body.model_id)?)
}

/// Forward and forward_backward: JSON bodies say which by the name of their input, protobuf ones by
/// a flag.
async fn pass(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read_pass(request).await?;
    ok(&server.hub.pass(request)?)
}

async fn optim_step(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<OptimStepRequest>(request).await?;
    ok(&server.hub.optim_step(request)?)
}

async fn save_weights(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<SaveWeightsRequest>(request).await?;
    ok(&server.hub.save_weights(request)?)
}

async fn load_weights(State(server): State<Server>, request: HttpRequest) -> Reply {
    let Request { body, digest } = server.read::<LoadWeights>(request).await?;
    ok(&match body {
        LoadWeights::IntoModel(body) => server.hub.load_weights(Request { body, digest })?,
        LoadWeights::NewModel(body) => server.hub.create_by_load(Request { body, digest })?,
    })
}

async fn save_weights_for_sampler(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<SaveWeightsForSamplerRequest>(request).await?;
    ok(&server.hub.save_weights_for_sampler(request)?)
}

async fn weights_info(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<WeightsInfoRequest>(request).await?;
    ok(&server.hub.weights_info(&request.body.tinker_path)?)
}

async fn create_sampling_session(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<CreateSamplingSessionRequest>(request).await?;
    ok(&server.hub.create_sampling_session(request)?)
}

async fn join_sampling_session(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<JoinSamplingSessionRequest>(request).await?;
    let id = &request.body.sampling_session_id;
    ok(&server.hub.join_sampling_session(id)?)
}

async fn sampler_info(State(server): State<Server>, Path(id): Path<String>) -> Reply {
    ok(&server.hub.sampler_info(&id)?)
}

async fn sample(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<SampleRequest>(request).await?;
    ok(&server.hub.sample(request)?)
}

async fn retrieve_future(State(server): State<Server>, request: HttpRequest) -> Reply {
    let format = accepted(request.headers());
    let request = server.read::<RetrieveFutureRequest>(request).await?;
    let body = server.hub.retrieve(request.body, format).await?;
    Ok(body.into_response())
}

async fn retrieve_futures(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<RetrieveFuturesRequest>(request).await?;
    ok(&server.hub.retrieve_futures(request.body).await?)
}

async fn telemetry() -> Reply {
    ok(&json!({"status": "accepted"}))
}
