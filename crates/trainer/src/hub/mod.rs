//! The trainer's front: checks requests, keeps sessions and order, hands work to the worker thread.
//! No HTTP here.

mod checkpoints;
mod completions;
mod models;
mod runs;
mod sampling;
mod submit;
mod training;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tinsmith_wire::{ClientConfig, RetrieveFutureRequest, Submitted, TryAgain, UserMetadata};
use tokio::sync::Notify;

use self::completions::Ended;
pub(crate) use self::runs::Page;
use self::runs::Run;
use crate::bases::{Base, Bases};
use crate::checkpoint::{Reference, Store};
use crate::engine::{Engine, Weights, unknown_model};
use crate::futures::Futures;
use crate::model::LoraConfig;
use crate::outcome::{Body, Format, Outcome};
use crate::queue::Sequence;
use crate::stats::ModelStats;
use crate::worker::{Job, guarded};
use crate::{Error, Result, random};

/// Longest result that is sent to a client which can reserve memory for it first.
const INLINE_BYTES: usize = 256 << 10;

/// A decoded request and a digest of its body, by which a resend is told from another request.
pub(crate) struct Request<T> {
    pub(crate) body: T,
    pub(crate) digest: u64,
}

pub(crate) struct Hub {
    /// Tells this trainer's ids from those of the one before.
    instance: String,
    settings: Settings,
    store: Store,
    stop: Arc<AtomicBool>,
    bases: Bases,
    futures: Futures,
    sample_ended: Notify,
    state: Mutex<State>,
}

/// What a trainer is started with, apart from its models and folders.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Of adapters and samples that bring none.
    pub(crate) seed: u64,
    /// How long a question for results is held.
    pub(crate) long_poll: Duration,
    /// How long a session lives without a heartbeat, once it has sent one.
    pub(crate) session_timeout: Duration,
    /// What clients are told of limits and switches.
    pub(crate) client_config: ClientConfig,
}

struct State {
    /// `None` once the trainer is shutting down.
    jobs: Option<Sender<Job>>,
    sessions: HashMap<String, Session>,
    models: HashMap<String, Entry>,
    samplers: HashMap<String, Sampler>,
    samplers_made: u64,
    /// In order of creation.
    runs: Vec<Run>,
    stats: HashMap<String, ModelStats>,
    /// How long a session lives without a heartbeat, once it has sent one.
    session_timeout: Duration,
    /// Numbers what has no seed of its own, so that equal requests in equal order draw equal random
    /// numbers.
    unseeded: u64,
}

#[derive(Default)]
struct Session {
    over: bool,
    user_metadata: Option<UserMetadata>,
    /// When the last one came; a session that never sent one does not need them.
    heartbeat: Option<Instant>,
    /// By `model_seq_id`: digest of the request, and its answer.
    models: HashMap<u64, (u64, Submitted)>,
    /// By `sampling_session_seq_id`: digest of the request, and the sampling session.
    samplers: HashMap<u64, (u64, String)>,
}

/// What is known of a model outside the worker.
struct Entry {
    base: Base,
    lora: LoraConfig,
    sequence: Sequence<Job>,
}

struct Sampler {
    weights: Arc<Weights>,
    path: Option<Reference>,
    /// Clients that have joined the first one.
    joined: u64,
    /// By client.
    ended: HashMap<u64, Ended>,
    /// By `seq_id`: digest of the request, and its answer.
    answered: HashMap<u64, (u64, String)>,
}

impl Hub {
    pub(crate) fn new(
        jobs: Sender<Job>,
        stop: Arc<AtomicBool>,
        state_dir: PathBuf,
        bases: Bases,
        settings: Settings,
    ) -> Self {
        let session_timeout = settings.session_timeout;
        Self {
            instance: instance(),
            settings,
            store: Store::new(state_dir),
            stop,
            bases,
            futures: Futures::default(),
            sample_ended: Notify::new(),
            state: Mutex::new(State {
                jobs: Some(jobs),
                sessions: HashMap::new(),
                models: HashMap::new(),
                samplers: HashMap::new(),
                samplers_made: 0,
                runs: Vec::new(),
                session_timeout,
                stats: HashMap::new(),
                unseeded: 0,
            }),
        }
    }

    pub(crate) fn shut_down(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.lock().jobs = None;
    }

    pub(crate) fn client_config(&self) -> &ClientConfig {
        &self.settings.client_config
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left no half-made change behind that matters more than going
        // on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job that answers the future `request_id`.
    fn job(
        self: &Arc<Self>,
        request_id: String,
        work: impl FnOnce(&mut Engine, &Self) -> Result<Outcome> + Send + 'static,
    ) -> Job {
        let hub = Arc::downgrade(self);
        Box::new(move |engine| {
            let Some(hub) = hub.upgrade() else {
                return;
            };
            let outcome = Outcome::of(guarded(engine, |engine| work(engine, &hub)));
            hub.futures.finish(&request_id, outcome);
        })
    }

    /// The answer to a poll, results in `format`.
    pub(crate) async fn retrieve(
        &self,
        request: RetrieveFutureRequest,
        format: Format,
    ) -> Result<Body> {
        let RetrieveFutureRequest { request_id, allow_metadata_only } = request;
        let waited = self.futures.wait(&request_id, &self.instance, self.settings.long_poll);
        if let Some(finished) = waited.await? {
            let body = finished.body(format)?;
            return match allow_metadata_only && body.bytes.len() > INLINE_BYTES {
                true => Body::json(&serde_json::json!({
                    "status": "complete_metadata",
                    "request_id": request_id,
                    "response_payload_size": body.bytes.len(),
                })),
                false => Ok(body),
            };
        }
        let gap = self.futures.place(&request_id).and_then(|(model_id, seq_id)| {
            let gap = self.lock().models.get(&model_id)?.sequence.gap()?;
            (gap < seq_id).then(|| format!("waiting for the request with seq_id {gap} of model {model_id}, which has not arrived"))
        });
        Body::json(&TryAgain {
            request_id: Some(request_id),
            queue_state: Some("active".to_owned()),
            queue_state_reason: gap,
        })
    }

    pub(crate) fn stats(&self, model_id: &str) -> Result<ModelStats> {
        let stats = self.lock().stats.get(model_id).copied();
        stats.ok_or_else(|| unknown_model(model_id))
    }

    /// Runs `work` after everything that has been handed to the worker so far.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let (reply, answer) = std::sync::mpsc::channel();
        let job: Job = Box::new(move |engine| {
            let _ = reply.send(guarded(engine, work));
        });
        self.lock().send(job)?;
        answer.recv().unwrap_or(Err(Error::ShuttingDown))
    }

    fn count(&self, model_id: &str, add: impl FnOnce(&mut ModelStats)) {
        if let Some(stats) = self.lock().stats.get_mut(model_id) {
            add(stats);
        }
    }

    fn next_seed(&self, state: &mut State) -> u64 {
        state.unseeded += 1;
        random::derive(self.settings.seed, &format!("unseeded {}", state.unseeded))
    }
}

impl State {
    fn session(&mut self, id: &str) -> Result<&mut Session> {
        let silent = |session: &Session| {
            let last = session.heartbeat;
            last.is_some_and(|last| last.elapsed() > self.session_timeout)
        };
        if self.sessions.get(id).is_some_and(silent) {
            self.end_session(id);
        }
        match self.sessions.get_mut(id) {
            Some(session) if session.over => {
                Err(Error::Gone(format!("session `{id}` is over; create another")))
            }
            Some(session) => Ok(session),
            None => Err(Error::NotFound {
                kind: "session",
                id: id.to_owned(),
                hint: "create_session makes one; those of a restarted trainer are gone".to_owned(),
            }),
        }
    }

    fn end_session(&mut self, id: &str) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.over = true;
        }
        let theirs = format!("{id}:sample:");
        self.samplers.retain(|id, _| !id.starts_with(&theirs));
    }

    fn model(&mut self, id: &str) -> Result<&mut Entry> {
        self.models.get_mut(id).ok_or_else(|| unknown_model(id))
    }

    fn sampler(&mut self, id: &str) -> Result<&mut Sampler> {
        self.samplers.get_mut(id).ok_or_else(|| Error::NotFound {
            kind: "sampling session",
            id: id.to_owned(),
            hint: "create_sampling_session and save_weights_for_sampler make one".to_owned(),
        })
    }

    fn add_sampler(&mut self, session_id: &str, sampler: Sampler) -> String {
        let id = format!("{session_id}:sample:{}", self.samplers_made);
        self.samplers_made += 1;
        self.samplers.insert(id.clone(), sampler);
        id
    }

    fn send(&self, job: Job) -> Result<()> {
        let jobs = self.jobs.as_ref().ok_or(Error::ShuttingDown)?;
        jobs.send(job).map_err(|_| Error::ShuttingDown)
    }
}

fn reused(field: &str, id: u64) -> Error {
    Error::Conflict(format!(
        "{field} {id} has been used for another request; a new request takes the next number"
    ))
}

/// A name for this trainer that no other one is likely to have.
fn instance() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:08x}", RandomState::new().hash_one("trainer") as u32)
}
