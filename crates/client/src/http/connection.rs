//! One request out and one reply in, with no word of keys, retries or training.

use std::{
    fmt,
    io::Read,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ureq::http;

use crate::{
    CancelToken, Traffic,
    http::{
        address::Address,
        buffer_pool::BufferPool,
        masked::unmask,
        message::{Reply, Request},
        phase::{Cancelled, PhasedConnector, PhasedResolver, Unsent, exchange},
        proxy::Choice,
        route::Route,
    },
};

/// Memory that is set aside for an answer because it announces its size.
const MAX_BELIEVED: u64 = 64 << 20;
/// Most bytes of an error that are read.
const MAX_ERROR: u64 = 1 << 16;
/// How old an idle connection may be for a request that cannot be sent twice. Common servers close
/// idle connections after 5 s.
const FRESH: Duration = Duration::from_secs(2);

/// A server's address, and the connections kept to it.
pub(crate) struct Connection {
    cancel: Option<CancelToken>,
    config: ureq::config::Config,
    route: Route,
    agent: RwLock<ureq::Agent>,
    pub base: String,
    /// For the bodies of answers.
    pub replies: BufferPool<u8>,
    requests: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// How long one exchange may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// In all.
    pub total: Duration,
    /// Without a byte in either direction.
    pub silence: Duration,
}

/// There is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing was sent. That may pass.
    NotSent(String),
    /// Nothing was sent, and waiting does not help: a certificate, a proxy's refusal.
    CannotConnect(String),
    /// The server was silent, or time ran out.
    TimedOut,
    /// The connection broke.
    Broken(String),
    /// The answer is longer than any that this request has.
    TooLong(u64),
    /// The program does not want to wait any longer.
    Cancelled,
}

impl Failure {
    /// Whether the server may have received the request.
    pub fn is_maybe_received(&self) -> bool {
        match self {
            Failure::NotSent(_) | Failure::CannotConnect(_) => false,
            Failure::TimedOut | Failure::Broken(_) | Failure::TooLong(_) | Failure::Cancelled => {
                true
            }
        }
    }

    /// Whether sending the same again may help.
    pub fn may_pass(&self) -> bool {
        match self {
            Failure::NotSent(_) | Failure::TimedOut | Failure::Broken(_) => true,
            Failure::CannotConnect(_) | Failure::TooLong(_) | Failure::Cancelled => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotSent(why) | Failure::CannotConnect(why) => {
                write!(f, "cannot connect: {why}")
            }
            Failure::TimedOut => f.write_str("timed out"),
            Failure::Cancelled => f.write_str("cancelled"),
            Failure::Broken(why) => write!(f, "the connection broke: {why}"),
            Failure::TooLong(limit) => write!(
                f,
                "the answer is longer than the {limit} bytes that an answer to this request may have"
            ),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to nothing yet.
    pub fn new(
        address: Address,
        route: Route,
        connect_timeout: Duration,
        cancel: Option<CancelToken>,
    ) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would carry the key to another place.
            .max_redirects(0)
            .timeout_connect(Some(connect_timeout))
            .timeout_resolve(Some(connect_timeout))
            .proxy(route.proxy().for_ureq())
            .tls_config(route.tls())
            .user_agent(concat!("tinsmith/", env!("CARGO_PKG_VERSION")));
        let config = config.build();
        Connection {
            cancel,
            route,
            agent: RwLock::new(agent(&config)),
            config,
            base: address.base,
            replies: BufferPool::default(),
            requests: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    /// Sends one request with these headers, which no log shows, and waits for its answer, of
    /// whatever status.
    pub fn send(
        &self,
        secret_headers: &[(String, String)],
        request: &Request<'_>,
        limits: Limits,
    ) -> Result<Reply, Failure> {
        let watch = request.watch.cloned();
        let hides = request.hides_answer;
        let send = || self.send_openly(request, limits);
        let mut reply = exchange(secret_headers, self.cancel.as_ref(), watch, hides, send)?;
        if hides {
            unmask(&mut reply.body);
        }
        Ok(reply)
    }

    fn send_openly(&self, request: &Request<'_>, limits: Limits) -> Result<Reply, Failure> {
        let url = format!("{}{}", self.base, request.path);
        let mut head = http::Request::builder()
            .method(&request.method)
            .uri(url)
            .header("Accept", request.accept.media_type());
        if request.hides_answer {
            head = head.header("Accept-Encoding", "identity");
        }
        for &(name, value) in request.headers {
            head = head.header(name, value);
        }
        let unsendable = |error: http::Error| Failure::CannotConnect(error.to_string());
        let is_fresh = request.needs_fresh_connection;
        let response = match request.payload {
            Some(payload) => {
                head = head.header("Content-Type", payload.format.media_type());
                if payload.is_zstd {
                    head = head.header("Content-Encoding", "zstd");
                }
                self.sent.fetch_add(payload.bytes.len() as u64, Ordering::Relaxed);
                let request = head.body(payload.bytes.as_slice()).map_err(unsendable)?;
                self.run(request, limits, is_fresh)?
            }
            None => self.run(head.body(()).map_err(unsendable)?, limits, is_fresh)?,
        };
        self.reply(response, request.max_answer)
    }

    fn run(
        &self,
        request: http::Request<impl ureq::AsSendBody>,
        limits: Limits,
        is_fresh: bool,
    ) -> Result<http::Response<ureq::Body>, Failure> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let agent = self.agent.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut config = limited(agent.configure_request(request), limits);
        if is_fresh {
            config = config.max_idle_age(FRESH);
        }
        agent.run(config.build()).map_err(|error| self.failure(error))
    }

    fn reply(
        &self,
        mut response: http::Response<ureq::Body>,
        max_answer: u64,
    ) -> Result<Reply, Failure> {
        let reply = {
            let header =
                |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
            Reply::head(response.status().as_u16(), header)
        };
        let limit = if reply.is_success() { max_answer } else { MAX_ERROR };
        let announced = response.body().content_length().unwrap_or_default();
        let mut body = self.replies.take();
        body.reserve(announced.min(limit).min(MAX_BELIEVED) as usize);
        // The limit counts what comes out of the decompressor.
        let read = response.body_mut().as_reader().take(limit + 1).read_to_end(&mut body);
        self.received.fetch_add(body.len() as u64, Ordering::Relaxed);
        match read {
            Ok(_) if body.len() as u64 <= limit => {}
            Ok(_) if !reply.is_success() => body.truncate(limit as usize),
            Ok(_) => return Err(Failure::TooLong(limit)),
            // Of an error the beginning will do.
            Err(_) if !reply.is_success() => {}
            Err(error) => return Err(self.failure(error.into())),
        }
        Ok(Reply { body, ..reply })
    }

    /// Gets what is at `url`, which need not be this server's, as it is served.
    pub fn get(&self, url: &str, limits: Limits) -> Result<http::Response<ureq::Body>, Failure> {
        let other_way = |error: crate::Error| Failure::CannotConnect(error.to_string());
        let proxy = self.route.proxy_to(url).map_err(other_way)?;
        let tls = self.route.tls_to(url).map_err(other_way)?;
        let request = http::Request::get(url).header("Accept-Encoding", "identity");
        let request =
            request.body(()).map_err(|error| Failure::CannotConnect(error.to_string()))?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let agent = agent(&self.config);
        let config = agent.configure_request(request).proxy(proxy.for_ureq()).tls_config(tls);
        let request = limited(config, limits).build();
        let run = || agent.run(request).map_err(|error| self.failure_through(&proxy, error));
        exchange(&[], self.cancel.as_ref(), None, false, run)
    }

    /// Why there is no answer, in words that name the proxy or the certificate at fault.
    pub fn failure(&self, error: ureq::Error) -> Failure {
        self.failure_through(self.route.proxy(), error)
    }

    fn failure_through(&self, proxy: &Choice, error: ureq::Error) -> Failure {
        match error {
            ureq::Error::Timeout(_) => Failure::TimedOut,
            ureq::Error::Other(other) => match other.downcast::<Unsent>() {
                Ok(unsent) => not_sent(&unsent.0, self.route.explain(proxy, &unsent.0)),
                Err(other) if other.is::<Cancelled>() => Failure::Cancelled,
                Err(other) => Failure::Broken(other.to_string()),
            },
            other => Failure::Broken(self.route.explain(proxy, &other)),
        }
    }

    /// Closes the kept connections: one of them has answered what nobody can read, so its next
    /// answer may be that to another request.
    pub fn start_anew(&self) {
        *self.agent.write().unwrap_or_else(PoisonError::into_inner) = agent(&self.config);
    }

    /// What has gone over the wire.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            requests: self.requests.load(Ordering::Relaxed),
            bytes_sent: self.sent.load(Ordering::Relaxed),
            bytes_received: self.received.load(Ordering::Relaxed),
        }
    }
}

fn agent(config: &ureq::config::Config) -> ureq::Agent {
    ureq::Agent::with_parts(config.clone(), PhasedConnector::default(), PhasedResolver::default())
}

type RequestConfig<S> = ureq::config::ConfigBuilder<ureq::typestate::HttpCrateScope<S>>;

fn limited<S: ureq::AsSendBody>(config: RequestConfig<S>, limits: Limits) -> RequestConfig<S> {
    // A timeout of zero would mean none.
    let some = |time: Duration| Some(time.max(Duration::from_millis(1)));
    config
        .timeout_global(some(limits.total))
        .timeout_per_read(some(limits.silence))
        .timeout_per_write(some(limits.silence))
}

/// Of what went wrong before anything was sent, what can pass by itself.
fn not_sent(error: &ureq::Error, text: String) -> Failure {
    match error {
        ureq::Error::ConnectProxyFailed(why) if is_refusal(why) => Failure::CannotConnect(text),
        ureq::Error::InvalidProxyUrl
        | ureq::Error::BadUri(_)
        | ureq::Error::TlsRequired
        | ureq::Error::Tls(_) => Failure::CannotConnect(text),
        ureq::Error::Rustls(error) if is_lasting(error) => Failure::CannotConnect(text),
        ureq::Error::Io(io) => match io.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(error) if is_lasting(error) => Failure::CannotConnect(text),
            _ => Failure::NotSent(text),
        },
        _ => Failure::NotSent(text),
    }
}

/// Whether TLS fails each time: because of a certificate, or because there is no TLS.
fn is_lasting(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(_) | rustls::Error::InvalidMessage(_))
}

/// Whether a proxy says no, rather than that it cannot at present.
fn is_refusal(why: &str) -> bool {
    let mut numbers = why.split(|c: char| !c.is_ascii_digit());
    numbers.any(|number| number.len() == 3 && number.starts_with('4'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_says_no_is_told_from_one_that_cannot() {
        for (why, refuses) in [
            ("proxy server responded 407/407", true),
            ("proxy server responded 403/Forbidden", true),
            ("proxy server responded 502/Bad Gateway", false),
            ("proxy server responded 503/503", false),
        ] {
            let error = ureq::Error::ConnectProxyFailed(why.to_owned());
            let failure = not_sent(&error, error.to_string());
            assert!(!failure.is_maybe_received());
            assert_eq!(failure.may_pass(), !refuses, "{why}");
        }
    }
}
