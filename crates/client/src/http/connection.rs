//! One HTTP exchange: address, key, headers, bytes.

use std::{
    fmt,
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tinsmith_wire::{json, proto};
use ureq::http::{self, Method};

use crate::{
    Clock, Error, Progress, RetryConfig, Traffic, http::address::Address, http::auth::Auth,
    http::buffer_pool::Buffers, http::route::Route, protocol::flavour::Service,
};

/// Longest answer that is read.
const MAX_ANSWER: u64 = 4 << 30;
/// Memory that is set aside for an answer because it announces its size.
const MAX_BELIEVED: u64 = 64 << 20;

/// A server's address, the key to it, and the manners to talk to it.
pub(crate) struct Http {
    pub agent: ureq::Agent,
    pub base: String,
    pub route: Route,
    pub service: Service,
    pub auth: Auth,
    headers: Vec<(String, String)>,
    pub retry: RetryConfig,
    pub clock: Arc<dyn Clock>,
    pub progress: Arc<dyn Progress>,
    /// Whether anything was answered with success: until then this may be the wrong server.
    pub is_met: AtomicBool,
    /// For the bodies of answers.
    pub replies: Buffers<u8>,
    requests: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Protobuf,
}

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Protobuf => "application/x-protobuf",
        }
    }
}

/// A body, ready to be sent any number of times.
#[derive(Debug)]
pub(crate) struct Payload {
    pub bytes: Vec<u8>,
    pub format: Format,
    /// Whether the bytes are compressed with zstd.
    pub is_zstd: bool,
}

impl Payload {
    pub fn json(value: &impl serde::Serialize) -> crate::Result<Self> {
        Self::json_in(Vec::new(), value)
    }

    /// Written to an empty buffer.
    pub fn json_in(mut buffer: Vec<u8>, value: &impl serde::Serialize) -> crate::Result<Self> {
        json::append(&mut buffer, value).map_err(Error::Encode)?;
        Ok(Payload { bytes: buffer, format: Format::Json, is_zstd: false })
    }

    /// Written to an empty buffer.
    pub fn protobuf_in(
        mut buffer: Vec<u8>,
        message: &impl proto::Message,
        compress: bool,
    ) -> crate::Result<Self> {
        proto::append(&mut buffer, message).map_err(Error::Encode)?;
        Ok(Payload {
            bytes: match compress {
                true => compressed(buffer)?,
                false => buffer,
            },
            format: Format::Protobuf,
            is_zstd: compress,
        })
    }
}

#[cfg(feature = "zstd")]
fn compressed(plain: Vec<u8>) -> crate::Result<Vec<u8>> {
    tinsmith_wire::zstd::compress(&plain).map_err(Error::Encode)
}

/// Without the feature nobody asks for it.
#[cfg(not(feature = "zstd"))]
fn compressed(plain: Vec<u8>) -> crate::Result<Vec<u8>> {
    Ok(plain)
}

/// What is sent.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub method: Method,
    /// From the base URL on.
    pub path: &'a str,
    pub payload: Option<&'a Payload>,
    /// The form in which a result is wanted.
    pub accept: Format,
    pub headers: &'a [(&'a str, &'a str)],
}

impl<'a> Request<'a> {
    pub fn post(path: &'a str, payload: &'a Payload) -> Self {
        Request {
            method: Method::POST,
            path,
            payload: Some(payload),
            accept: Format::Json,
            headers: &[],
        }
    }

    pub fn bare(method: Method, path: &'a str) -> Self {
        Request { method, path, payload: None, accept: Format::Json, headers: &[] }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: u16,
    pub format: Format,
    pub body: Vec<u8>,
    pub retry_after: Option<Duration>,
    pub should_retry: Option<bool>,
    pub location: Option<String>,
    pub expires: Option<String>,
    /// The server says that the token is no longer good.
    pub is_token_refused: bool,
}

/// Nothing came back.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection: the server has seen nothing.
    NotSent(String),
    /// The server did not answer in time.
    TimedOut,
    /// The connection broke.
    Broken(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotSent(why) => write!(f, "cannot connect: {why}"),
            Failure::TimedOut => f.write_str("timed out"),
            Failure::Broken(why) => write!(f, "the connection broke: {why}"),
        }
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("base", &self.base)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

impl Http {
    /// Connects to nothing yet.
    pub fn new(
        (address, route): (Address, Route),
        service: Service,
        auth: Auth,
        headers: Vec<(String, String)>,
        retry: RetryConfig,
        clock: Arc<dyn Clock>,
        progress: Arc<dyn Progress>,
    ) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would carry the key to another place.
            .max_redirects(0)
            .timeout_connect(Some(retry.connect_timeout))
            .proxy(route.proxy().for_ureq())
            .tls_config(route.tls())
            .user_agent(concat!("tinsmith/", env!("CARGO_PKG_VERSION")));
        Http {
            agent: config.build().into(),
            base: address.base,
            route,
            service,
            auth,
            headers,
            retry,
            clock,
            progress,
            is_met: AtomicBool::new(false),
            replies: Buffers::default(),
            requests: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    /// Sends one request and waits for its answer, of whatever status. With a new token or key, if
    /// the server says that the one in use is spent and another is to be had.
    pub fn send(&self, request: &Request<'_>, timeout: Duration) -> Result<Reply, Failure> {
        let key = self.auth.current(self);
        let reply = self.send_as(key.as_deref(), request, timeout)?;
        match key {
            Some(key) if self.auth.can_replace(&reply) && self.auth.replace(self, &key) => {
                let key = self.auth.current(self);
                self.send_as(key.as_deref(), request, timeout)
            }
            _ => Ok(reply),
        }
    }

    /// Sends one request under this key.
    pub fn send_as(
        &self,
        key: Option<&str>,
        request: &Request<'_>,
        timeout: Duration,
    ) -> Result<Reply, Failure> {
        let url = format!("{}{}", self.base, request.path);
        let mut head = http::Request::builder()
            .method(&request.method)
            .uri(url)
            .header("Accept", request.accept.media_type());
        let own = self.headers.iter().map(|(name, value)| (&**name, &**value));
        let key = key.map(|key| ("X-API-Key", key));
        for (name, value) in own.chain(request.headers.iter().copied()).chain(key) {
            head = head.header(name, value);
        }
        let unsendable = |error: http::Error| Failure::NotSent(error.to_string());
        let response = match request.payload {
            Some(payload) => {
                head = head.header("Content-Type", payload.format.media_type());
                if payload.is_zstd {
                    head = head.header("Content-Encoding", "zstd");
                }
                self.sent.fetch_add(payload.bytes.len() as u64, Ordering::Relaxed);
                let request = head.body(payload.bytes.as_slice()).map_err(unsendable)?;
                self.run(request, timeout)?
            }
            None => self.run(head.body(()).map_err(unsendable)?, timeout)?,
        };
        self.reply(response)
    }

    fn run(
        &self,
        request: http::Request<impl ureq::AsSendBody>,
        timeout: Duration,
    ) -> Result<http::Response<ureq::Body>, Failure> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        // A timeout of zero would mean none.
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        let request = self.agent.configure_request(request).timeout_global(timeout).build();
        self.agent.run(request).map_err(|error| failure(error, &self.route))
    }

    fn reply(&self, mut response: http::Response<ureq::Body>) -> Result<Reply, Failure> {
        let text = |name: &str| {
            let value = response.headers().get(name);
            value.and_then(|value| value.to_str().ok())
        };
        let status = response.status().as_u16();
        let is_proto =
            text("content-type").is_some_and(|kind| kind.starts_with("application/x-protobuf"));
        let is_token_refused = status == 401
            && text("www-authenticate").is_some_and(|how| how.contains("error=\"invalid_token\""));
        let reply = Reply {
            status,
            format: if is_proto { Format::Protobuf } else { Format::Json },
            body: Vec::new(),
            retry_after: retry_after(text),
            should_retry: text("x-should-retry").and_then(|value| value.parse().ok()),
            location: text("location").filter(|_| (300..400).contains(&status)).map(str::to_owned),
            expires: text("expires").map(str::to_owned),
            is_token_refused,
        };
        let announced = response.body().content_length().unwrap_or_default();
        let mut body = self.replies.take();
        body.reserve(announced.min(MAX_BELIEVED) as usize);
        let mut source = response.body_mut().with_config().limit(MAX_ANSWER).reader();
        source.read_to_end(&mut body).map_err(|error| failure(error.into(), &self.route))?;
        self.received.fetch_add(body.len() as u64, Ordering::Relaxed);
        Ok(Reply { body, ..reply })
    }

    /// What has gone over the wire.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            requests: self.requests.load(Ordering::Relaxed),
            bytes_sent: self.sent.load(Ordering::Relaxed),
            bytes_received: self.received.load(Ordering::Relaxed),
        }
    }

    /// A fresh key for one logical call.
    pub fn idempotency_key(&self) -> String {
        format!("tinsmith-{:016x}{:016x}", self.clock.random(), self.clock.random())
    }

    /// The time since an earlier [`now`](crate::Clock::now).
    pub fn since(&self, start: Duration) -> Duration {
        self.clock.now().saturating_sub(start)
    }
}

/// How long the server asks to be left alone: milliseconds, seconds, or until a date. That is
/// counted from the server's own date, as clocks differ.
fn retry_after<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Duration> {
    let seconds = |name: &str, unit: f64| {
        let number: f64 = header(name)?.trim().parse().ok()?;
        Duration::try_from_secs_f64(number * unit).ok()
    };
    let until_date = || {
        let until = httpdate::parse_http_date(header("retry-after")?.trim()).ok()?;
        let now = header("date").and_then(|date| httpdate::parse_http_date(date).ok());
        until.duration_since(now.unwrap_or_else(SystemTime::now)).ok()
    };
    seconds("retry-after-ms", 1e-3).or_else(|| seconds("retry-after", 1.0)).or_else(until_date)
}

fn failure(error: ureq::Error, route: &Route) -> Failure {
    use std::io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable,
    };
    match &error {
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_) => Failure::NotSent(route.explain(&error)),
        ureq::Error::Io(io)
            if matches!(
                io.kind(),
                ConnectionRefused | HostUnreachable | NetworkUnreachable | AddrNotAvailable
            ) =>
        {
            Failure::NotSent(route.explain(&error))
        }
        ureq::Error::Timeout(_) => Failure::TimedOut,
        _ => Failure::Broken(route.explain(&error)),
    }
}
