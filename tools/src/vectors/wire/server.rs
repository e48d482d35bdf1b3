//! A trainer on the loopback that answers as a case says, and a client of it whose waits take no
//! time.

use std::{
    collections::{HashMap, VecDeque},
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;
use serde_json::{Value, json};
use tinsmith_client::{Clock, Dialect, LoraConfig, ServiceClient, TrainingClient};
use tinsmith_wire::{ForwardBackwardOutput, PassRequest, json, proto};

/// A request as it came in.
#[derive(Clone)]
pub struct Request {
    path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    /// The last part of the path.
    pub fn call(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// By its name in lower case; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body; null unless it is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body of a forward or forward_backward, in whichever codec.
    pub fn pass(&self) -> Result<PassRequest<'static>> {
        Ok(match self.header("content-type") {
            PROTOBUF => proto::from_vec(self.body.clone())?,
            _ => json::from_slice(&self.body)?,
        })
    }
}

const PROTOBUF: &str = "application/x-protobuf";

/// What to answer.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(body: &Value) -> Reply {
        Reply { status: 200, headers: vec![], body: body.to_string().into_bytes() }
    }
}

/// The result of a request that was accepted.
type Work = Box<dyn Fn(&Request) -> Result<ForwardBackwardOutput> + Send>;

pub struct Server {
    url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    /// Answers to give first, by the last part of the path.
    script: HashMap<String, VecDeque<Reply>>,
    accepted: Vec<Request>,
    work: Option<Work>,
}

impl Server {
    /// Accepts everything; `work` gives the results of forward and forward_backward.
    pub fn start(
        work: impl Fn(&Request) -> Result<ForwardBackwardOutput> + Send + 'static,
    ) -> Result<Server> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Mutex::new(State { work: Some(Box::new(work)), ..State::default() }));
        let shared = state.clone();
        // Ends with the program.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Ok(Server { url, state })
    }

    /// Gives these answers to the next requests for `call`, before the usual ones.
    pub fn script(&self, call: &str, replies: impl IntoIterator<Item = Reply>) {
        let mut state = lock(&self.state);
        state.script.entry(call.to_owned()).or_default().extend(replies);
    }

    /// All requests for `call` so far.
    pub fn requests(&self, call: &str) -> Vec<Request> {
        let state = lock(&self.state);
        state.requests.iter().filter(|request| request.call() == call).cloned().collect()
    }

    pub fn training(&self, dialect: Dialect) -> Result<TrainingClient> {
        let service = ServiceClient::builder()
            .base_url(&self.url)
            .api_key("tml-key")
            .dialect(dialect)
            .clock(StillClock::default())
            .connect()?;
        Ok(service.create_lora_training_client("model", &LoraConfig::rank(8))?)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers the requests of one connection until it closes.
fn serve(mut stream: TcpStream, shared: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let request = read_request(&mut reader)?;
        let reply = lock(shared).reply(request);
        let mut head =
            format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        // In one piece: a second write would wait for the client's delayed acknowledgement.
        stream.write_all(&[(head + "\r\n").as_bytes(), &reply.body].concat()).ok()?;
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split_whitespace().nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(Some(0), |n| n.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body })
}

impl State {
    fn reply(&mut self, request: Request) -> Reply {
        self.requests.push(request.clone());
        let call = request.call();
        if let Some(reply) = self.script.get_mut(call).and_then(VecDeque::pop_front) {
            return reply;
        }
        match call {
            "config" | "dynamic_config" | "session_heartbeat" | "finish" => Reply::json(&json!({})),
            "create_session" => Reply::json(&json!({"session_id": "session"})),
            "get_info" => {
                Reply::json(&json!({"model_id": "model", "model_data": {"model_name": "model"}}))
            }
            "get_server_capabilities" => {
                Reply::json(&json!({"supported_models": [{"model_name": "model"}]}))
            }
            "retrieve_future" => self.result(&request),
            _ => {
                self.accepted.push(request);
                Reply::json(&json!({"request_id": (self.accepted.len() - 1).to_string()}))
            }
        }
    }

    fn result(&self, poll: &Request) -> Reply {
        let body = poll.json();
        let index: Option<usize> = body["request_id"].as_str().and_then(|id| id.parse().ok());
        let accepted = index.and_then(|index| self.accepted.get(index));
        let failed = |error: String| Reply::json(&json!({"error": error, "category": "user"}));
        let (Some(request), Some(work)) = (accepted, &self.work) else {
            return failed(format!("no request {body}"));
        };
        match request.call() {
            "create_model" => Reply::json(&json!({"type": "create_model", "model_id": "model"})),
            "optim_step" => Reply::json(&json!({"metrics": null})),
            _ => match work(request).and_then(|output| answer(&output, poll)) {
                Ok(reply) => reply,
                Err(error) => failed(format!("{error:#}")),
            },
        }
    }
}

/// In the codec that the client asks for.
fn answer(output: &ForwardBackwardOutput, poll: &Request) -> Result<Reply> {
    let (content_type, body) = match poll.header("accept").contains(PROTOBUF) {
        true => (PROTOBUF, proto::to_vec(output)?),
        false => ("application/json", json::to_vec(output)?),
    };
    Ok(Reply { status: 200, headers: vec![("Content-Type".into(), content_type.into())], body })
}

/// Time that passes only by sleeping.
#[derive(Debug, Default)]
struct StillClock {
    nanoseconds: AtomicU64,
    drawn: AtomicU64,
}

impl Clock for StillClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    fn sleep(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Distinct, as idempotency keys must be.
    fn random(&self) -> u64 {
        self.drawn.fetch_add(1, Ordering::Relaxed)
    }
}
