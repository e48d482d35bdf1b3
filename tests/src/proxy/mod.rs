//! A proxy between client and trainer that listens in, answers in the trainer's place, and does
//! harm.

mod door;
mod http;

use std::{
    collections::HashMap,
    fmt,
    io::{self, BufReader, Write},
    net::TcpStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde_json::Value;

pub use door::listener;

use door::Door;
use http::{drip, half_close, read_message, reset};

/// A request of the client's.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method and path, such as `POST /api/v1/forward`.
    pub target: String,
    /// By name in lower case.
    pub headers: HashMap<String, String>,
    /// As it came.
    pub body: Vec<u8>,
}

impl Request {
    /// The last part of its path.
    pub fn call(&self) -> &str {
        self.target.rsplit('/').next().unwrap_or_default()
    }

    /// The body; null unless it is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Seconds to wait, for the client to obey.
    pub retry_after: Option<u32>,
    /// What the body is written in; JSON where it is not said.
    pub content_type: Option<String>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// May be empty.
    pub body: Vec<u8>,
}

impl Reply {
    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Reply {
            status,
            retry_after: None,
            content_type: None,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// An answer with one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A page for people, as gateways answer with.
    pub fn page(status: u16) -> Self {
        let body = format!("<html><body><h1>{status}</h1><hr>gateway</body></html>");
        let content_type = Some("text/html".to_owned());
        Reply { content_type, body: body.into_bytes(), ..Reply::empty(status) }
    }

    /// 200, with this body.
    pub fn json(body: &Value) -> Self {
        Reply { body: body.to_string().into_bytes(), ..Reply::empty(200) }
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is handed on, and so is its answer.
    Pass,
    /// It is handed on twice, and the second answer is handed back.
    Twice,
    /// As `Twice`, both at once; either answer is handed back.
    TwiceAtOnce,
    /// It is handed on, and once more together with the next request.
    AgainLater,
    /// The connection is closed before the trainer sees it.
    Drop,
    /// The connection is reset before the trainer sees it.
    Reset,
    /// It is handed on, and the connection is closed before the client has the answer.
    CutAfter,
    /// It is handed on, and the connection is reset before the client has the answer.
    ResetAfter,
    /// It is handed on, and instead of the answer the client reads the end of the connection, which
    /// stays open in its own direction.
    HalfClose,
    /// It is handed on, and the connection is closed in the middle of the answer's head.
    HalfHead,
    /// It is handed on, and the connection is closed in the middle of the answer's body.
    HalfBody,
    /// It is handed on, and the connection is closed before the answer's last byte.
    HalfAnswer,
    /// It is handed on, and the answer comes in small pieces with this pause between them.
    Drip(Duration),
    /// It is handed on, and so is its answer; then the connection is closed without a word.
    PassAndClose,
    /// It is handed on, and so is its answer, which announces the end of the connection. New ones
    /// are refused until the second [`Proxy::tick`].
    PassAndRefuse,
    /// It is answered here; the trainer never sees it.
    Instead(Reply),
    /// It is handed on, and its answer is replaced.
    After(Reply),
    /// It is handed on, and half of the answer's body is handed back as if it were all.
    Shortened,
}

impl Action {
    /// How often the trainer gets the request.
    pub fn deliveries(&self) -> u32 {
        match self {
            Action::Drop | Action::Reset | Action::Instead(_) => 0,
            Action::Twice | Action::TwiceAtOnce | Action::AgainLater => 2,
            Action::Pass
            | Action::CutAfter
            | Action::ResetAfter
            | Action::HalfClose
            | Action::HalfHead
            | Action::HalfBody
            | Action::HalfAnswer
            | Action::Drip(_)
            | Action::PassAndClose
            | Action::PassAndRefuse
            | Action::After(_)
            | Action::Shortened => 1,
        }
    }
}

/// Headers of the trainer's that are about its connection with the proxy.
const BETWEEN_TWO: [&str; 2] = ["connection", "content-length"];

type Rule = dyn FnMut(&Request) -> Action + Send;

struct Shared {
    /// The trainer's `host:port`.
    trainer: String,
    door: Door,
    rule: Mutex<Box<Rule>>,
    /// None where nobody will ask.
    seen: Option<Mutex<Vec<Request>>>,
    /// Those that the trainer will get again.
    late: Mutex<Vec<Request>>,
}

/// A proxy on a free port of the loopback, until the process ends.
#[derive(Clone)]
pub struct Proxy {
    url: String,
    shared: Arc<Shared>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Proxy");
        shown.field("url", &self.url).finish_non_exhaustive()
    }
}

impl Proxy {
    /// A proxy before the trainer at `url` that does with each request as `rule` says.
    ///
    /// # Errors
    /// When there is no port to be had.
    pub fn before(
        url: &str,
        rule: impl FnMut(&Request) -> Action + Send + 'static,
    ) -> io::Result<Self> {
        Self::start(url, Box::new(rule), Some(Mutex::default()))
    }

    /// As [`before`](Self::before), for long runs: it keeps no request.
    ///
    /// # Errors
    /// As [`before`](Self::before).
    pub fn forgetful(
        url: &str,
        rule: impl FnMut(&Request) -> Action + Send + 'static,
    ) -> io::Result<Self> {
        Self::start(url, Box::new(rule), None)
    }

    fn start(url: &str, rule: Box<Rule>, seen: Option<Mutex<Vec<Request>>>) -> io::Result<Self> {
        let (door, listener) = Door::new()?;
        let url = url.trim_start_matches("http://").to_owned();
        let shared = Arc::new(Shared {
            trainer: url,
            door,
            rule: Mutex::new(rule),
            seen,
            late: Mutex::default(),
        });
        let proxy =
            Proxy { url: format!("http://{}", shared.door.address()), shared: shared.clone() };
        thread::spawn(move || {
            shared.door.keep(listener, |client| {
                let shared = shared.clone();
                // A failure ends the connection, which is what a client sees of a broken proxy too.
                thread::spawn(move || shared.serve(client));
            });
        });
        Ok(proxy)
    }

    /// Where the proxy listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Every request for `call` so far, repetitions included, in the order of arrival.
    pub fn requests(&self, call: &str) -> Vec<Request> {
        self.all().into_iter().filter(|request| request.call() == call).collect()
    }

    /// Every request so far; none of a [`forgetful`](Self::forgetful) proxy's.
    pub fn all(&self) -> Vec<Request> {
        self.shared.seen.as_ref().map(|seen| lock(seen).clone()).unwrap_or_default()
    }

    /// Lets time pass: a proxy that refuses connections takes them again after the second call.
    /// [`StillClock::on_nap`](crate::StillClock::on_nap) can make it.
    pub fn tick(&self) {
        self.shared.door.tick();
    }

    /// Hands a request to the trainer once more, as a network may do long after.
    ///
    /// # Errors
    /// When the trainer cannot be reached.
    pub fn replay(&self, request: &Request) -> io::Result<Reply> {
        self.shared.deliver(request)
    }
}

impl Shared {
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut writer = client.try_clone()?;
        let mut reader = BufReader::new(client);
        while let Some((target, headers, body)) = read_message(&mut reader)? {
            let target = target.trim_end_matches(" HTTP/1.1").to_owned();
            let request = Request { target, headers, body };
            if let Some(seen) = &self.seen {
                lock(seen).push(request.clone());
            }
            let action = lock(&self.rule)(&request);
            let late = std::mem::take(&mut *lock(&self.late));
            late.iter().try_for_each(|request| self.deliver(request).map(drop))?;
            let reply = match action {
                Action::Drop => return Ok(()),
                Action::Reset => return reset(&writer),
                Action::Instead(reply) => reply,
                Action::Pass => self.deliver(&request)?,
                Action::Twice => self.deliver(&request).and(self.deliver(&request))?,
                Action::TwiceAtOnce => self.deliver_both(&request)?,
                Action::AgainLater => {
                    let reply = self.deliver(&request)?;
                    lock(&self.late).push(request);
                    reply
                }
                Action::After(reply) => self.deliver(&request).map(|_| reply)?,
                Action::Shortened => {
                    let mut reply = self.deliver(&request)?;
                    reply.body.truncate(reply.body.len() / 2);
                    reply
                }
                Action::CutAfter => return self.deliver(&request).map(drop),
                Action::ResetAfter => {
                    self.deliver(&request)?;
                    return reset(&writer);
                }
                Action::HalfClose => {
                    self.deliver(&request)?;
                    return half_close(&writer, &mut reader);
                }
                Action::HalfHead => {
                    let head = self.deliver(&request)?.head();
                    return writer.write_all(&head.as_bytes()[..head.len() / 2]);
                }
                Action::HalfBody => {
                    let reply = self.deliver(&request)?;
                    let half = reply.head().len() + reply.body.len() / 2;
                    return writer.write_all(&reply.to_bytes()[..half]);
                }
                Action::HalfAnswer => {
                    let answer = self.deliver(&request)?.to_bytes();
                    return writer.write_all(&answer[..answer.len() - 1]);
                }
                Action::Drip(pause) => {
                    drip(&mut writer, &self.deliver(&request)?.to_bytes(), pause)?;
                    continue;
                }
                Action::PassAndClose => {
                    return writer.write_all(&self.deliver(&request)?.to_bytes());
                }
                Action::PassAndRefuse => {
                    let reply = self.deliver(&request)?.header("Connection", "close");
                    self.door.shut();
                    return writer.write_all(&reply.to_bytes());
                }
            };
            writer.write_all(&reply.to_bytes())?;
        }
        Ok(())
    }

    /// Delivers a request over two connections at once.
    fn deliver_both(&self, request: &Request) -> io::Result<Reply> {
        thread::scope(|scope| {
            let twin = scope.spawn(|| self.deliver(request));
            let reply = self.deliver(request);
            let twin = twin.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
            reply.and(twin)
        })
    }

    fn deliver(&self, request: &Request) -> io::Result<Reply> {
        let mut trainer = TcpStream::connect(&self.trainer)?;
        trainer.set_nodelay(true)?;
        let mut message = format!("{} HTTP/1.1\r\nConnection: close\r\n", request.target);
        for (name, value) in &request.headers {
            message += &format!("{name}: {value}\r\n");
        }
        message += "\r\n";
        trainer.write_all(&[message.as_bytes(), &request.body].concat())?;
        let answer = read_message(&mut BufReader::new(trainer))?;
        let (line, mut headers, body) = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        Ok(Reply {
            status: status.ok_or(io::ErrorKind::InvalidData)?,
            retry_after: None,
            content_type: headers.remove("content-type"),
            headers: headers
                .into_iter()
                .filter(|(name, _)| !BETWEEN_TWO.contains(&&**name))
                .collect(),
            body,
        })
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
