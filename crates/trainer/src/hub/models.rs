//! Sessions and the models in them.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tinsmith_wire::{
    CreateByLoadRequest, CreateModelRequest, CreateModelResponse, CreateSessionRequest,
    CreateSessionResponse, GetInfoResponse, LoadWeightsResponse, ModelData, OptimizerConfig,
    ServerCapabilities, Submitted, SupportedModel, UnloadModelResponse, UserMetadata,
};

use super::{Entry, Hub, Request, Run, Session, reused};
use crate::checkpoint::Reference;
use crate::engine::Engine;
use crate::model::LoraConfig;
use crate::outcome::Outcome;
use crate::queue::Sequence;
use crate::stats::ModelStats;
use crate::{Error, Result};

/// A model to be taken in.
struct New {
    session_id: String,
    model_seq_id: u64,
    digest: u64,
    entry: Entry,
    user_metadata: Option<UserMetadata>,
}

fn check_optimizer(config: Option<&OptimizerConfig>) -> Result<()> {
    match config {
        None | Some(OptimizerConfig::AdamW) => Ok(()),
        Some(_) => Err(Error::field(
            "optimizer_config",
            "models here are trained with AdamW; leave it out or send {\"type\": \"adamw\"}",
        )),
    }
}

/// Largest rank of an adapter.
const MAX_RANK: u32 = 1024;

impl Hub {
    pub(crate) fn capabilities(&self) -> ServerCapabilities {
        let supported = |name: &str| SupportedModel {
            model_name: name.to_owned(),
            max_context_length: self.bases.config(name).map(|c| c.max_position_embeddings as u64),
            trainable: Some(true),
            sampleable: Some(true),
        };
        ServerCapabilities {
            supported_models: self.bases.names().into_iter().map(supported).collect(),
        }
    }

    pub(crate) fn base_models(&self) -> Vec<&str> {
        self.bases.names()
    }

    pub(crate) fn create_session(&self, request: CreateSessionRequest) -> CreateSessionResponse {
        let mut state = self.lock();
        let session_id = format!("{}-s{}", self.instance, state.sessions.len());
        let notes = request.user_metadata;
        let session =
            Session { user_metadata: (!notes.is_empty()).then_some(notes), ..Session::default() };
        state.sessions.insert(session_id.clone(), session);
        CreateSessionResponse { session_id, ..Default::default() }
    }

    pub(crate) fn heartbeat(&self, session_id: &str) -> Result<()> {
        self.lock().session(session_id)?.heartbeat = Some(Instant::now());
        Ok(())
    }

    pub(crate) fn finish_session(&self, session_id: &str) -> Result<()> {
        let mut state = self.lock();
        // The first call wins; a second one changes nothing.
        match state.session(session_id) {
            Ok(_) => state.end_session(session_id),
            Err(Error::Gone(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(crate) fn create_model(
        self: &Arc<Self>,
        request: Request<CreateModelRequest>,
    ) -> Result<Submitted> {
        let Request { body, digest } = request;
        if let Some(answer) = self.created(&body.session_id, body.model_seq_id, digest)? {
            return Ok(answer);
        }
        check_optimizer(body.optimizer_config.as_ref())?;
        let base = self.bases.get(&body.base_model)?;
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
        let seed = wanted.seed.unwrap_or_else(|| self.next_seed(&mut self.lock()));
        let lora = LoraConfig {
            rank: wanted.rank as usize,
            seed,
            train_attn: wanted.train_attn,
            train_mlp: wanted.train_mlp,
            train_unembed: wanted.train_unembed,
        };
        let new = New {
            session_id: body.session_id,
            model_seq_id: body.model_seq_id,
            digest,
            entry: Entry { base: base.clone(), lora, sequence: Sequence::default() },
            user_metadata: body.user_metadata,
        };
        self.add_model(new, move |engine, model_id| {
            engine.create_model(&model_id, base, lora)?;
            Outcome::json(&CreateModelResponse { model_id })
        })
    }

    /// A new model that goes on from a checkpoint, with its LoRA configuration.
    pub(crate) fn create_by_load(
        self: &Arc<Self>,
        request: Request<CreateByLoadRequest>,
    ) -> Result<Submitted> {
        let Request { body, digest } = request;
        if let Some(answer) = self.created(&body.session_id, body.model_seq_id, digest)? {
            return Ok(answer);
        }
        check_optimizer(body.optimizer_config.as_ref())?;
        let at: Reference = body.path.parse()?;
        let info = self.store.load(&at, |name| self.bases.config(name))?.info;
        if let Some(wanted) = body.base_model.filter(|wanted| *wanted != info.base_model) {
            let problem = format!("{at} was trained on `{}`, not on `{wanted}`", info.base_model);
            return Err(Error::field("base_model", problem));
        }
        let base = self.bases.get(&info.base_model)?;
        let new = New {
            session_id: body.session_id,
            model_seq_id: body.model_seq_id,
            digest,
            entry: Entry { base: base.clone(), lora: info.lora, sequence: Sequence::default() },
            user_metadata: body.user_metadata,
        };
        self.add_model(new, move |engine, model_id| {
            engine.create_model(&model_id, base, info.lora)?;
            if let Err(error) = engine.load(&model_id, &at, body.optimizer) {
                engine.unload_model(&model_id);
                return Err(error);
            }
            Outcome::json(&LoadWeightsResponse {
                path: Some(at.to_string()),
                model_id: Some(model_id),
            })
        })
    }

    /// The first answer, when this request has made a model before.
    fn created(&self, session_id: &str, seq_id: u64, digest: u64) -> Result<Option<Submitted>> {
        let mut state = self.lock();
        match state.session(session_id)?.models.get(&seq_id) {
            Some((first, answer)) if *first == digest => Ok(Some(answer.clone())),
            Some(_) => Err(reused("model_seq_id", seq_id)),
            None => Ok(None),
        }
    }

    /// Takes in a model that `make` will set up on the worker thread, given its id.
    fn add_model(
        self: &Arc<Self>,
        new: New,
        make: impl FnOnce(&mut Engine, String) -> Result<Outcome> + Send + 'static,
    ) -> Result<Submitted> {
        // Twin requests may both have come this far; one of them is the first.
        if let Some(answer) = self.created(&new.session_id, new.model_seq_id, new.digest)? {
            return Ok(answer);
        }
        let mut state = self.lock();
        let model_id = format!("{}:train:{}", new.session_id, new.model_seq_id);
        let request_id = self.futures.issue(&self.instance, None);
        let answer = Submitted {
            request_id: request_id.clone(),
            model_id: Some(model_id.clone()),
            ..Submitted::default()
        };
        let models = &mut state.session(&new.session_id)?.models;
        models.insert(new.model_seq_id, (new.digest, answer.clone()));
        state.runs.push(Run {
            id: model_id.clone(),
            base_model: new.entry.base.name.clone(),
            lora_rank: new.entry.lora.rank,
            user_metadata: new.user_metadata,
            last_request: SystemTime::now(),
        });
        state.models.insert(model_id.clone(), new.entry);
        state.stats.insert(model_id.clone(), ModelStats::default());
        state.send(self.job(request_id, move |engine, _| make(engine, model_id)))?;
        Ok(answer)
    }

    pub(crate) fn get_info(&self, model_id: &str) -> Result<GetInfoResponse> {
        let mut state = self.lock();
        let entry = state.model(model_id)?;
        Ok(GetInfoResponse {
            model_id: model_id.to_owned(),
            model_data: ModelData {
                arch: Some(entry.base.config().architecture.name().to_owned()),
                model_name: Some(entry.base.name.clone()),
                tokenizer_id: Some(entry.base.tokenizer.clone()),
            },
            is_lora: Some(true),
            lora_rank: u32::try_from(entry.lora.rank).ok(),
            model_name: Some(entry.base.name.clone()),
            ..GetInfoResponse::default()
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
            ..Submitted::default()
        };
        let job = self.job(request_id, move |engine, _| {
            engine.unload_model(&model_id);
            Outcome::json(&UnloadModelResponse { model_id })
        });
        state.send(job)?;
        // What waited behind a gap now fails, as there is no model, rather than wait for ever.
        waiting.into_iter().try_for_each(|job| state.send(job))?;
        Ok(answer)
    }
}
