//! A training server that computes nothing: every request is answered at once, and logprobs are
//! made up. What a client takes longer than it, is the client's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use axum::body::{Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use tinsmith_wire::{ForwardBackwardOutput, PassRequest, TensorData, proto};

use super::Dialect;

pub const PROTOBUF: &str = "application/x-protobuf";

/// Serves until it is killed, having printed its address.
pub fn run(arguments: &[&str]) -> Result<()> {
    let (mut port, mut dialect) = (None, None);
    let mut arguments = arguments.iter();
    while let Some(&argument) = arguments.next() {
        let value = arguments.next();
        let value = value.with_context(|| format!("{argument} needs a value"))?;
        match argument {
            "--port" => port = Some(value.parse::<u16>().context("--port")?),
            "--dialect" => dialect = Some(value.parse()?),
            other => bail!("null-server takes no `{other}`"),
        }
    }
    let port = port.context("null-server needs --port P; 0 takes a free one")?;
    let dialect = dialect.context("null-server needs --dialect json or --dialect proto")?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        println!("null server at http://{}", listener.local_addr()?);
        axum::serve(listener, router(dialect)).await
    })?;
    Ok(())
}

struct Server {
    dialect: Dialect,
    state: Mutex<Store>,
}

#[derive(Default)]
struct Store {
    /// By request id.
    results: Vec<Answer>,
    /// By the shapes of a request's targets: a client that sends the same batch again is answered
    /// from here.
    outputs: HashMap<Vec<Vec<usize>>, Bytes>,
    traffic: Traffic,
}

#[derive(Clone)]
enum Answer {
    Json(Value),
    Output(Bytes),
}

/// Bodies so far, without those of `/traffic` itself.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct Traffic {
    pub requests: u64,
    pub bytes_to_server: u64,
    pub bytes_to_client: u64,
}

type Shared = State<Arc<Server>>;

impl Server {
    fn lock(&self) -> MutexGuard<'_, Store> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, result: Answer) -> Response {
        let mut state = self.lock();
        state.results.push(result);
        let request_id = (state.results.len() - 1).to_string();
        Json(json!({"request_id": request_id, "model_id": "null"})).into_response()
    }
}

fn router(dialect: Dialect) -> Router {
    let server = Arc::new(Server { dialect, state: Mutex::default() });
    let mut api = Router::new()
        .route("/healthz", get(async || Json(json!({"status": "ok"}))))
        .route("/get_server_capabilities", get(capabilities))
        .route("/create_session", post(async || Json(json!({"session_id": "null"}))))
        .route("/session_heartbeat", post(async || Json(json!({}))))
        .route("/sessions/{id}/finish", post(async |Path(_): Path<String>| Json(json!({}))))
        .route("/telemetry", post(async || Json(json!({"status": "accepted"}))))
        .route("/create_model", post(create_model))
        .route("/get_info", post(async || Json(info())))
        .route("/optim_step", post(optim_step))
        .route("/forward_backward", post(pass))
        .route("/retrieve_future", post(retrieve_future));
    // Servers of the JSON dialect have neither a config nor, in the other, a path of its own for a
    // forward pass.
    api = match dialect {
        Dialect::Json => api.route("/forward", post(pass)),
        Dialect::Proto => api
            .route("/client/config", post(async || Json(json!({}))))
            .route("/client/dynamic_config", post(async || Json(json!({})))),
    };
    Router::new()
        .nest("/api/v1", api)
        .fallback(async || refuse(StatusCode::NOT_FOUND, "the null server has no such path"))
        .layer(middleware::from_fn_with_state(server.clone(), count))
        .route("/traffic", get(async |State(server): Shared| Json(server.lock().traffic)))
        .layer(DefaultBodyLimit::disable())
        .with_state(server)
}

/// Counts bodies by their announced length, which all that pass here have.
async fn count(State(server): Shared, request: Request, next: Next) -> Response {
    let to_server = announced(request.headers());
    let response = next.run(request).await;
    let size = response.body().size_hint().exact();
    let traffic = &mut server.lock().traffic;
    traffic.requests += 1;
    traffic.bytes_to_server += to_server;
    traffic.bytes_to_client += size.unwrap_or_default();
    response
}

fn announced(headers: &HeaderMap) -> u64 {
    let length = headers.get("content-length");
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    length.unwrap_or_default()
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({"detail": why}))).into_response()
}

fn info() -> Value {
    json!({"model_id": "null", "model_data": {"model_name": "null"}, "is_lora": true, "lora_rank": 8})
}

async fn capabilities() -> Json<Value> {
    Json(json!({"supported_models": [{"model_name": "null"}]}))
}

async fn create_model(State(server): Shared) -> Response {
    server.accept(Answer::Json(json!({"type": "create_model", "model_id": "null"})))
}

async fn optim_step(State(server): Shared) -> Response {
    server.accept(Answer::Json(json!({"metrics": {}})))
}

async fn retrieve_future(State(server): Shared, Json(request): Json<Value>) -> Response {
    let id = request["request_id"].as_str().and_then(|id| id.parse::<usize>().ok());
    let result = id.and_then(|id| server.lock().results.get(id).cloned());
    match result {
        Some(Answer::Json(value)) => Json(value).into_response(),
        Some(Answer::Output(body)) => {
            let media_type = match server.dialect {
                Dialect::Json => "application/json",
                Dialect::Proto => PROTOBUF,
            };
            ([(CONTENT_TYPE, media_type)], body).into_response()
        }
        None => refuse(StatusCode::NOT_FOUND, "no such request"),
    }
}

async fn pass(State(server): Shared, headers: HeaderMap, body: Bytes) -> Response {
    let is_protobuf = headers.get(CONTENT_TYPE).is_some_and(|kind| kind == PROTOBUF);
    let shapes = match (server.dialect, is_protobuf) {
        (Dialect::Json, false) => shapes_in_json(&body),
        (Dialect::Proto, true) => shapes_in_protobuf(&body),
        (Dialect::Json, true) => Err("this null server speaks JSON".to_owned()),
        (Dialect::Proto, false) => Err("this null server speaks protobuf".to_owned()),
    };
    let output = shapes.and_then(|shapes| {
        let known = server.lock().outputs.get(&shapes).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let output = made_up(server.dialect, &shapes)?;
        server.lock().outputs.insert(shapes, output.clone());
        Ok(output)
    });
    match output {
        Ok(output) => server.accept(Answer::Output(output)),
        Err(why) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &why),
    }
}

/// The shape of each datum's targets.
fn shapes_in_protobuf(body: &[u8]) -> std::result::Result<Vec<Vec<usize>>, String> {
    let request: PassRequest = proto::from_vec(body.to_vec()).map_err(|error| error.to_string())?;
    let shape = |(index, datum): (usize, &tinsmith_wire::Datum)| match datum.input("target_tokens")
    {
        Some(targets) => Ok(targets.shape().into_owned()),
        None => Err(format!("datum {index} has no target_tokens")),
    };
    request.data.iter().enumerate().map(shape).collect()
}

fn shapes_in_json(body: &[u8]) -> std::result::Result<Vec<Vec<usize>>, String> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(alias = "forward_input")]
        forward_backward_input: Input,
    }
    #[derive(Deserialize)]
    struct Input {
        data: Vec<Datum>,
    }
    #[derive(Deserialize)]
    struct Datum {
        loss_fn_inputs: Inputs,
    }
    #[derive(Deserialize)]
    struct Inputs {
        target_tokens: Tensor,
    }
    #[derive(Deserialize)]
    struct Tensor {
        #[serde(deserialize_with = "length")]
        data: usize,
        shape: Option<Vec<usize>>,
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let data = body.forward_backward_input.data.into_iter();
    let targets = data.map(|datum| datum.loss_fn_inputs.target_tokens);
    Ok(targets.map(|targets| targets.shape.unwrap_or(vec![targets.data])).collect())
}

/// The length of an array, whose elements are skipped.
fn length<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<usize, D::Error> {
    struct Length;
    impl<'de> Visitor<'de> for Length {
        type Value = usize;

        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<usize, A::Error> {
            let mut length = 0;
            while seq.next_element::<IgnoredAny>()?.is_some() {
                length += 1;
            }
            Ok(length)
        }
    }
    deserializer.deserialize_seq(Length)
}

/// Logprobs of these shapes. In JSON they have the digits that Python servers write: those of the
/// value in f64.
fn made_up(dialect: Dialect, shapes: &[Vec<usize>]) -> std::result::Result<Bytes, String> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut logprobs = |shape: &Vec<usize>| -> Vec<f32> {
        let mut one = || (1.0 - rng.random::<f32>()).ln() * 0.7;
        (0..shape.iter().product()).map(|_| one()).collect()
    };
    match dialect {
        Dialect::Json => {
            #[derive(Serialize)]
            struct Tensor<'a> {
                data: Vec<f64>,
                dtype: &'a str,
                shape: &'a [usize],
            }
            #[derive(Serialize)]
            struct Output<'a> {
                logprobs: Tensor<'a>,
            }
            #[derive(Serialize)]
            struct Outputs<'a> {
                loss_fn_output_type: &'a str,
                loss_fn_outputs: Vec<Output<'a>>,
                metrics: HashMap<&'a str, f64>,
            }
            let output = |shape| Output {
                logprobs: Tensor {
                    data: logprobs(shape).into_iter().map(f64::from).collect(),
                    dtype: "float32",
                    shape,
                },
            };
            let outputs = Outputs {
                loss_fn_output_type: "scalar",
                loss_fn_outputs: shapes.iter().map(output).collect(),
                metrics: [("loss:sum", 0.0)].into(),
            };
            let body = serde_json::to_vec(&outputs).map_err(|error| error.to_string())?;
            Ok(body.into())
        }
        Dialect::Proto => {
            let output = |shape| {
                let logprobs = TensorData::new(logprobs(shape), shape)?;
                Ok([("logprobs".to_owned(), logprobs)].into())
            };
            let outputs: tinsmith_wire::Result<_> = shapes.iter().map(output).collect();
            let body = outputs.and_then(|loss_fn_outputs| {
                proto::to_vec(&ForwardBackwardOutput {
                    loss_fn_output_type: "CrossEntropyLossReturn".to_owned(),
                    loss_fn_outputs,
                    metrics: [("loss:sum", 0.0)].into_iter().collect(),
                })
            });
            Ok(body.map_err(|error| error.to_string())?.into())
        }
    }
}
