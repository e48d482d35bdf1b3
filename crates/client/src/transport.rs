//! One HTTP exchange: address, key, headers, bytes.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use tinsmith_wire::ErrorBody;
use ureq::http::Uri;

use crate::{Clock, Error, Result, RetryConfig};

/// Longest answer that is read.
const MAX_ANSWER: u64 = 4 << 30;
/// Most of a server's words that an error repeats.
const MAX_WORDS: usize = 400;

/// A server's address, the key to it, and the manners to talk to it.
pub(crate) struct Http {
    agent: ureq::Agent,
    base: String,
    key: Option<String>,
    pub retry: RetryConfig,
    pub clock: Arc<dyn Clock>,
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
    pub retry_after: Option<Duration>,
    pub should_retry: Option<bool>,
    pub location: Option<String>,
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
        let key = self.key.as_ref().map(|_| "(secret)");
        f.debug_struct("Http")
            .field("base", &self.base)
            .field("key", &key)
            .finish_non_exhaustive()
    }
}

impl Http {
    /// Checks the address and the key; connects to nothing.
    pub fn new(
        base: &str,
        key: Option<String>,
        plain_http_allowed: bool,
        retry: RetryConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let base = base.trim_end_matches('/');
        let loopback = is_loopback(&check_address(base)?);
        if !base.starts_with("https:") && key.is_some() && !loopback && !plain_http_allowed {
            let reason = "the API key would travel unencrypted over plain http; use https, or allow_plain_http on the builder";
            return Err(bad("base URL", reason));
        }
        if key
            .as_deref()
            .is_some_and(|key| key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(bad(
                "API key",
                "it is empty or holds characters that no key has, such as spaces",
            ));
        }
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would carry the key to another place.
            .max_redirects(0)
            .timeout_connect(Some(retry.connect_timeout))
            .user_agent(concat!("tinsmith/", env!("CARGO_PKG_VERSION")));
        if loopback {
            config = config.proxy(None);
        }
        Ok(Http {
            agent: config.build().into(),
            base: base.to_owned(),
            key,
            retry,
            clock,
        })
    }

    /// Sends one request, a POST if there is a body, and waits for its answer, of whatever status.
    pub fn send(
        &self,
        path: &str,
        body: Option<&[u8]>,
        headers: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<Reply, Failure> {
        let url = format!("{}{path}", self.base);
        // A timeout of zero would mean none.
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        let key = self.key.as_deref().map(|key| ("X-API-Key", key));
        let headers = headers
            .iter()
            .copied()
            .chain(key)
            .chain([("Accept", "application/json")]);
        let response = match body {
            Some(body) => {
                let mut request = self
                    .agent
                    .post(&url)
                    .header("Content-Type", "application/json");
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                request.config().timeout_global(timeout).build().send(body)
            }
            None => {
                let mut request = self.agent.get(&url);
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                request.config().timeout_global(timeout).build().call()
            }
        };
        let mut response = response.map_err(failure)?;
        let text = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let seconds = |name: &str, unit: f64| {
            let number: f64 = text(name)?.trim().parse().ok()?;
            Duration::try_from_secs_f64(number * unit).ok()
        };
        let status = response.status().as_u16();
        let reply = Reply {
            status,
            retry_after: seconds("retry-after-ms", 1e-3).or_else(|| seconds("retry-after", 1.0)),
            should_retry: text("x-should-retry").and_then(|value| value.parse().ok()),
            location: text("location")
                .filter(|_| (300..400).contains(&status))
                .map(str::to_owned),
            body: Vec::new(),
        };
        let body = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_vec()
            .map_err(failure)?;
        Ok(Reply { body, ..reply })
    }

    /// A fresh key for one logical call.
    pub fn idempotency_key(&self) -> String {
        format!(
            "tinsmith-{:016x}{:016x}",
            self.clock.random(),
            self.clock.random()
        )
    }

    /// What the server said, fit to print: the `detail` of a JSON body, else the text, cut short and on one line.
    pub fn words(&self, body: &[u8]) -> String {
        let detail = tinsmith_wire::json::from_slice::<ErrorBody>(body)
            .ok()
            .and_then(|body| body.message());
        let text = detail.unwrap_or_else(|| {
            String::from_utf8_lossy(&body[..body.len().min(1 << 16)]).into_owned()
        });
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = self.redact(&line);
        match line.char_indices().nth(MAX_WORDS) {
            _ if line.is_empty() => "(no message)".to_owned(),
            Some((end, _)) => format!("{}..", &line[..end]),
            None => line,
        }
    }

    /// The text without the key, which a server may repeat.
    pub fn redact(&self, text: &str) -> String {
        match &self.key {
            // A shorter one is no secret, and may be part of any word.
            Some(key) if key.len() >= 8 => text.replace(key, "(API key)"),
            _ => text.to_owned(),
        }
    }
}

fn bad(what: &'static str, reason: &str) -> Error {
    Error::Config {
        what,
        reason: reason.to_owned(),
    }
}

/// The host of a base URL that can be one.
fn check_address(base: &str) -> Result<String> {
    let uri: Uri = base
        .parse()
        .map_err(|_| bad("base URL", "it is not a URL"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(bad(
            "base URL",
            "it needs a scheme and a host, such as https://host/path",
        ));
    };
    if !matches!(scheme, "https" | "http") {
        return Err(bad("base URL", "the scheme must be https or http"));
    }
    if authority.as_str().contains('@') {
        return Err(bad(
            "base URL",
            "it holds a user name; give the key as API key",
        ));
    }
    Ok(authority.host().to_owned())
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn failure(error: ureq::Error) -> Failure {
    use std::io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable,
    };
    match &error {
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_) => Failure::NotSent(error.to_string()),
        ureq::Error::Io(io)
            if matches!(
                io.kind(),
                ConnectionRefused | HostUnreachable | NetworkUnreachable | AddrNotAvailable
            ) =>
        {
            Failure::NotSent(error.to_string())
        }
        ureq::Error::Timeout(_) => Failure::TimedOut,
        _ => Failure::Broken(error.to_string()),
    }
}
