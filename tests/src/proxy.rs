//! A proxy between client and trainer that listens in, answers in the trainer's place, and does
//! harm.

use std::{
    collections::HashMap,
    fmt,
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use serde_json::Value;

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
    /// May be empty.
    pub body: Vec<u8>,
}

impl Reply {
    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Reply { status, retry_after: None, content_type: None, body: Vec::new() }
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
    /// The connection is cut before the trainer sees it.
    Drop,
    /// It is handed on, and the connection is cut before the client has the answer.
    CutAfter,
    /// It is handed on, and the connection is cut in the middle of the answer.
    HalfAnswer,
    /// It is answered here; the trainer never sees it.
    Instead(Reply),
    /// It is handed on, and its answer is replaced.
    After(Reply),
}

type Rule = dyn FnMut(&Request) -> Action + Send;

struct Shared {
    /// The trainer's `host:port`.
    trainer: String,
    rule: Mutex<Box<Rule>>,
    seen: Mutex<Vec<Request>>,
}

/// A proxy on a free port of the loopback, until the process ends.
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
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let shared = Arc::new(Shared {
            trainer: url.trim_start_matches("http://").to_owned(),
            rule: Mutex::new(Box::new(rule)),
            seen: Mutex::default(),
        });
        let proxy =
            Proxy { url: format!("http://{}", listener.local_addr()?), shared: shared.clone() };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = shared.clone();
                // A failure ends the connection, which is what a client sees of a broken proxy too.
                thread::spawn(move || shared.serve(client));
            }
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

    /// Every request so far.
    pub fn all(&self) -> Vec<Request> {
        lock(&self.shared.seen).clone()
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
            lock(&self.seen).push(request.clone());
            let action = lock(&self.rule)(&request);
            let reply = match action {
                Action::Drop => return Ok(()),
                Action::Instead(reply) => reply,
                Action::Pass => self.deliver(&request)?,
                Action::Twice => self.deliver(&request).and(self.deliver(&request))?,
                Action::After(reply) => self.deliver(&request).map(|_| reply)?,
                Action::CutAfter => return self.deliver(&request).map(drop),
                Action::HalfAnswer => {
                    let answer = self.deliver(&request)?.to_bytes();
                    return writer.write_all(&answer[..answer.len() - 1]);
                }
            };
            writer.write_all(&reply.to_bytes())?;
        }
        Ok(())
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
            body,
        })
    }
}

impl Reply {
    fn to_bytes(&self) -> Vec<u8> {
        let (status, length) = (self.status, self.body.len());
        let mut head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n");
        if let Some(seconds) = self.retry_after {
            head += &format!("Retry-After: {seconds}\r\n");
        }
        if let Some(kind) = &self.content_type {
            head += &format!("Content-Type: {kind}\r\n");
        }
        [(head + "\r\n").as_bytes(), &self.body].concat()
    }
}

type Message = (String, HashMap<String, String>, Vec<u8>);

/// The first line, the headers and the body of what comes next; none at the end.
fn read_message(reader: &mut impl BufRead) -> io::Result<Option<Message>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        match header.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(Ok(0), |length| length.parse());
    let mut body = vec![0; length.map_err(|_| io::ErrorKind::InvalidData)?];
    reader.read_exact(&mut body)?;
    Ok(Some((line.trim_end().to_owned(), headers, body)))
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
