//! The HTTP side: routes, bodies, statuses. JSON dialect.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use axum::Router;
use axum::body::{self, Body};
use axum::extract::{Path, Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tinsmith_wire::{
    CreateModelRequest, CreateSamplingSessionRequest, CreateSessionRequest, ErrorBody,
    ForwardBackwardRequest, ForwardRequest, GetInfoRequest, LoadWeightsRequest, OptimStepRequest,
    RetrieveFutureRequest, SampleRequest, SaveWeightsForSamplerRequest, SaveWeightsRequest,
    SessionHeartbeatRequest, SessionHeartbeatResponse, UnloadModelRequest, WeightsInfoRequest,
    json as codec,
};

use crate::hub::{Hub, Request};
use crate::{Error, Result};

/// What the HTTP side needs to know.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) hub: Arc<Hub>,
    pub(crate) api_key: Option<Arc<str>>,
    pub(crate) body_limit: usize,
}

type Reply = Result<Response>;

/// All routes of the trainer.
pub(crate) fn router(server: Server) -> Router {
    let api = Router::new()
        .route("/get_server_capabilities", get(capabilities))
        .route("/create_session", post(create_session))
        .route("/session_heartbeat", post(heartbeat))
        .route("/sessions/{id}/finish", post(finish_session))
        .route("/create_model", post(create_model))
        .route("/get_info", post(get_info))
        .route("/unload_model", post(unload_model))
        .route("/forward", post(forward))
        .route("/forward_backward", post(forward_backward))
        .route("/optim_step", post(optim_step))
        .route("/save_weights", post(save_weights))
        .route("/load_weights", post(load_weights))
        .route("/save_weights_for_sampler", post(save_weights_for_sampler))
        .route("/weights_info", post(weights_info))
        .route("/training_runs/{id}/checkpoints", get(checkpoints))
        .route(
            "/training_runs/{id}/checkpoints/{*checkpoint}",
            delete(delete_checkpoint),
        )
        .route("/create_sampling_session", post(create_sampling_session))
        .route("/samplers/{id}", get(sampler_info))
        .route("/asample", post(sample))
        .route("/retrieve_future", post(retrieve_future))
        .route("/telemetry", post(telemetry))
        .route_layer(middleware::from_fn_with_state(server.clone(), authenticate))
        .route("/healthz", get(async || ok(&json!({"status": "ok"}))));
    Router::new()
        .nest("/api/v1", api)
        .fallback(async || (StatusCode::NOT_FOUND, detail("Not Found")))
        .method_not_allowed_fallback(async || {
            (StatusCode::METHOD_NOT_ALLOWED, detail("Method Not Allowed"))
        })
        .with_state(server)
}

async fn authenticate(State(server): State<Server>, request: HttpRequest, next: Next) -> Reply {
    let given = request.headers().get("x-api-key").map(|key| key.as_bytes());
    match &server.api_key {
        Some(key) if given != Some(key.as_bytes()) => Err(Error::Unauthorized),
        _ => Ok(next.run(request).await),
    }
}

async fn capabilities(State(server): State<Server>) -> Reply {
    ok(&server.hub.capabilities())
}

async fn create_session(State(server): State<Server>, request: HttpRequest) -> Reply {
    server.read::<CreateSessionRequest>(request).await?;
    ok(&server.hub.create_session())
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

async fn forward(State(server): State<Server>, request: HttpRequest) -> Reply {
    let Request { body, digest } = server.read::<ForwardRequest>(request).await?;
    let input = Request {
        body: body.forward_input,
        digest,
    };
    ok(&server.hub.pass(body.model_id, body.seq_id, input, false)?)
}

async fn forward_backward(State(server): State<Server>, request: HttpRequest) -> Reply {
    let Request { body, digest } = server.read::<ForwardBackwardRequest>(request).await?;
    let input = Request {
        body: body.forward_backward_input,
        digest,
    };
    ok(&server.hub.pass(body.model_id, body.seq_id, input, true)?)
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
    let request = server.read::<LoadWeightsRequest>(request).await?;
    ok(&server.hub.load_weights(request)?)
}

async fn save_weights_for_sampler(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<SaveWeightsForSamplerRequest>(request).await?;
    ok(&server.hub.save_weights_for_sampler(request)?)
}

async fn weights_info(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<WeightsInfoRequest>(request).await?;
    ok(&server.hub.weights_info(&request.body.tinker_path)?)
}

async fn checkpoints(State(server): State<Server>, Path(id): Path<String>) -> Reply {
    ok(&server.hub.checkpoints(&id)?)
}

async fn delete_checkpoint(
    State(server): State<Server>,
    Path((id, checkpoint)): Path<(String, String)>,
) -> Reply {
    server.hub.delete_checkpoint(&id, &checkpoint)?;
    ok(&json!({}))
}

async fn create_sampling_session(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<CreateSamplingSessionRequest>(request).await?;
    ok(&server.hub.create_sampling_session(request)?)
}

async fn sampler_info(State(server): State<Server>, Path(id): Path<String>) -> Reply {
    ok(&server.hub.sampler_info(&id)?)
}

async fn sample(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<SampleRequest>(request).await?;
    ok(&server.hub.sample(request)?)
}

async fn retrieve_future(State(server): State<Server>, request: HttpRequest) -> Reply {
    let request = server.read::<RetrieveFutureRequest>(request).await?;
    Ok(encoded(server.hub.retrieve(request.body).await?))
}

async fn telemetry() -> Reply {
    ok(&json!({"status": "accepted"}))
}

impl Server {
    async fn read<T: DeserializeOwned>(&self, request: HttpRequest) -> Result<Request<T>> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let content_type = content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or("application/json");
        if !content_type.starts_with("application/json") {
            return Err(Error::MediaType(content_type.to_owned()));
        }
        let limit = self.body_limit;
        let bytes = body::to_bytes(request.into_body(), limit)
            .await
            .map_err(|_| Error::TooLarge { limit })?;
        let mut digest = DefaultHasher::new();
        bytes.hash(&mut digest);
        Ok(Request {
            body: codec::from_slice(&bytes)?,
            digest: digest.finish(),
        })
    }
}

fn ok(value: &impl Serialize) -> Reply {
    Ok(encoded(codec::to_vec(value)?))
}

fn encoded(body: Vec<u8>) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        Body::from(body),
    )
        .into_response()
}

fn detail(message: impl Into<String>) -> Response {
    encoded(codec::to_vec(&ErrorBody::new(message)).unwrap_or_default())
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, detail(self.to_string())).into_response()
    }
}
