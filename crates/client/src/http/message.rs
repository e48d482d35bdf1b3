//! What goes over a connection: requests and their replies.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tinsmith_wire::{json, proto};
use ureq::http::Method;

use crate::Error;

/// Most bytes of an answer, unless the request expects more: ids, states, settings.
pub(crate) const SHORT_ANSWER: u64 = 1 << 20;
/// Most bytes of a list.
pub(crate) const LIST: u64 = 32 << 20;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Protobuf,
}

impl Format {
    pub fn media_type(self) -> &'static str {
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

/// Is told, about twice a second, how long an exchange has been waiting for a byte.
#[derive(Clone)]
pub(crate) struct Watch(pub Arc<dyn Fn(Duration) + Send + Sync>);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
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
    /// Most bytes of the answer, after decompression.
    pub max_answer: u64,
    /// Whether the connection must be fresh, since a request that is lost in one that the server is
    /// closing cannot be sent again.
    pub needs_fresh_connection: bool,
    /// Whether the answer holds a secret that no log may show.
    pub hides_answer: bool,
    /// Who is told of the waiting.
    pub watch: Option<&'a Watch>,
}

impl<'a> Request<'a> {
    pub fn post(path: &'a str, payload: &'a Payload) -> Self {
        Request { payload: Some(payload), ..Request::bare(Method::POST, path) }
    }

    pub fn bare(method: Method, path: &'a str) -> Self {
        Request {
            method,
            path,
            payload: None,
            accept: Format::Json,
            headers: &[],
            max_answer: SHORT_ANSWER,
            needs_fresh_connection: false,
            hides_answer: false,
            watch: None,
        }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: u16,
    pub format: Format,
    /// Of errors, the beginning only.
    pub body: Vec<u8>,
    pub retry_after: Option<Duration>,
    pub should_retry: Option<bool>,
    pub location: Option<String>,
    pub expires: Option<String>,
    /// The server says that the token is no longer good.
    pub is_token_refused: bool,
}

impl Reply {
    /// The head of an answer, from its status and headers.
    pub fn head<'a>(status: u16, header: impl Fn(&str) -> Option<&'a str>) -> Self {
        let is_proto =
            header("content-type").is_some_and(|kind| kind.starts_with("application/x-protobuf"));
        let is_token_refused = status == 401
            && header("www-authenticate")
                .is_some_and(|how| how.contains("error=\"invalid_token\""));
        Reply {
            status,
            format: if is_proto { Format::Protobuf } else { Format::Json },
            body: Vec::new(),
            should_retry: header("x-should-retry").and_then(|value| value.parse().ok()),
            location: header("location")
                .filter(|_| (300..400).contains(&status))
                .map(str::to_owned),
            expires: header("expires").map(str::to_owned),
            is_token_refused,
            retry_after: retry_after(header),
        }
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
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
