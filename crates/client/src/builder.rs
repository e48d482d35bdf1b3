//! Settings of a service client.

use std::{env, sync::Arc};

use tinsmith_wire::UserMetadata;

use crate::{
    ChunkLimits, Clock, Error, Result, RetryConfig, ServiceClient, SystemClock, transport::Http,
};

/// Where the hosted service is.
const DEFAULT_BASE_URL: &str = "https://tinker.thinkingmachines.dev/services/tinker-prod";

/// How JSON and protobuf divide the work on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// JSON bodies and results: Tinker SDK 0.1 to 0.18, Fireworks, SkyRL-tx, the local trainer.
    #[default]
    Json,
}

/// Settings of a [`ServiceClient`], from [`ServiceClient::builder`]. What is not set comes from the environment:
/// `TINKER_BASE_URL`, `TINKER_API_KEY`, `TINKER_TAGS` (separated by commas).
///
/// ```
/// use tinsmith_client::ServiceClient;
/// // Nothing listens there, and connecting says so.
/// let error = ServiceClient::builder()
///     .base_url("http://models.example.com")
///     .api_key("tml-secret")
///     .connect()
///     .unwrap_err();
/// assert!(error.to_string().contains("the API key would travel unencrypted"));
/// ```
#[derive(Clone)]
#[must_use = "connect starts the session"]
pub struct ServiceClientBuilder {
    pub(crate) base_url: Option<String>,
    pub(crate) api_key: Option<String>,
    pub(crate) tags: Option<Vec<String>>,
    pub(crate) user_metadata: UserMetadata,
    pub(crate) project_id: Option<String>,
    pub(crate) sdk_version: String,
    pub(crate) retry: RetryConfig,
    pub(crate) chunks: ChunkLimits,
    pub(crate) dialect: Dialect,
    plain_http_allowed: bool,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for ServiceClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceClientBuilder")
            .field("base_url", &self.base_url)
            .field("api_key", &self.api_key.as_ref().map(|_| "(secret)"))
            .field("tags", &self.tags)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

impl Default for ServiceClientBuilder {
    fn default() -> Self {
        ServiceClientBuilder {
            base_url: None,
            api_key: None,
            tags: None,
            user_metadata: UserMetadata::new(),
            project_id: None,
            sdk_version: env!("CARGO_PKG_VERSION").to_owned(),
            retry: RetryConfig::default(),
            chunks: ChunkLimits::default(),
            dialect: Dialect::default(),
            plain_http_allowed: false,
            clock: Arc::new(SystemClock::default()),
        }
    }
}

impl ServiceClientBuilder {
    /// The server's address, with the path that comes before `/api/v1` if there is one.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = Some(url.into());
        self
    }

    /// The key that every request carries. Printed nowhere.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// Labels of the session.
    pub fn tags<S: Into<String>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.tags = Some(tags.into_iter().map(Into::into).collect());
        self
    }

    /// Notes on the session.
    pub fn user_metadata(mut self, notes: UserMetadata) -> Self {
        self.user_metadata = notes;
        self
    }

    /// The project that the session belongs to.
    pub fn project_id(mut self, id: impl Into<String>) -> Self {
        self.project_id = Some(id.into());
        self
    }

    /// The client version to report; a server may choose its behaviour by it. This crate's own by default.
    pub fn sdk_version(mut self, version: impl Into<String>) -> Self {
        self.sdk_version = version.into();
        self
    }

    /// Times and counts of everything that waits.
    pub fn retry(mut self, retry: RetryConfig) -> Self {
        self.retry = retry;
        self
    }

    /// How much one training request may hold.
    pub fn chunk_limits(mut self, limits: ChunkLimits) -> Self {
        self.chunks = limits;
        self
    }

    /// What the server speaks.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// Lets the API key travel unencrypted, to a host other than this one.
    pub fn allow_plain_http(mut self) -> Self {
        self.plain_http_allowed = true;
        self
    }

    /// Another source of time and chance.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Starts a session.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that cannot work, at once; [`Error::Deadline`] when nothing answers at the address
    /// within [`RetryConfig::start_timeout`]; [`Error::Status`] when the server refuses, a wrong key say.
    pub fn connect(self) -> Result<ServiceClient> {
        let http = self.http()?;
        ServiceClient::start(http, &self)
    }

    fn http(&self) -> Result<Http> {
        let base = self
            .base_url
            .clone()
            .or_else(|| variable("TINKER_BASE_URL"));
        let base = base.as_deref().unwrap_or(DEFAULT_BASE_URL);
        let key = self.api_key.clone().or_else(|| variable("TINKER_API_KEY"));
        if key.is_none() && base == DEFAULT_BASE_URL {
            return Err(Error::Config {
                what: "API key",
                reason:
                    "the hosted service needs one: set TINKER_API_KEY, or api_key on the builder; \
                         for another server set TINKER_BASE_URL"
                        .into(),
            });
        }
        Http::new(
            base,
            key,
            self.plain_http_allowed,
            self.retry.clone(),
            self.clock.clone(),
        )
    }

    pub(crate) fn session_tags(&self) -> Vec<String> {
        self.tags.clone().unwrap_or_else(|| {
            let tags = variable("TINKER_TAGS").unwrap_or_default();
            tags.split(',')
                .map(str::trim)
                .filter(|tag| !tag.is_empty())
                .map(str::to_owned)
                .collect()
        })
    }
}

/// An environment variable; empty counts as unset.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
