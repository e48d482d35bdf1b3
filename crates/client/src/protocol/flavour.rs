//! What is known of the server at the other end: what it speaks, its limits, its habits.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize, de::IgnoredAny};
use tinsmith_wire::{ClientConfig, ClientConfigRequest, json};

use crate::{
    CallInfo, ChunkLimits, Error, Result, ServiceClientBuilder,
    http::connection::{Format, Http, Payload, Reply, Request},
    http::retry::Kind,
    http::semaphore::Budget,
};

/// How JSON and protobuf divide the work on the wire.
///
/// A server that answers `client/config` is taken to speak protobuf, one that does not know it (404
/// or 405) JSON.
///
/// ```
/// use tinsmith_client::{Dialect, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// let connect = || ServiceClient::builder().base_url(trainer.url());
/// assert_eq!(connect().connect()?.dialect(), Dialect::Protobuf);
/// assert_eq!(connect().dialect(Dialect::Json).connect()?.dialect(), Dialect::Json); // the local trainer speaks both
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Dialect {
    /// JSON bodies and results: Tinker SDK 0.1 to 0.18, Fireworks, SkyRL-tx.
    Json,
    /// Protobuf for the requests and results of training passes and for samples, JSON for the rest:
    /// Tinker SDK 0.25 and later, TuFT, the local trainer.
    Protobuf,
}

/// By what a server puts a model's requests in order.
///
/// ```
/// use tinsmith_client::{RequestOrder, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// let builder = ServiceClient::builder().base_url(trainer.url());
/// let service = builder.request_order(RequestOrder::ByArrival).connect()?; // now nothing uncertain is sent twice
/// assert_eq!(service.request_order(), RequestOrder::ByArrival);
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestOrder {
    /// By their sequence ids. It knows a repetition when it sees one, and the requests of one batch
    /// may come in any order.
    BySequence,
    /// As they arrive; what comes twice is done twice. SkyRL-tx.
    ByArrival,
}

/// Whose service it is, where that makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Tinker,
    Fireworks,
}

/// A server, as far as it is known.
#[derive(Debug)]
pub(crate) struct Server {
    pub dialect: Dialect,
    pub service: Service,
    /// Its limits and switches; none if it has no `client/config`.
    pub config: Option<ClientConfig>,
    pub chunks: ChunkLimits,
    pub parallel_chunks: bool,
    /// Bytes of training requests being sent.
    pub sending: Budget,
    /// Bytes of large results being received.
    pub receiving: Budget,
    /// Bytes of sample requests being sent.
    pub sampling: Budget,
    by_arrival: AtomicBool,
    passed_once: AtomicBool,
}

impl Server {
    /// Asks the server for its configuration.
    pub fn meet(http: &Http, settings: &ServiceClientBuilder) -> Result<Self> {
        let found = configuration(http, &settings.sdk_version)?;
        if let Some(config) = &found {
            if config.credential_default_source == "credential_cmd" {
                http.auth.prefer_command(&*http.clock)?;
            }
            if config.pjwt_auth_enabled && http.auth.has_key() {
                http.auth.exchange_first(http)?;
            }
        }
        let guess = match found {
            Some(_) => Dialect::Protobuf,
            None => Dialect::Json,
        };
        let config = found.clone().unwrap_or_default();
        let limits = ChunkLimits {
            max_len: config.fwdbwd_max_chunk_len.max(1),
            max_bytes: config.fwdbwd_max_chunk_bytes_count,
        };
        let dialect = settings.dialect.unwrap_or(guess);
        let by_arrival = settings.order == Some(RequestOrder::ByArrival);
        Ok(Server {
            dialect,
            service: settings.service,
            chunks: settings.chunks.unwrap_or(limits),
            parallel_chunks: dialect == Dialect::Protobuf && config.parallel_fwdbwd_chunks,
            sending: Budget::new(config.fwdbwd_dispatch_bytes_semaphore_size),
            receiving: Budget::new(config.inflight_response_bytes_semaphore_size),
            sampling: Budget::new(config.sample_dispatch_bytes_semaphore_size),
            by_arrival: AtomicBool::new(by_arrival),
            passed_once: AtomicBool::new(false),
            config: found,
        })
    }

    /// The form in which results are asked for, where they have two.
    pub fn results(&self) -> Format {
        match self.dialect {
            Dialect::Json => Format::Json,
            Dialect::Protobuf => Format::Protobuf,
        }
    }

    /// Whether protobuf bodies are to be compressed.
    pub fn wants_zstd(&self) -> bool {
        let config = self.config.as_ref();
        cfg!(feature = "zstd") && config.is_some_and(|config| config.proto_compress_fwdbwd)
    }

    /// Whether it reads sparse tensors: newer servers do.
    pub fn reads_csr(&self) -> bool {
        self.config.is_some() && self.service == Service::Tinker
    }

    pub fn order(&self) -> RequestOrder {
        match self.by_arrival.load(Ordering::Relaxed) {
            true => RequestOrder::ByArrival,
            false => RequestOrder::BySequence,
        }
    }

    /// Learns from how the server accepts a request: SkyRL-tx says more than others.
    pub fn recognise(&self, reply: &Reply) {
        #[derive(Deserialize)]
        struct SkyRl {
            future_id: Option<IgnoredAny>,
            status: Option<IgnoredAny>,
        }
        if self.dialect == Dialect::Json
            && self.config.is_none()
            && json::from_slice::<SkyRl>(&reply.body)
                .is_ok_and(|it| it.future_id.is_some() || it.status.is_some())
        {
            self.by_arrival.store(true, Ordering::Relaxed);
        }
    }

    /// Says what a refused training pass may be about, as long as none was accepted: the dialect.
    pub fn diagnose(&self, error: Error) -> Error {
        let Error::Status { call, status, message } = error else {
            return error;
        };
        let is_suspect = match self.dialect {
            // A 400 is mostly about the data.
            Dialect::Protobuf if status == 400 => message.to_ascii_lowercase().contains("json"),
            Dialect::Protobuf => [415, 422].contains(&status),
            Dialect::Json => [404, 405, 415].contains(&status),
        };
        if self.passed_once.load(Ordering::Relaxed) || !is_suspect {
            return Error::Status { call, status, message };
        }
        Error::WrongDialect { call, status, message, spoken: self.dialect }
    }

    /// A training pass was accepted, so the dialect is right.
    pub fn accepts_passes(&self) {
        self.passed_once.store(true, Ordering::Relaxed);
    }
}

/// The server's configuration; none where that is not heard of.
fn configuration(http: &Http, sdk_version: &str) -> Result<Option<ClientConfig>> {
    let payload = Payload::json(&ClientConfigRequest { sdk_version: sdk_version.to_owned() })?;
    let mut info = CallInfo::of("client/config");
    let request = Request::post("/api/v1/client/config", &payload);
    match http.exchange(&request, &mut info, Kind::Start) {
        Ok(reply) => http.read(&reply, info).map(Some),
        Err(Error::Status { status: 404 | 405 | 501, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
