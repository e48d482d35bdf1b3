//! A trainer on the loopback that answers as it is told and remembers what it was asked.
#![allow(dead_code, reason = "each test program uses its part")]

use std::{
    collections::{HashMap, VecDeque},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tinsmith_client::{
    Clock, Datum, ForwardBackwardOutput, LoraConfig, ModelInput, ServiceClient,
    ServiceClientBuilder, TensorData, TrainingClient,
    wire::{PassRequest, proto},
};

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
    pub bytes: Vec<u8>,
}

impl Request {
    pub fn body(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }
    pub fn is_protobuf(&self) -> bool {
        let kind = self.headers.get("content-type");
        kind.is_some_and(|kind| kind == "application/x-protobuf")
    }
    /// A training pass, in whichever form it came.
    pub fn pass(&self) -> PassRequest<'static> {
        match self.is_protobuf() {
            true => proto::from_vec(self.plain()).unwrap(),
            false => tinsmith_client::wire::json::from_slice(&self.bytes).unwrap(),
        }
    }
    /// The body, decompressed.
    fn plain(&self) -> Vec<u8> {
        #[cfg(feature = "zstd")]
        if self.headers.contains_key("content-encoding") {
            return tinsmith_client::wire::zstd::decompress(&self.bytes, 1 << 24).unwrap();
        }
        self.bytes.clone()
    }
    pub fn seq_id(&self) -> u64 {
        match self.is_protobuf() {
            true => self.pass().seq_id,
            false => self.body()["seq_id"].as_u64().unwrap(),
        }
    }
    /// The last part of the path.
    pub fn call(&self) -> &str {
        let path = self.path.split('?').next().unwrap();
        path.rsplit('/').next().unwrap()
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub enum Reply {
    Send {
        status: u16,
        body: Vec<u8>,
        headers: Vec<(String, String)>,
    },
    /// Closes the connection without an answer.
    Close,
    /// Keeps the connection open and says nothing.
    Silence,
    /// Does what it likes with the connection, and closes it.
    Own(fn(&mut TcpStream)),
}

pub fn status(status: u16, body: Value) -> Reply {
    Reply::Send { status, body: body.to_string().into_bytes(), headers: vec![] }
}

pub fn ok(body: Value) -> Reply {
    status(200, body)
}

pub fn raw(status: u16, body: &str) -> Reply {
    Reply::Send { status, body: body.as_bytes().to_vec(), headers: vec![] }
}

impl Reply {
    pub fn header(mut self, name: &str, value: &str) -> Reply {
        if let Reply::Send { headers, .. } = &mut self {
            headers.push((name.into(), value.into()));
        }
        self
    }
}

/// A protobuf answer.
pub fn protobuf(message: &impl proto::Message) -> Reply {
    Reply::Send { status: 200, body: proto::to_vec(message).unwrap(), headers: vec![] }
        .header("Content-Type", "application/x-protobuf")
}

/// The result of a request that was accepted.
type Work = Box<dyn Fn(&Request) -> Value + Send>;

pub struct Fake {
    state: Arc<(Mutex<State>, Condvar)>,
    pub url: String,
}

struct State {
    requests: Vec<Request>,
    /// Answers to give first, by the last part of the path.
    script: HashMap<String, VecDeque<Reply>>,
    /// Answers to give each time, by the same.
    always: HashMap<String, Box<dyn Fn() -> Reply + Send>>,
    results: HashMap<String, Reply>,
    work: HashMap<String, Work>,
    /// Connections that the client closed while waiting in silence.
    hung_up: usize,
    /// Longer bodies are refused before they are read.
    max_body: usize,
}

impl Fake {
    /// Accepts everything; the logprobs of every target are -1.
    pub fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State {
            requests: vec![],
            script: HashMap::new(),
            always: HashMap::new(),
            results: HashMap::new(),
            work: HashMap::new(),
            hung_up: 0,
            max_body: usize::MAX,
        };
        let state = Arc::new((Mutex::new(state), Condvar::new()));
        let shared = state.clone();
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        let fake = Fake { state, url };
        fake.on("forward", |request| outputs(request, "forward_input"));
        fake.on("forward_backward", |request| outputs(request, "forward_backward_input"));
        fake
    }

    /// Gives these answers to the next requests for `call`, before the usual ones.
    pub fn script(&self, call: &str, replies: impl IntoIterator<Item = Reply>) {
        self.state.0.lock().unwrap().script.entry(call.into()).or_default().extend(replies);
    }

    /// Computes the results of `call` so.
    /// Answers so each time.
    pub fn always(&self, call: &str, reply: impl Fn() -> Reply + Send + 'static) {
        self.state.0.lock().unwrap().always.insert(call.into(), Box::new(reply));
    }

    pub fn on(&self, call: &str, work: impl Fn(&Request) -> Value + Send + 'static) {
        self.state.0.lock().unwrap().work.insert(call.into(), Box::new(work));
    }

    /// All requests for `call` so far.
    pub fn requests(&self, call: &str) -> Vec<Request> {
        let state = self.state.0.lock().unwrap();
        state.requests.iter().filter(|request| request.call() == call).cloned().collect()
    }

    /// Everything asked of the model's training order, as `call seq_id`.
    pub fn order(&self) -> Vec<String> {
        let state = self.state.0.lock().unwrap();
        let training = state.requests.iter().filter(|r| {
            let is_pass = matches!(r.call(), "forward" | "forward_backward");
            is_pass || !r.body()["seq_id"].is_null() && r.call() != "asample"
        });
        training.map(|r| format!("{} {}", r.call(), r.seq_id())).collect()
    }

    /// Waits until `call` was requested `n` times.
    pub fn wait_for(&self, call: &str, n: usize) {
        let (state, changed) = &*self.state;
        let few =
            |state: &mut State| state.requests.iter().filter(|r| r.call() == call).count() < n;
        drop(changed.wait_while(state.lock().unwrap(), few).unwrap());
    }

    /// How many silences the client has ended by closing the connection.
    /// From the next connection on refuses longer bodies before they are read.
    pub fn limit_bodies(&self, max: usize) {
        self.state.0.lock().unwrap().max_body = max;
    }

    pub fn hung_up(&self) -> usize {
        self.state.0.lock().unwrap().hung_up
    }

    pub fn builder(&self) -> ServiceClientBuilder {
        ServiceClient::builder()
            .base_url(&self.url)
            .api_key("tml-very-secret")
            .clock(TestClock::default())
    }

    pub fn service(&self) -> ServiceClient {
        self.builder().connect().unwrap()
    }

    pub fn training(&self) -> TrainingClient {
        self.service().create_lora_training_client("tiny", &LoraConfig::rank(4)).unwrap()
    }
}

fn serve(stream: TcpStream, shared: &(Mutex<State>, Condvar)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    let max_body = shared.0.lock().unwrap().max_body;
    while let Some(request) = read_request(&mut reader, max_body) {
        if request.bytes.len() > max_body {
            let _ = stream.write_all(TOO_LARGE);
            return;
        }
        let reply = {
            let mut state = shared.0.lock().unwrap();
            state.requests.push(request.clone());
            let reply = state.reply(&request);
            shared.1.notify_all();
            reply
        };
        match reply {
            Reply::Send { status, body, headers } => {
                let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    head += &format!("{name}: {value}\r\n");
                }
                // In one piece: a second write would wait for the client's delayed acknowledgement.
                let answer = [(head + "\r\n").as_bytes(), &body].concat();
                if stream.write_all(&answer).is_err() {
                    return;
                }
            }
            Reply::Close => return,
            Reply::Own(answer) => return answer(&mut stream),
            Reply::Silence => {
                // Until the client hangs up.
                let _ = reader.read(&mut [0]);
                shared.0.lock().unwrap().hung_up += 1;
                return;
            }
        }
    }
}

/// As front ends say it: at once, and the rest of the body is left unread.
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 413 X\r\nContent-Length: 22\r\nConnection: close\r\n\r\n{\"detail\": \"too large\"}";

/// A body above the limit is not read: zeros stand for it.
fn read_request(reader: &mut impl BufRead, max_body: usize) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(0, |n| n.parse().unwrap());
    let mut bytes = vec![0; length];
    if length <= max_body {
        reader.read_exact(&mut bytes).ok()?;
    }
    Some(Request { method, path, headers, bytes })
}

impl State {
    fn reply(&mut self, request: &Request) -> Reply {
        let call = request.call();
        if let Some(reply) = self.script.get_mut(call).and_then(VecDeque::pop_front) {
            return reply;
        }
        if let Some(reply) = self.always.get(call) {
            return reply();
        }
        match call {
            "config" => raw(404, r#"{"detail":"Not Found"}"#),
            "create_session" => ok(json!({"session_id": "session"})),
            "session_heartbeat" => ok(json!({"type": "session_heartbeat"})),
            "get_info" => ok(json!({"model_id": "model", "model_data": {"base_model": "tiny"}})),
            "get_server_capabilities" => ok(json!({"supported_models": [{"model_name": "tiny"}]})),
            "dynamic_config" => raw(404, r#"{"detail":"Not Found"}"#),
            "cancel_future" => ok(json!({})),
            "retrieve_futures" => ok(json!({"completions": [], "cursor": 0})),
            "healthz" => ok(json!({"status": "ok"})),
            "create_sampling_session" => ok(json!({"sampling_session_id": "sampler"})),
            "retrieve_future" => {
                self.results[request.body()["request_id"].as_str().unwrap()].clone()
            }
            _ => {
                let id = format!("r{}", self.results.len());
                let result = match self.work.get(call) {
                    _ if request.is_protobuf() => protobuf(&minus_one(&request.pass())),
                    Some(work) => ok(work(request)),
                    None => ok(usual(call)),
                };
                self.results.insert(id.clone(), result);
                ok(json!({"request_id": id}))
            }
        }
    }
}

fn usual(call: &str) -> Value {
    match call {
        "create_model" => json!({"type": "create_model", "model_id": "model"}),
        "optim_step" => json!({"metrics": null}),
        "save_weights" => json!({"path": "tinker://model/weights/a", "type": "save_weights"}),
        "load_weights" => json!({"path": "tinker://model/weights/a", "type": "load_weights"}),
        "save_weights_for_sampler" => json!({"path": "tinker://model/sampler_weights/a"}),
        "unload_model" => json!({"model_id": "model"}),
        other => panic!("no answer to {other}"),
    }
}

/// Logprobs of -1, shaped as the targets.
fn minus_one(request: &PassRequest) -> ForwardBackwardOutput {
    let output = |datum: &Datum| {
        let targets = datum.input("target_tokens").unwrap();
        let logprobs = TensorData::new(vec![-1.0f32; targets.elem_count()], &targets.shape());
        [("logprobs".to_owned(), logprobs.unwrap())].into()
    };
    ForwardBackwardOutput {
        loss_fn_outputs: request.data.iter().map(output).collect(),
        metrics: [("loss:sum", 4.0)].into_iter().collect(),
        ..ForwardBackwardOutput::default()
    }
}

fn outputs(request: &Request, input: &str) -> Value {
    let body = request.body();
    let output = |datum: &Value| {
        let shape = &datum["loss_fn_inputs"]["target_tokens"]["shape"];
        let n: u64 = shape.as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product();
        json!({"logprobs": {"dtype": "float32", "shape": shape, "data": vec![-1.0; n as usize]}})
    };
    let outputs: Vec<Value> = body[input]["data"].as_array().unwrap().iter().map(output).collect();
    json!({"loss_fn_output_type": "scalar", "loss_fn_outputs": outputs, "metrics": {"loss:sum": 4.0}})
}

/// Time that passes only by sleeping.
#[derive(Debug, Clone, Default)]
pub struct TestClock(pub Arc<Mutex<Vec<Duration>>>);

impl TestClock {
    pub fn slept(&self) -> Vec<Duration> {
        self.0.lock().unwrap().clone()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        self.0.lock().unwrap().iter().sum()
    }
    fn sleep(&self, duration: Duration) {
        self.0.lock().unwrap().push(duration);
    }
    fn random(&self) -> u64 {
        // Distinct, and in effect 0 as a share of u64::MAX.
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }
}

/// A datum of `n` tokens with targets.
pub fn datum(n: usize) -> Datum {
    let tokens: Vec<u32> = (0..n as u32).collect();
    let targets: Vec<i64> = (1..=n as i64).collect();
    Datum::new(ModelInput::from_tokens(tokens)).with("target_tokens", targets)
}

pub fn vectors(name: &str) -> Value {
    let path = format!("{}/../../tests/vectors/wire/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
