//! The trainer's front: checks requests, keeps sessions and order, hands work to the worker thread. No HTTP here.

use std::collections::HashMap;
use std::fs::Metadata;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tinsmith_grad::DType;
use tinsmith_wire::{
    CreateModelRequest, CreateModelResponse, CreateSamplingSessionRequest,
    CreateSamplingSessionResponse, CreateSessionResponse, ForwardBackwardInput, FutureReply,
    GetInfoResponse, LoadWeightsRequest, LoadWeightsResponse, ModelData, OptimStepRequest,
    RequestFailed, RetrieveFutureRequest, SampleRequest, SamplingParams,
    SaveWeightsForSamplerRequest, SaveWeightsForSamplerResponse, SaveWeightsRequest,
    SaveWeightsResponse, ServerCapabilities, Stop, Submitted, SupportedModel, TryAgain,
    UnloadModelResponse, WeightsInfoResponse, json,
};

use crate::batch::{Example, check_tokens};
use crate::checkpoint::{Kind, Reference, Store};
use crate::engine::{Base, Engine, Weights, unknown_model};
use crate::futures::Futures;
use crate::loss::Loss;
use crate::model::{Choice, Generate, LoraConfig, Model, ModelConfig, PRESETS};
use crate::queue::Sequence;
use crate::stats::{ModelStats, Operation};
use crate::timestamp::timestamp;
use crate::worker::{Job, guarded};
use crate::{Error, Result, random};

/// Largest rank of an adapter.
const MAX_RANK: u32 = 1024;
/// Most continuations of one sample request.
const MAX_SAMPLES: u32 = 1024;

/// A decoded request and a digest of its body, by which a resend is told from another request.
pub(crate) struct Request<T> {
    pub(crate) body: T,
    pub(crate) digest: u64,
}

pub(crate) struct Hub {
    /// Tells this trainer's ids from those of the one before.
    instance: String,
    seed: u64,
    long_poll: Duration,
    store: Store,
    stop: Arc<AtomicBool>,
    bases: [OnceLock<Arc<Model>>; PRESETS.len()],
    futures: Futures,
    state: Mutex<State>,
}

struct State {
    /// `None` once the trainer is shutting down.
    jobs: Option<Sender<Job>>,
    sessions: HashMap<String, Session>,
    models: HashMap<String, Entry>,
    samplers: HashMap<String, Sampler>,
    samplers_made: u64,
    stats: HashMap<String, ModelStats>,
    /// Numbers what has no seed of its own, so that equal requests in equal order draw equal random numbers.
    unseeded: u64,
}

#[derive(Default)]
struct Session {
    over: bool,
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
    /// By `seq_id`: digest of the request, and its answer.
    answered: HashMap<u64, (u64, String)>,
}

impl Hub {
    pub(crate) fn new(
        jobs: Sender<Job>,
        stop: Arc<AtomicBool>,
        state_dir: PathBuf,
        seed: u64,
        long_poll: Duration,
    ) -> Self {
        Self {
            instance: instance(),
            seed,
            long_poll,
            store: Store::new(state_dir),
            stop,
            bases: Default::default(),
            futures: Futures::default(),
            state: Mutex::new(State {
                jobs: Some(jobs),
                sessions: HashMap::new(),
                models: HashMap::new(),
                samplers: HashMap::new(),
                samplers_made: 0,
                stats: HashMap::new(),
                unseeded: 0,
            }),
        }
    }

    pub(crate) fn shut_down(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.lock().jobs = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left no half-made change behind that matters more than going on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Sessions and models.

    pub(crate) fn capabilities(&self) -> ServerCapabilities {
        let supported = |name: &&str| SupportedModel {
            model_name: (*name).to_owned(),
            max_context_length: ModelConfig::preset(name).map(|c| c.max_position_embeddings as u64),
            trainable: Some(true),
            sampleable: Some(true),
        };
        ServerCapabilities {
            supported_models: PRESETS.iter().map(supported).collect(),
        }
    }

    pub(crate) fn create_session(&self) -> CreateSessionResponse {
        let mut state = self.lock();
        let session_id = format!("{}-s{}", self.instance, state.sessions.len());
        state
            .sessions
            .insert(session_id.clone(), Session::default());
        CreateSessionResponse {
            session_id,
            ..Default::default()
        }
    }

    pub(crate) fn heartbeat(&self, session_id: &str) -> Result<()> {
        self.lock().session(session_id).map(|_| ())
    }

    pub(crate) fn finish_session(&self, session_id: &str) -> Result<()> {
        let mut state = self.lock();
        // The first call wins; a second one changes nothing.
        match state.session(session_id) {
            Ok(session) => session.over = true,
            Err(Error::Gone(_)) => {}
            Err(error) => return Err(error),
        }
        let theirs = format!("{session_id}:sample:");
        state.samplers.retain(|id, _| !id.starts_with(&theirs));
        Ok(())
    }

    pub(crate) fn create_model(
        self: &Arc<Self>,
        request: Request<CreateModelRequest>,
    ) -> Result<Submitted> {
        let Request { body, digest } = request;
        let mut state = self.lock();
        let session = state.session(&body.session_id)?;
        if let Some((first, answer)) = session.models.get(&body.model_seq_id) {
            return match *first == digest {
                true => Ok(answer.clone()),
                false => Err(reused("model_seq_id", body.model_seq_id)),
            };
        }
        let base = self.base(&body.base_model)?;
        let wanted = &body.lora_config;
        if !(1..=MAX_RANK).contains(&wanted.rank) {
            return Err(Error::field(
                "lora_config.rank",
                format!("{} is not between 1 and {MAX_RANK}", wanted.rank),
            ));
        }
        if !(wanted.train_attn || wanted.train_mlp || wanted.train_unembed) {
            return Err(Error::field(
                "lora_config",
                "train_attn, train_mlp and train_unembed are all false; nothing would be trained",
            ));
        }
        let lora = LoraConfig {
            rank: wanted.rank as usize,
            seed: wanted.seed.unwrap_or_else(|| self.next_seed(&mut state)),
            train_attn: wanted.train_attn,
            train_mlp: wanted.train_mlp,
            train_unembed: wanted.train_unembed,
        };

        let model_id = format!("{}:train:{}", body.session_id, body.model_seq_id);
        let request_id = self.futures.issue(&self.instance, None);
        let answer = Submitted {
            request_id: request_id.clone(),
            model_id: Some(model_id.clone()),
        };
        let entry = Entry {
            base: base.clone(),
            lora,
            sequence: Sequence::default(),
        };
        state.models.insert(model_id.clone(), entry);
        state.stats.insert(model_id.clone(), ModelStats::default());
        state
            .session(&body.session_id)?
            .models
            .insert(body.model_seq_id, (digest, answer.clone()));
        let job = self.job(request_id, move |engine, _| {
            engine.create_model(&model_id, base, lora)?;
            Ok(CreateModelResponse { model_id })
        });
        state.send(job)?;
        Ok(answer)
    }

    pub(crate) fn get_info(&self, model_id: &str) -> Result<GetInfoResponse> {
        let mut state = self.lock();
        let entry = state.model(model_id)?;
        Ok(GetInfoResponse {
            model_id: model_id.to_owned(),
            model_data: ModelData {
                arch: Some("qwen3".to_owned()),
                model_name: Some(entry.base.name.clone()),
                tokenizer_id: Some(entry.base.name.clone()),
            },
            is_lora: Some(true),
            lora_rank: u32::try_from(entry.lora.rank).ok(),
            model_name: Some(entry.base.name.clone()),
        })
    }

    pub(crate) fn unload_model(self: &Arc<Self>, model_id: String) -> Result<Submitted> {
        let mut state = self.lock();
        let waiting = state.model(&model_id)?.sequence.drain();
        state.models.remove(&model_id);
        let request_id = self.futures.issue(&self.instance, None);
        let answer = Submitted {
            request_id: request_id.clone(),
            model_id: Some(model_id.clone()),
        };
        let job = self.job(request_id, move |engine, _| {
            engine.unload_model(&model_id);
            Ok(UnloadModelResponse { model_id })
        });
        state.send(job)?;
        // What waited behind a gap now fails, as there is no model, rather than wait for ever.
        waiting.into_iter().try_for_each(|job| state.send(job))?;
        Ok(answer)
    }

    // Training requests: each has its place in the model's sequence.

    pub(crate) fn pass(
        self: &Arc<Self>,
        model_id: String,
        seq_id: u64,
        input: Request<ForwardBackwardInput>,
        backward: bool,
    ) -> Result<Submitted> {
        let operation = match backward {
            true => Operation::ForwardBackward,
            false => Operation::Forward,
        };
        let id = model_id.clone();
        self.submit(&model_id, seq_id, input.digest, operation, |entry| {
            let loss = Loss::parse(&input.body.loss_fn, input.body.loss_fn_config.as_ref())?;
            let examples = Example::parse_all(&input.body.data, &loss, entry.config())?;
            Ok(move |engine: &mut Engine, _: &Self| match backward {
                true => engine.forward_backward(&id, &examples, &loss),
                false => engine.forward(&id, &examples, &loss),
            })
        })
    }

    pub(crate) fn optim_step(
        self: &Arc<Self>,
        request: Request<OptimStepRequest>,
    ) -> Result<Submitted> {
        let Request { body, digest } = request;
        let id = body.model_id.clone();
        self.submit(
            &body.model_id,
            body.seq_id,
            digest,
            Operation::OptimStep,
            |_| {
                let adam = body.adam_params;
                let ranges = [
                    (
                        "adam_params.learning_rate",
                        adam.learning_rate,
                        0.0..f64::INFINITY,
                    ),
                    ("adam_params.beta1", adam.beta1, 0.0..1.0),
                    ("adam_params.beta2", adam.beta2, 0.0..1.0),
                    ("adam_params.eps", adam.eps, 0.0..f64::INFINITY),
                    (
                        "adam_params.weight_decay",
                        adam.weight_decay,
                        0.0..f64::INFINITY,
                    ),
                    (
                        "adam_params.grad_clip_norm",
                        adam.grad_clip_norm,
                        0.0..f64::INFINITY,
                    ),
                ];
                for (field, value, range) in ranges {
                    if !range.contains(&value) {
                        return Err(Error::field(
                            field,
                            format!("{value} is not in [{}, {})", range.start, range.end),
                        ));
                    }
                }
                Ok(move |engine: &mut Engine, _: &Self| engine.optim_step(&id, &adam))
            },
        )
    }

    pub(crate) fn save_weights(
        self: &Arc<Self>,
        request: Request<SaveWeightsRequest>,
    ) -> Result<Submitted> {
        let Request { body, digest } = request;
        let id = body.model_id.clone();
        self.submit(
            &body.model_id,
            body.seq_id,
            digest,
            Operation::Other,
            |_| {
                let name = body
                    .path
                    .as_deref()
                    .ok_or_else(|| Error::field("path", "missing; give the checkpoint a name"))?;
                let at = Reference::new(&id, Kind::Training, name)?;
                Ok(move |engine: &mut Engine, _: &Self| {
                    engine.save(&id, &at, body.overwrite)?;
                    Ok(SaveWeightsResponse {
                        path: at.to_string(),
                    })
                })
            },
        )
    }

    pub(crate) fn load_weights(
        self: &Arc<Self>,
        request: Request<LoadWeightsRequest>,
    ) -> Result<Submitted> {
        let Request { body, digest } = request;
        let id = body.model_id.clone();
        self.submit(
            &body.model_id,
            body.seq_id,
            digest,
            Operation::Other,
            |_| {
                let at: Reference = body.path.parse()?;
                Ok(move |engine: &mut Engine, _: &Self| {
                    engine.load(&id, &at, body.optimizer)?;
                    Ok(LoadWeightsResponse {
                        path: Some(at.to_string()),
                        model_id: Some(id),
                    })
                })
            },
        )
    }

    pub(crate) fn save_weights_for_sampler(
        self: &Arc<Self>,
        request: Request<SaveWeightsForSamplerRequest>,
    ) -> Result<Submitted> {
        let Request { body, digest } = request;
        let id = body.model_id.clone();
        self.submit(
            &body.model_id,
            body.seq_id,
            digest,
            Operation::Other,
            |_| {
                let at = body
                    .path
                    .as_deref()
                    .map(|name| Reference::new(&id, Kind::Sampler, name))
                    .transpose()?;
                Ok(move |engine: &mut Engine, hub: &Self| {
                    let Some(at) = at else {
                        let sampler = Sampler::new(engine.snapshot(&id)?, None);
                        let session = id.split(":train:").next().unwrap_or(&id);
                        return Ok(SaveWeightsForSamplerResponse {
                            path: None,
                            sampling_session_id: Some(hub.lock().add_sampler(session, sampler)),
                        });
                    };
                    engine.save(&id, &at, true)?;
                    Ok(SaveWeightsForSamplerResponse {
                        path: Some(at.to_string()),
                        sampling_session_id: None,
                    })
                })
            },
        )
    }

    /// Checks a training request with `prepare`, which gives what to run, and queues it at its place.
    fn submit<R, W, P>(
        self: &Arc<Self>,
        model_id: &str,
        seq_id: u64,
        digest: u64,
        operation: Operation,
        prepare: P,
    ) -> Result<Submitted>
    where
        R: Serialize,
        W: FnOnce(&mut Engine, &Self) -> Result<R> + Send + 'static,
        P: FnOnce(&Base) -> Result<W>,
    {
        let answer = |request_id: &str| Submitted {
            request_id: request_id.to_owned(),
            model_id: Some(model_id.to_owned()),
        };
        let base = {
            let mut state = self.lock();
            let entry = state.model(model_id)?;
            if let Some(first) = entry.sequence.repeated(seq_id, digest)? {
                return Ok(answer(first));
            }
            entry.base.clone()
        };
        let work = prepare(&base);

        let mut state = self.lock();
        let entry = state.model(model_id)?;
        let work = match work {
            Ok(work) => work,
            Err(error) => {
                entry.sequence.refuse(seq_id);
                return Err(error);
            }
        };
        // Twin requests may both have come this far; one of them is the first.
        if let Some(first) = entry.sequence.repeated(seq_id, digest)? {
            return Ok(answer(first));
        }
        let request_id = self
            .futures
            .issue(&self.instance, Some((model_id.to_owned(), seq_id)));
        let counted = model_id.to_owned();
        let job = self.job(request_id.clone(), move |engine, hub| {
            let result = work(engine, hub)?;
            hub.count(&counted, |stats| stats.executed.add(operation));
            Ok(result)
        });
        entry
            .sequence
            .accept(seq_id, digest, request_id.clone(), job);
        while let Some(job) = state.model(model_id)?.sequence.pop() {
            state.send(job)?;
        }
        drop(state);
        self.count(model_id, |stats| stats.received.add(operation));
        Ok(answer(&request_id))
    }

    /// A job that answers the future `request_id`.
    fn job<R: Serialize>(
        self: &Arc<Self>,
        request_id: String,
        work: impl FnOnce(&mut Engine, &Self) -> Result<R> + Send + 'static,
    ) -> Job {
        let hub = Arc::downgrade(self);
        Box::new(move |engine| {
            let Some(hub) = hub.upgrade() else {
                return;
            };
            let result = guarded(engine, |engine| Ok(json::to_vec(&work(engine, &hub)?)?));
            let body = result.unwrap_or_else(|error| {
                let failed = RequestFailed {
                    error: error.to_string(),
                    category: error.category(),
                };
                json::to_vec(&failed).unwrap_or_default()
            });
            hub.futures.finish(&request_id, body);
        })
    }

    /// The body of a future's answer.
    pub(crate) async fn retrieve(&self, request: RetrieveFutureRequest) -> Result<Vec<u8>> {
        let RetrieveFutureRequest { request_id, .. } = request;
        if let Some(body) = self
            .futures
            .wait(&request_id, &self.instance, self.long_poll)
            .await?
        {
            return Ok(body);
        }
        let gap = self.futures.place(&request_id).and_then(|(model_id, seq_id)| {
            let gap = self.lock().models.get(&model_id)?.sequence.gap()?;
            (gap < seq_id).then(|| format!("waiting for the request with seq_id {gap} of model {model_id}, which has not arrived"))
        });
        let pending = FutureReply::<()>::TryAgain(TryAgain {
            request_id: Some(request_id),
            queue_state: Some("active".to_owned()),
            queue_state_reason: gap,
        });
        Ok(json::to_vec(&pending)?)
    }

    // Sampling.

    pub(crate) fn create_sampling_session(
        &self,
        request: Request<CreateSamplingSessionRequest>,
    ) -> Result<CreateSamplingSessionResponse> {
        let Request { body, digest } = request;
        let answer = |sampling_session_id| {
            Ok(CreateSamplingSessionResponse {
                sampling_session_id,
            })
        };
        let repeated = |state: &mut State| match state
            .session(&body.session_id)?
            .samplers
            .get(&body.sampling_session_seq_id)
        {
            Some((first, id)) if *first == digest => Ok(Some(id.clone())),
            Some(_) => Err(reused(
                "sampling_session_seq_id",
                body.sampling_session_seq_id,
            )),
            None => Ok(None),
        };
        if let Some(id) = repeated(&mut self.lock())? {
            return answer(id);
        }
        let sampler = self.sampler(body.base_model.as_deref(), body.model_path.as_deref())?;
        let mut state = self.lock();
        if let Some(id) = repeated(&mut state)? {
            return answer(id);
        }
        let id = state.add_sampler(&body.session_id, sampler);
        let samplers = &mut state.session(&body.session_id)?.samplers;
        samplers.insert(body.sampling_session_seq_id, (digest, id.clone()));
        answer(id)
    }

    /// `sampler_id`, `base_model` and `model_path` of a sampling session.
    pub(crate) fn sampler_info(&self, id: &str) -> Result<serde_json::Value> {
        let mut state = self.lock();
        let sampler = state.sampler(id)?;
        let mut info =
            serde_json::json!({"sampler_id": id, "base_model": sampler.weights.base.name});
        if let Some(path) = &sampler.path {
            info["model_path"] = path.to_string().into();
        }
        Ok(info)
    }

    pub(crate) fn sample(self: &Arc<Self>, request: Request<SampleRequest>) -> Result<Submitted> {
        let Request { body, digest } = request;
        let place = body.sampling_session_id.as_deref().zip(body.seq_id);
        let weights = match &body.sampling_session_id {
            Some(id) => self.lock().sampler(id)?.weights.clone(),
            None => {
                self.sampler(body.base_model.as_deref(), body.model_path.as_deref())?
                    .weights
            }
        };
        let mut generate = generate(&body, weights.base.config())?;

        let mut state = self.lock();
        let answer = |request_id: String| {
            Ok(Submitted {
                request_id,
                model_id: None,
            })
        };
        if let Some((id, seq_id)) = place {
            match state.sampler(id)?.answered.get(&seq_id) {
                Some((first, request_id)) if *first == digest => return answer(request_id.clone()),
                Some(_) => return Err(reused("seq_id", seq_id)),
                None => {}
            }
        }
        let request_id = self.futures.issue(&self.instance, None);
        if let Some((id, seq_id)) = place {
            state
                .sampler(id)?
                .answered
                .insert(seq_id, (digest, request_id.clone()));
        }
        generate.seed = body
            .sampling_params
            .seed
            .unwrap_or_else(|| self.next_seed(&mut state));
        let job = self.job(request_id.clone(), move |engine, _| {
            engine.sample(&weights, &generate)
        });
        state.send(job)?;
        answer(request_id)
    }

    /// Weights by the name of a base model or of a checkpoint.
    fn sampler(&self, base_model: Option<&str>, model_path: Option<&str>) -> Result<Sampler> {
        let Some(path) = model_path else {
            let name = base_model.ok_or_else(|| {
                Error::field(
                    "base_model",
                    "missing; name a base model, or a checkpoint as `model_path`",
                )
            })?;
            let base = self.base(name)?;
            return Ok(Sampler::new(
                Weights {
                    base,
                    adapter: None,
                },
                None,
            ));
        };
        let at: Reference = path.parse()?;
        let loaded = self.store.load(&at, ModelConfig::preset)?;
        let base = self.base(&loaded.info.base_model)?;
        if loaded.info.base_seed != base.seed {
            let problem = format!(
                "{at} was trained on base seed {}, this trainer has {}",
                loaded.info.base_seed, base.seed
            );
            return Err(Error::field("model_path", problem));
        }
        let weights = Weights {
            base,
            adapter: Some(loaded.adapter),
        };
        Ok(Sampler::new(weights, Some(at)))
    }

    // Checkpoints.

    pub(crate) fn weights_info(&self, path: &str) -> Result<WeightsInfoResponse> {
        let info = self.store.load(&path.parse()?, ModelConfig::preset)?.info;
        Ok(WeightsInfoResponse {
            base_model: info.base_model,
            is_lora: true,
            lora_rank: u32::try_from(info.lora.rank).ok(),
            train_unembed: Some(info.lora.train_unembed),
            train_mlp: Some(info.lora.train_mlp),
            train_attn: Some(info.lora.train_attn),
        })
    }

    /// Training checkpoints and sampler weights of a model, by path.
    pub(crate) fn checkpoints(&self, model_id: &str) -> Result<serde_json::Value> {
        let describe = |(at, file): &(Reference, Metadata)| {
            serde_json::json!({
                "checkpoint_id": format!("{}/{}", at.kind.folder(), at.name),
                "checkpoint_type": at.kind.name(),
                "time": file.modified().ok().map(timestamp),
                "tinker_path": at.to_string(),
                "size_bytes": file.len(),
            })
        };
        let found = self.store.list(model_id)?;
        Ok(serde_json::json!({"checkpoints": found.iter().map(describe).collect::<Vec<_>>()}))
    }

    /// Deletes the checkpoint `{weights|sampler_weights}/{name}` of a model.
    pub(crate) fn delete_checkpoint(&self, model_id: &str, checkpoint_id: &str) -> Result<()> {
        let at: Reference = format!("tinker://{model_id}/{checkpoint_id}").parse()?;
        self.store.delete(&at)
    }

    // For the trainer's owner.

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

    fn base(&self, name: &str) -> Result<Base> {
        let at = PRESETS.iter().position(|preset| *preset == name);
        let (Some(at), Some(config)) = (at, ModelConfig::preset(name)) else {
            let problem = format!(
                "no model `{name}` on this trainer; it has {}",
                PRESETS.join(", ")
            );
            return Err(Error::field("base_model", problem));
        };
        let model = match self.bases[at].get() {
            Some(model) => model.clone(),
            None => {
                let made = Arc::new(Model::random(config, self.seed, DType::F32)?);
                self.bases[at].get_or_init(|| made).clone()
            }
        };
        Ok(Base {
            name: name.to_owned(),
            seed: self.seed,
            model,
        })
    }

    fn next_seed(&self, state: &mut State) -> u64 {
        state.unseeded += 1;
        random::derive(self.seed, &format!("unseeded {}", state.unseeded))
    }
}

impl State {
    fn session(&mut self, id: &str) -> Result<&mut Session> {
        match self.sessions.get_mut(id) {
            Some(session) if session.over => Err(Error::Gone(format!(
                "session `{id}` is over; create another"
            ))),
            Some(session) => Ok(session),
            None => Err(Error::NotFound {
                kind: "session",
                id: id.to_owned(),
                hint: "create_session makes one; those of a restarted trainer are gone".to_owned(),
            }),
        }
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

impl Sampler {
    fn new(weights: Weights, path: Option<Reference>) -> Self {
        Self {
            weights: Arc::new(weights),
            path,
            answered: HashMap::new(),
        }
    }
}

fn reused(field: &str, id: u64) -> Error {
    Error::Conflict(format!(
        "{field} {id} has been used for another request; a new request takes the next number"
    ))
}

/// A checked sampling request, but for the seed.
fn generate(request: &SampleRequest, config: &ModelConfig) -> Result<Generate> {
    let prompt = check_tokens(request.prompt.tokens(), config)
        .map_err(|problem| Error::field("prompt", problem))?;
    let SamplingParams {
        max_tokens,
        stop,
        temperature,
        top_k,
        top_p,
        ..
    } = &request.sampling_params;
    if !(1..=MAX_SAMPLES).contains(&request.num_samples) {
        return Err(Error::field(
            "num_samples",
            format!("{} is not between 1 and {MAX_SAMPLES}", request.num_samples),
        ));
    }
    if !(0.0..f64::INFINITY).contains(temperature) {
        return Err(Error::field(
            "sampling_params.temperature",
            format!("{temperature} must be 0 or more"),
        ));
    }
    if !(*top_p > 0.0 && *top_p <= 1.0) {
        return Err(Error::field(
            "sampling_params.top_p",
            format!("{top_p} is not in (0, 1]"),
        ));
    }
    let room = config.max_position_embeddings - prompt.len();
    let (stop_tokens, stop_strings) = match stop {
        None => (vec![config.eos_token_id], Vec::new()),
        Some(Stop::Tokens(tokens)) => (tokens.clone(), Vec::new()),
        Some(Stop::Strings(strings)) => (
            Vec::new(),
            strings.iter().map(|s| s.clone().into_bytes()).collect(),
        ),
    };
    let choice = Choice {
        temperature: *temperature,
        top_k: usize::try_from(*top_k).unwrap_or(0),
        top_p: *top_p,
    };
    Ok(Generate {
        num_samples: request.num_samples as usize,
        stop_tokens,
        stop_strings,
        prompt_logprobs: request.prompt_logprobs,
        top_prompt_logprobs: request.topk_prompt_logprobs as usize,
        ..Generate::new(
            prompt,
            max_tokens.map_or(room, |n| room.min(n as usize)),
            choice,
        )
    })
}

/// A name for this trainer that no other one is likely to have.
fn instance() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:08x}", RandomState::new().hash_one("trainer") as u32)
}
