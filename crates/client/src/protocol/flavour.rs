//! How servers differ: what this one can do, and how, found out once. Nothing else knows a server's
//! name.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde::{Deserialize, de::IgnoredAny};
use tinsmith_wire::{ClientConfig, ClientConfigRequest, Datum, Metrics, json};

use crate::{
    ChunkLimits, DatumProblem, Dialect, Error, RequestOrder, Result,
    http::{
        api::Api,
        message::{Format, Reply},
    },
    protocol::{chunking::ByteCount, endpoints::CLIENT_CONFIG, fireworks},
};

/// Whose service it is, where that makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Tinker,
    Fireworks,
}

impl Service {
    /// Where it is.
    pub fn base_url(self) -> &'static str {
        match self {
            Service::Tinker => "https://tinker.thinkingmachines.dev/services/tinker-prod",
            Service::Fireworks => "https://api.fireworks.ai/training/v1/serverless",
        }
    }

    /// The environment variable with the key to it.
    pub fn key_variable(self) -> &'static str {
        match self {
            Service::Tinker => "TINKER_API_KEY",
            Service::Fireworks => "FIREWORKS_API_KEY",
        }
    }

    /// The environment variable with the command that prints the key.
    pub fn key_command_variable(self) -> Option<&'static str> {
        match self {
            Service::Tinker => Some("TINKER_CREDENTIAL_CMD"),
            Service::Fireworks => None,
        }
    }

    /// Whether a conflict (409) of this body may pass.
    pub fn may_conflict_pass(self) -> fn(&[u8]) -> bool {
        match self {
            Service::Tinker => |_| true,
            Service::Fireworks => fireworks::may_conflict_pass,
        }
    }

    fn byte_count(self) -> ByteCount {
        match self {
            Service::Tinker => ByteCount::Memory,
            Service::Fireworks => ByteCount::TenAnElement,
        }
    }
}

/// What the user says of the server, in place of what is found out.
#[derive(Debug, Clone)]
pub(crate) struct FlavourSettings {
    pub service: Service,
    pub dialect: Option<Dialect>,
    pub order: Option<RequestOrder>,
    pub chunks: Option<ChunkLimits>,
    pub sdk_version: String,
}

/// A server, as far as it is known.
#[derive(Debug)]
pub(crate) struct Flavour {
    pub dialect: Dialect,
    /// Its own words on its limits and switches; none if it has no `client/config`.
    pub config: Option<ClientConfig>,
    /// How much one training request may hold, and how that is counted.
    pub chunks: ChunkLimits,
    pub byte_count: ByteCount,
    /// Whether the requests of one batch may be sent at once.
    parallel_chunks: bool,
    /// Whether training requests are compressed with zstd.
    pub compresses: bool,
    /// Whether it reads sparse tensors.
    pub reads_sparse: bool,
    /// Whether it makes a model of a checkpoint in one request.
    pub creates_by_load: bool,
    /// Whether it wants to know in the background what was read or abandoned.
    pub wants_notices: bool,
    /// Whether it evaluates custom losses itself.
    pub evaluates_losses: bool,
    /// Whether the number of tokens of a cross entropy is added to its metrics here.
    counts_tokens: bool,
    /// The longest pause while a bill is unpaid.
    pub billing_pause: Option<Duration>,
    pub limits: ByteLimits,
    pub sampling: SamplingFlavour,
    /// Whether its requests are executed as they arrive.
    is_by_arrival: AtomicBool,
    /// Whether the accepting of a request may still tell that it is SkyRL-tx.
    may_be_skyrl: bool,
    has_accepted_pass: AtomicBool,
}

/// Most bytes under way at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByteLimits {
    /// Of training requests being sent.
    pub sending: u64,
    /// Of large results being received.
    pub receiving: u64,
    /// Of sample requests being sent.
    pub sampling: u64,
}

/// How it samples.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SamplingFlavour {
    /// Most samples under way.
    pub max_concurrent: u64,
    /// Whether one that ends no sample for long is taken to be stuck.
    pub detects_stuck: bool,
    /// Whether many samples are waited for with one question.
    pub waits_together: bool,
    /// Whether it numbers the clients of a sampling session.
    pub numbers_clients: bool,
    /// Whether what is lost may be sampled again.
    pub allows_retries: bool,
}

impl Flavour {
    /// Asks the server for its configuration, and for a token if it wants one.
    pub fn discover(api: &Api, settings: &FlavourSettings) -> Result<Self> {
        let found = configuration(api, &settings.sdk_version)?;
        if let Some(config) = &found {
            if config.credential_default_source == "credential_cmd" {
                api.auth.prefer_command()?;
            }
            if config.pjwt_auth_enabled && api.auth.has_key() {
                api.exchange_key()?;
            }
        }
        Ok(Self::resolve(found, settings))
    }

    /// Everything that is known from the start.
    fn resolve(found: Option<ClientConfig>, settings: &FlavourSettings) -> Self {
        let guess = match found {
            Some(_) => Dialect::Protobuf,
            None => Dialect::Json,
        };
        let dialect = settings.dialect.unwrap_or(guess);
        let is_protobuf = dialect == Dialect::Protobuf;
        let has_config = found.is_some();
        let config = found.clone().unwrap_or_default();
        let limits = ChunkLimits {
            max_len: config.fwdbwd_max_chunk_len.max(1),
            max_bytes: config.fwdbwd_max_chunk_bytes_count,
        };
        let pause = Duration::try_from_secs_f64(config.billing_exception_max_pause_duration_sec);
        Flavour {
            dialect,
            chunks: settings.chunks.unwrap_or(limits),
            byte_count: settings.service.byte_count(),
            parallel_chunks: is_protobuf && config.parallel_fwdbwd_chunks,
            compresses: cfg!(feature = "zstd") && has_config && config.proto_compress_fwdbwd,
            reads_sparse: has_config && settings.service == Service::Tinker,
            creates_by_load: is_protobuf,
            wants_notices: has_config,
            evaluates_losses: has_config && config.custom_loss_server_side,
            counts_tokens: settings.service == Service::Fireworks,
            billing_pause: has_config.then(|| pause.unwrap_or_default()),
            limits: ByteLimits {
                sending: config.fwdbwd_dispatch_bytes_semaphore_size,
                receiving: config.inflight_response_bytes_semaphore_size,
                sampling: config.sample_dispatch_bytes_semaphore_size,
            },
            sampling: SamplingFlavour {
                max_concurrent: match has_config {
                    true => config.sample_max_concurrent_requests.into(),
                    false => u64::MAX,
                },
                detects_stuck: !has_config || config.sample_enable_stuck_detection,
                waits_together: has_config && config.sample_use_retrieve_futures,
                numbers_clients: has_config && config.sample_join_sampling_session,
                allows_retries: !(has_config && config.sample_no_retries),
            },
            is_by_arrival: AtomicBool::new(settings.order == Some(RequestOrder::ByArrival)),
            may_be_skyrl: !is_protobuf && !has_config && settings.order.is_none(),
            has_accepted_pass: AtomicBool::new(false),
            config: found,
        }
    }

    /// The form of training passes, and of results that have two.
    pub fn bulk_format(&self) -> Format {
        match self.dialect {
            Dialect::Json => Format::Json,
            Dialect::Protobuf => Format::Protobuf,
        }
    }

    pub fn order(&self) -> RequestOrder {
        match self.is_by_arrival.load(Ordering::Relaxed) {
            true => RequestOrder::ByArrival,
            false => RequestOrder::BySequence,
        }
    }

    fn is_by_arrival(&self) -> bool {
        self.order() == RequestOrder::ByArrival
    }

    /// Whether it knows a repetition when it sees one.
    pub fn knows_repetition(&self) -> bool {
        !self.is_by_arrival()
    }

    /// Whether the requests of one batch may be sent in parallel, and the first one last.
    pub fn sends_chunks_in_parallel(&self) -> bool {
        self.parallel_chunks && self.knows_repetition()
    }

    /// Whether it divides the weights of a sequence by their sum.
    pub fn rescales_weights(&self) -> bool {
        self.is_by_arrival()
    }

    /// Whether the logprobs of a prompt lack that of its first token, which has none.
    pub fn omits_first_prompt_logprob(&self) -> bool {
        self.is_by_arrival()
    }

    /// Whether a 400 for a result says, in its body, that the request has failed. Elsewhere proxies
    /// make these up.
    pub fn fails_by_bad_request(&self, body: &[u8]) -> bool {
        self.dialect == Dialect::Json && !body.is_empty()
    }

    /// What no request to this server may hold.
    pub fn check_data(&self, data: &[Datum]) -> Result<()> {
        if !self.is_by_arrival() {
            return Ok(());
        }
        for (index, datum) in data.iter().enumerate() {
            for (name, tensor) in &datum.loss_fn_inputs {
                let shape = tensor.shape();
                if shape.len() > 1 {
                    let expected =
                        "[T]: this server is SkyRL-tx, which takes all tensors for flat ones";
                    return Err(Error::Datum {
                        index,
                        field: name.clone(),
                        problem: DatumProblem::Shape {
                            found: shape.into_owned(),
                            expected: expected.to_owned(),
                        },
                    });
                }
            }
        }
        Ok(())
    }

    /// The number of tokens in the cross entropy of these data, if it is to be added to its
    /// metrics.
    pub fn tokens_to_add(&self, data: &[Datum], is_cross_entropy: bool) -> Option<usize> {
        (self.counts_tokens && is_cross_entropy).then(|| fireworks::response_tokens(data))
    }

    /// Learns from how the server accepts a request: SkyRL-tx says more than others.
    pub fn learn(&self, reply: &Reply) {
        #[derive(Deserialize)]
        struct SkyRl {
            future_id: Option<IgnoredAny>,
            status: Option<IgnoredAny>,
        }
        if self.may_be_skyrl
            && json::from_slice::<SkyRl>(&reply.body)
                .is_ok_and(|it| it.future_id.is_some() || it.status.is_some())
        {
            self.is_by_arrival.store(true, Ordering::Relaxed);
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
        if self.has_accepted_pass.load(Ordering::Relaxed) || !is_suspect {
            return Error::Status { call, status, message };
        }
        Error::WrongDialect { call, status, message, spoken: self.dialect }
    }

    /// A training pass was accepted, so the dialect is right.
    pub fn accepts_passes(&self) {
        self.has_accepted_pass.store(true, Ordering::Relaxed);
    }
}

/// Adds the number of tokens to the metrics, unless the server has done so.
pub(crate) fn add_tokens(metrics: &mut Metrics, tokens: Option<usize>) {
    fireworks::complete(metrics, tokens);
}

/// The server's configuration; none where that is not heard of.
fn configuration(api: &Api, sdk_version: &str) -> Result<Option<ClientConfig>> {
    let request = ClientConfigRequest { sdk_version: sdk_version.to_owned() };
    match CLIENT_CONFIG.call(api, &request) {
        Ok(config) => Ok(Some(config)),
        Err(Error::Status { status: 404 | 405 | 501, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
