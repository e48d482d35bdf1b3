//! Settings of a service client.

use std::{env, path::PathBuf, sync::Arc};

use tinsmith_wire::UserMetadata;
use ureq::http::{HeaderName, HeaderValue};

use crate::{
    CancelToken, ChunkLimits, Clock, Dialect, Error, LogProgress, Progress, RequestOrder,
    RestClient, Result, RetryConfig, ServiceClient, SystemClock,
    http::{
        address::Address,
        api::Api,
        auth::Auth,
        connection::Connection,
        key_command::{KeyCommand, is_usable},
        route::{NetworkSettings, Route},
        tls::RootSource,
    },
    protocol::{
        flavour::{FlavourSettings, Service},
        session::SessionSettings,
    },
};

/// Settings of a [`ServiceClient`], from [`ServiceClient::builder`]. What is not set comes from the
/// environment: `TINKER_BASE_URL`, `TINKER_API_KEY` or else `TINKER_CREDENTIAL_CMD` (a command that
/// prints the key), `TINKER_TAGS` (separated by commas), and for servers behind Cloudflare Access
/// `CLOUDFLARE_ACCESS_CLIENT_ID` and `CLOUDFLARE_ACCESS_CLIENT_SECRET`. Proxies and certificate
/// authorities come from where curl finds them: `HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE` and
/// their like.
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
    base_url: Option<String>,
    api_key: Option<String>,
    key_command: Option<String>,
    tags: Option<Vec<String>>,
    user_metadata: UserMetadata,
    project_id: Option<String>,
    display_name: Option<String>,
    flavour: FlavourSettings,
    headers: Vec<(String, String)>,
    network: NetworkSettings,
    retry: RetryConfig,
    cancel: Option<CancelToken>,
    plain_http_allowed: bool,
    clock: Arc<dyn Clock>,
    progress: Arc<dyn Progress>,
}

impl std::fmt::Debug for ServiceClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceClientBuilder")
            .field("base_url", &self.base_url)
            .field("api_key", &self.api_key.as_ref().map(|_| "(secret)"))
            .field("key_command", &self.key_command.as_ref().map(|_| "(secret)"))
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
            key_command: None,
            tags: None,
            user_metadata: UserMetadata::new(),
            project_id: None,
            display_name: None,
            flavour: FlavourSettings {
                service: Service::Tinker,
                dialect: None,
                order: None,
                chunks: None,
                sdk_version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            headers: Vec::new(),
            network: NetworkSettings::default(),
            retry: RetryConfig::default(),
            cancel: None,
            plain_http_allowed: false,
            clock: Arc::new(SystemClock::default()),
            progress: Arc::new(LogProgress),
        }
    }
}

impl ServiceClient {
    /// Starts a session with the server that the environment names: `TINKER_BASE_URL` (the hosted
    /// service when unset), `TINKER_API_KEY` or `TINKER_CREDENTIAL_CMD`, `TINKER_TAGS`.
    ///
    /// # Errors
    /// As [`ServiceClientBuilder::connect`].
    pub fn from_env() -> Result<Self> {
        Self::builder().connect()
    }

    /// Settings, to start a session with.
    pub fn builder() -> ServiceClientBuilder {
        ServiceClientBuilder::default()
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

    /// A command line, for the system's shell, that prints the key and nothing else. It is run
    /// again when the key, if it is a JWT, is half spent, and when the server refuses it (401).
    /// [`api_key`](Self::api_key) comes first, unless the server prefers the command.
    ///
    /// ```
    /// use tinsmith_client::ServiceClient;
    /// # let trainer = tinsmith_trainer::Trainer::builder().api_key("tml-key").spawn()?;
    /// let service = ServiceClient::builder()
    ///     .base_url(trainer.url())
    ///     .key_command("echo tml-key") // a password manager, say
    ///     .connect()?;
    /// # drop(service);
    /// let error = ServiceClient::builder().key_command("exit 7").connect().unwrap_err();
    /// assert!(error.to_string().contains("`exit 7`, ended with exit"));
    /// # anyhow::Ok(())
    /// ```
    pub fn key_command(mut self, command: impl Into<String>) -> Self {
        self.key_command = Some(command.into());
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

    /// The session's name for people.
    pub fn display_name(mut self, name: impl Into<String>) -> Self {
        self.display_name = Some(name.into());
        self
    }

    /// Trains on Fireworks: its address when no other is set, the key of `FIREWORKS_API_KEY`, its
    /// JSON dialect and its ways of counting.
    ///
    /// ```
    /// use tinsmith_client::{Dialect, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// let builder = ServiceClient::builder().fireworks().api_key("fw-key");
    /// let service = builder.base_url(trainer.url()).connect()?; // or, without base_url, Fireworks itself
    /// assert_eq!(service.dialect(), Dialect::Json);
    /// # anyhow::Ok(())
    /// ```
    pub fn fireworks(mut self) -> Self {
        self.flavour.service = Service::Fireworks;
        self.flavour.dialect = Some(Dialect::Json);
        self
    }

    /// A header that every request carries, such as one that a gateway wants.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The client version to report; a server may choose its behavior by it. This crate's own by
    /// default.
    pub fn sdk_version(mut self, version: impl Into<String>) -> Self {
        self.flavour.sdk_version = version.into();
        self
    }

    /// Times and counts of everything that waits.
    pub fn retry(mut self, retry: RetryConfig) -> Self {
        self.retry = retry;
        self
    }

    /// How much one training request may hold, in place of what the server says.
    pub fn chunk_limits(mut self, limits: ChunkLimits) -> Self {
        self.flavour.chunks = Some(limits);
        self
    }

    /// What the server speaks, in place of what its `client/config` suggests.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.flavour.dialect = Some(dialect);
        self
    }

    /// By what the server orders requests. By sequence id unless set, or unless it is recognized as
    /// SkyRL-tx.
    pub fn request_order(mut self, order: RequestOrder) -> Self {
        self.flavour.order = Some(order);
        self
    }

    /// Who hears of retries, queues and messages while calls wait. The `log` crate unless set.
    ///
    /// ```
    /// use tinsmith_client::{Event, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// let builder = ServiceClient::builder().base_url(trainer.url());
    /// let service = builder.progress(|event: &Event| eprintln!("{event}")).connect()?;
    /// # drop(service);
    /// # anyhow::Ok(())
    /// ```
    pub fn progress(mut self, progress: impl Progress) -> Self {
        self.progress = Arc::new(progress);
        self
    }

    /// Ends every wait of this session's clients when it is cancelled.
    pub fn cancel_token(mut self, token: &CancelToken) -> Self {
        self.cancel = Some(token.clone());
        self
    }

    /// The proxy to the server, `http://user:password@host:port`, in place of what the environment
    /// says; an empty one means none. The scheme may also be `https`, `socks4`, `socks4a`, `socks5`
    /// (host names are looked up here) or `socks5h` (by the proxy). This machine is reached without
    /// one in any case.
    ///
    /// The environment is read as curl reads it: `https_proxy` or `HTTPS_PROXY` for a server of
    /// `https`, `http_proxy` (not `HTTP_PROXY`) for one of `http`, else `all_proxy` or `ALL_PROXY`.
    ///
    /// ```
    /// use tinsmith_client::ServiceClient;
    /// let builder = ServiceClient::builder().base_url("https://trainer.example").api_key("tml-key");
    /// let error = builder.proxy("ftp://me:secret@gateway.example").connect().unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "ServiceClientBuilder::proxy: the scheme of a proxy must be http, https, socks4, socks4a, socks5 or \
    ///      socks5h, and ftp is not"
    /// );
    /// ```
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.network.proxy.url = Some(url.into());
        self
    }

    /// Where no proxy is used, in place of what `no_proxy` or `NO_PROXY` says: entries separated by
    /// commas or blanks. `example.com` and `.example.com` cover that host and all below it,
    /// `*.example.com` those below it, `10.0.0.0/8` and `10.*` addresses, `host:8000` one port,
    /// and `*` everything.
    ///
    /// ```
    /// use tinsmith_client::ServiceClient;
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// let builder = ServiceClient::builder().base_url(trainer.url());
    /// let service = builder.proxy("http://gateway.example:3128").no_proxy("127.0.0.0/8 .internal").connect()?;
    /// # drop(service);
    /// # anyhow::Ok(())
    /// ```
    pub fn no_proxy(mut self, entries: impl Into<String>) -> Self {
        self.network.proxy.no_proxy = Some(entries.into());
        self
    }

    /// Certificates in PEM of the authorities to trust, in place of the system's and of those that
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` name. Each call adds some.
    ///
    /// ```
    /// use tinsmith_client::ServiceClient;
    /// let builder = ServiceClient::builder().base_url("https://trainer.example").api_key("tml-key");
    /// let error = builder.root_certificates("not a certificate").connect().unwrap_err();
    /// assert!(error.to_string().contains("no certificate in PEM"), "{error}");
    /// ```
    pub fn root_certificates(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.network.roots.push(RootSource::Pem(pem.as_ref().to_vec()));
        self
    }

    /// As [`root_certificates`](Self::root_certificates), from a file that is read on connecting.
    ///
    /// ```
    /// use tinsmith_client::ServiceClient;
    /// let builder = ServiceClient::builder().base_url("https://trainer.example").api_key("tml-key");
    /// let error = builder.root_certificates_file("no/such/ca.pem").connect().unwrap_err();
    /// assert!(error.to_string().contains("root_certificates_file: no/such/ca.pem: "), "{error}");
    /// ```
    pub fn root_certificates_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.network.roots.push(RootSource::File(path.into()));
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
    /// [`Error::Config`] and [`Error::KeyCommand`] for settings that cannot work, at once;
    /// [`Error::Deadline`] when nothing answers at the address within
    /// [`RetryConfig::start_timeout`]; [`Error::Status`] when the server refuses, a wrong key say.
    ///
    /// ```
    /// use tinsmith_client::ServiceClient;
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// let service = ServiceClient::builder()
    ///     .base_url(trainer.url())
    ///     .tags(["first try"])
    ///     .display_name("an example")
    ///     .header("X-Team", "models") // for a gateway, say
    ///     .connect()?;
    /// assert!(!service.session_id().is_empty());
    /// # anyhow::Ok(())
    /// ```
    pub fn connect(self) -> Result<ServiceClient> {
        let api = self.api()?;
        let settings = SessionSettings {
            tags: self.session_tags(),
            flavour: self.flavour,
            user_metadata: self.user_metadata,
            project_id: self.project_id,
            display_name: self.display_name,
        };
        ServiceClient::start(api, settings)
    }

    /// A client for what the server keeps, without a session.
    ///
    /// # Errors
    /// [`Error::Config`] and [`Error::KeyCommand`] for settings that cannot work. Nothing is sent
    /// yet.
    ///
    /// ```
    /// use tinsmith_client::ServiceClient;
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// let rest = ServiceClient::builder().base_url(trainer.url()).rest()?;
    /// assert!(rest.sessions()?.is_empty());
    /// # anyhow::Ok(())
    /// ```
    pub fn rest(self) -> Result<RestClient> {
        Ok(RestClient::new(Arc::new(self.api()?)))
    }

    fn api(&self) -> Result<Api> {
        let service = self.flavour.service;
        let (default_base, key_name) = (service.base_url(), service.key_variable());
        let base = self.base_url.clone().or_else(|| variable("TINKER_BASE_URL"));
        let base = base.as_deref().unwrap_or(default_base);
        let (key, command) = self.credentials(variable);
        let headers = self.all_headers()?;
        let has_key = key.is_some() || command.is_some();
        if !has_key && base == default_base {
            return Err(Error::Config {
                what: "API key",
                reason: format!(
                    "the hosted service needs one: set {key_name}, or api_key on the builder; for another server set \
                     TINKER_BASE_URL"
                ),
            });
        }
        let has_secret = has_key || headers.iter().any(|(name, _)| is_secret(name));
        let address = Address::new(base, has_secret, self.plain_http_allowed)?;
        if key.as_deref().is_some_and(|key| !is_usable(key)) {
            return Err(Error::Config {
                what: "API key",
                reason: "it is empty or holds characters that no key has, such as spaces".into(),
            });
        }
        let route = Route::new(&address.base, self.network.clone(), |name| env::var_os(name))?;
        let retry = self.retry.clone();
        Ok(Api::new(
            Connection::new(address, route, retry.connect_timeout, self.cancel.clone()),
            Auth::new(key, command, headers, self.clock.clone())?,
            retry,
            self.clock.clone(),
            self.progress.clone(),
            self.cancel.clone(),
            service.may_conflict_pass(),
        ))
    }

    /// The key and the command for one, where they were set; else where the environment has them.
    fn credentials(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> (Option<String>, Option<KeyCommand>) {
        let service = self.flavour.service;
        let (key, command) = match (self.api_key.clone(), self.key_command.clone()) {
            (None, None) => (
                variable(service.key_variable()),
                service.key_command_variable().and_then(variable),
            ),
            set => set,
        };
        (key, command.map(KeyCommand))
    }

    /// The headers that were set, and those that the environment asks for.
    fn all_headers(&self) -> Result<Vec<(String, String)>> {
        let gateway = [
            ("CF-Access-Client-Id", "CLOUDFLARE_ACCESS_CLIENT_ID"),
            ("CF-Access-Client-Secret", "CLOUDFLARE_ACCESS_CLIENT_SECRET"),
        ];
        let gateway = gateway
            .into_iter()
            .filter_map(|(header, name)| Some((header.to_owned(), variable(name)?)));
        let all: Vec<(String, String)> = self.headers.iter().cloned().chain(gateway).collect();
        for (name, value) in &all {
            let usable = name.parse::<HeaderName>().is_ok() && HeaderValue::from_str(value).is_ok();
            if !usable {
                return Err(Error::Config {
                    what: "header",
                    reason: format!("{name:?} and its value cannot be sent in HTTP"),
                });
            }
        }
        Ok(all)
    }

    fn session_tags(&self) -> Vec<String> {
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

/// Whether a header of this name holds what nobody may read on the way.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["authorization", "secret", "token", "key", "cookie", "password"]
        .iter()
        .any(|word| name.contains(word))
}

/// An environment variable; empty counts as unset.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_comes_before_what_the_environment_has() {
        let environment = |name: &str| Some(format!("of {name}"));
        let found = |builder: ServiceClientBuilder| {
            let (key, command) = builder.credentials(environment);
            (key, command.map(|command| command.0))
        };
        let of = |key: &str, command: &str| {
            let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            (given(key), given(command))
        };
        let new = ServiceClientBuilder::default;
        assert_eq!(found(new()), of("of TINKER_API_KEY", "of TINKER_CREDENTIAL_CMD"));
        assert_eq!(found(new().fireworks()), of("of FIREWORKS_API_KEY", ""));
        assert_eq!(found(new().api_key("k")), of("k", ""));
        assert_eq!(found(new().key_command("c")), of("", "c"));
        let both = new().api_key("k").key_command("c");
        assert_eq!(found(both), of("k", "c"));
    }
}
