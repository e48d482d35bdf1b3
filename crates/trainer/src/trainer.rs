//! Starting, asking and stopping a trainer in process.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;
use tinsmith_grad::Tensor;
use tinsmith_wire::ClientConfig;
use tokio::runtime::{self, Runtime};

use crate::bases::Bases;
use crate::checkpoint::Store;
use crate::engine::Engine;
use crate::hub::{Hub, Settings};
use crate::server::{self, Keys, Server};
use crate::stats::ModelStats;
use crate::{Error, Result, worker};

/// A running trainer. It stops when dropped; a computation under way ends at its next micro-batch
/// or token.
///
/// ```
/// let trainer = tinsmith_trainer::Trainer::spawn()?;
/// assert!(trainer.url().starts_with("http://127.0.0.1:"));
/// # Ok::<_, tinsmith_trainer::Error>(())
/// ```
pub struct Trainer {
    address: SocketAddr,
    hub: Arc<Hub>,
    runtime: Option<Runtime>,
    worker: Option<JoinHandle<()>>,
    /// Removed when the trainer goes; none when the caller named a folder.
    _scratch: Option<TempDir>,
}

impl fmt::Debug for Trainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Trainer");
        shown.field("address", &self.address).finish_non_exhaustive()
    }
}

/// How to start a [`Trainer`].
///
/// ```
/// use std::time::Duration;
/// use tinsmith_trainer::Trainer;
///
/// let trainer = Trainer::builder().api_key("secret").seed(7).long_poll(Duration::from_secs(1)).spawn()?;
/// # Ok::<_, tinsmith_trainer::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "call spawn"]
pub struct Builder {
    host: String,
    port: u16,
    models: Vec<(String, PathBuf)>,
    state_dir: Option<PathBuf>,
    api_key: Option<String>,
    seed: u64,
    long_poll: Duration,
    session_timeout: Duration,
    body_limit: usize,
    client_config: ClientConfig,
    token_life: Duration,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 0,
            models: Vec::new(),
            state_dir: None,
            api_key: None,
            seed: 0,
            long_poll: Duration::from_secs(20),
            session_timeout: Duration::from_secs(300),
            body_limit: 256 << 20,
            client_config: ClientConfig::default(),
            token_life: Duration::from_secs(3600),
        }
    }
}

impl Builder {
    /// The address to listen on; `127.0.0.1` unless set.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// The port to listen on; 0, any free one, unless set.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Also serves the model in `folder` ([`Model::load`](crate::model::Model::load)), under
    /// `name`; if that is the name of a built-in model, in its place. Can be called for several.
    ///
    /// ```no_run
    /// use tinsmith_trainer::Trainer;
    ///
    /// let trainer = Trainer::builder().model("Qwen/Qwen3-0.6B", "models/Qwen3-0.6B").spawn()?;
    /// assert_eq!(trainer.base_models()[0], "Qwen/Qwen3-0.6B");
    /// # Ok::<_, tinsmith_trainer::Error>(())
    /// ```
    pub fn model(mut self, name: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        self.models.push((name.into(), folder.into()));
        self
    }

    /// The folder of the checkpoints; a scratch folder that goes with the trainer unless set.
    pub fn state_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(folder.into());
        self
    }

    /// The key that every request must carry; none unless set.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// Seed of the base models, and of adapters and samples that bring none; 0 unless set.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How long a poll for a result is held before it is answered "try again"; 20 s unless set.
    pub fn long_poll(mut self, patience: Duration) -> Self {
        self.long_poll = patience;
        self
    }

    /// How long a session lives without a heartbeat, once it has sent one; 300 s unless set. Its
    /// sampling sessions go with it.
    pub fn session_timeout(mut self, silence: Duration) -> Self {
        self.session_timeout = silence;
        self
    }

    /// Longest body in bytes; 256 MiB unless set.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// What clients are told of limits and switches, such as how much goes into one request; the
    /// protocol's defaults unless set. Of the switches that ask something of a server,
    /// `sample_use_retrieve_futures`, `sample_join_sampling_session` and, with an
    /// [`api_key`](Self::api_key), `pjwt_auth_enabled` can be set.
    ///
    /// ```
    /// use tinsmith_trainer::Trainer;
    /// use tinsmith_wire::ClientConfig;
    ///
    /// let small = ClientConfig { fwdbwd_max_chunk_len: 4, ..ClientConfig::default() };
    /// let trainer = Trainer::builder().client_config(small).spawn()?;
    /// # Ok::<_, tinsmith_trainer::Error>(())
    /// ```
    pub fn client_config(mut self, config: ClientConfig) -> Self {
        self.client_config = config;
        self
    }

    /// How long a token is good that a client gets for the key, where the
    /// [`client_config`](Self::client_config) has `pjwt_auth_enabled`; an hour unless set.
    pub fn token_life(mut self, life: Duration) -> Self {
        self.token_life = life;
        self
    }

    /// Starts the trainer; it is listening when this returns.
    ///
    /// # Errors
    /// Those of [`Model::load`](crate::model::Model::load) for a [`model`](Self::model);
    /// [`Error::Bind`] when the address cannot be listened on, [`Error::Io`] when there is no
    /// scratch folder to be had, [`Error::Field`] for a [`client_config`](Self::client_config) that
    /// promises what this trainer does not do.
    pub fn spawn(self) -> Result<Trainer> {
        self.check_promises()?;
        let token_life = self.client_config.pjwt_auth_enabled.then_some(self.token_life);
        let bases = Bases::load(&self.models, self.seed)?;
        let address = format!("{}:{}", self.host, self.port);
        let bind =
            |e: std::io::Error| Error::Bind { address: address.clone(), problem: e.to_string() };
        let listener = TcpListener::bind((self.host.as_str(), self.port)).map_err(bind)?;
        listener.set_nonblocking(true).map_err(bind)?;
        let local = listener.local_addr().map_err(bind)?;

        let (state_dir, scratch) = match self.state_dir {
            Some(folder) => (folder, None),
            None => {
                let scratch = tempfile::Builder::new().prefix("tinsmith-trainer-").tempdir();
                let scratch = scratch
                    .map_err(|e| Error::io("create a folder in", std::env::temp_dir(), &e))?;
                (scratch.path().to_owned(), Some(scratch))
            }
        };
        let start = |e: std::io::Error| Error::Internal(format!("cannot start a thread: {e}"));
        let (sender, jobs) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let engine = Engine::new(Store::new(state_dir.clone()), stop.clone());
        let worker = thread::Builder::new()
            .name("tinsmith-worker".to_owned())
            .spawn(move || worker::run(&jobs, engine))
            .map_err(start)?;
        let hub = Arc::new(Hub::new(
            sender,
            stop,
            state_dir,
            bases,
            Settings {
                seed: self.seed,
                long_poll: self.long_poll,
                session_timeout: self.session_timeout,
                client_config: self.client_config,
            },
        ));

        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("tinsmith-http")
            .enable_all()
            .build()
            .map_err(start)?;
        let keys = Arc::new(Keys::new(self.api_key, token_life));
        let router = server::router(Server { hub: hub.clone(), keys, body_limit: self.body_limit });
        let listener = {
            let _in_runtime = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(bind)?
        };
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Trainer {
            address: local,
            hub,
            runtime: Some(runtime),
            worker: Some(worker),
            _scratch: scratch,
        })
    }

    fn check_promises(&self) -> Result<()> {
        let config = &self.client_config;
        let nothing_to_exchange = config.pjwt_auth_enabled && self.api_key.is_none();
        let broken = [
            ("proto_compress_fwdbwd", config.proto_compress_fwdbwd),
            ("custom_loss_server_side", config.custom_loss_server_side),
            ("pjwt_auth_enabled", nothing_to_exchange),
        ];
        match broken.into_iter().find(|&(_, is_broken)| is_broken) {
            None => Ok(()),
            Some((switch, _)) => Err(Error::field(
                "client_config",
                format!("this trainer cannot keep what `{switch}` promises"),
            )),
        }
    }
}

impl Trainer {
    /// Starts a trainer on a free port of 127.0.0.1, with defaults throughout.
    ///
    /// # Errors
    /// As [`Builder::spawn`].
    pub fn spawn() -> Result<Self> {
        Self::builder().spawn()
    }

    /// A trainer with settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where it listens, such as `http://127.0.0.1:41234`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The models that adapters can be trained on: loaded ones in the order of the builder's calls,
    /// then the built-in ones.
    pub fn base_models(&self) -> Vec<&str> {
        self.hub.base_models()
    }

    /// How many training requests of `model_id` it has accepted and run.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a model it has never had.
    pub fn stats(&self, model_id: &str) -> Result<ModelStats> {
        self.hub.stats(model_id)
    }

    /// The adapter's weights by name, as they are once all requests accepted so far and not waiting
    /// for a gap have run.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a model that is not loaded.
    pub fn weights(&self, model_id: &str) -> Result<Vec<(String, Tensor)>> {
        let id = model_id.to_owned();
        let weights = self.hub.run(move |engine| engine.snapshot(&id))?;
        let named = |(name, tensor): (String, &Tensor)| (name, tensor.clone());
        Ok(weights
            .adapter
            .iter()
            .flat_map(|adapter| adapter.named().map(named).collect::<Vec<_>>())
            .collect())
    }

    /// A digest of [`weights`](Self::weights): equal digests mean bit-identical weights, for all
    /// practical purposes.
    ///
    /// # Errors
    /// As [`weights`](Self::weights).
    pub fn weights_digest(&self, model_id: &str) -> Result<u64> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut digest = DefaultHasher::new();
        for (name, tensor) in self.weights(model_id)? {
            name.hash(&mut digest);
            for x in tensor.flatten_all()?.to_vec1::<f32>()? {
                x.to_bits().hash(&mut digest);
            }
        }
        Ok(digest.finish())
    }

    /// Serves until the process is interrupted (Ctrl-C).
    ///
    /// # Errors
    /// [`Error::Internal`] when the interrupt cannot be listened for.
    pub fn serve_until_interrupted(mut self) -> Result<()> {
        let runtime = self.runtime.take().ok_or(Error::ShuttingDown)?;
        let interrupted = runtime.block_on(tokio::signal::ctrl_c());
        self.runtime = Some(runtime);
        interrupted.map_err(|e| Error::Internal(format!("cannot listen for Ctrl-C: {e}")))
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        self.hub.shut_down();
        if let Some(runtime) = self.runtime.take() {
            // Connections are cut: a client that keeps one open must not keep us.
            runtime.shutdown_background();
        }
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
