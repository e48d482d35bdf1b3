//! Sessions and the models in them.

use std::sync::Arc;

use tinsmith_wire::{
    CreateModelRequest, CreateModelResponse, CreateSessionResponse, GetInfoResponse, ModelData,
    ServerCapabilities, Submitted, SupportedModel, UnloadModelResponse,
};

use super::{Entry, Hub, Request, Session, reused};
use crate::model::LoraConfig;
use crate::queue::Sequence;
use crate::stats::ModelStats;
use crate::{Error, Result};

/// Largest rank of an adapter.
const MAX_RANK: u32 = 1024;

impl Hub {
    pub(crate) fn capabilities(&self) -> ServerCapabilities {
        let supported = |name: &str| SupportedModel {
            model_name: name.to_owned(),
            max_context_length: self
                .bases
                .config(name)
                .map(|c| c.max_position_embeddings as u64),
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
            ..Submitted::default()
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
            Ok(UnloadModelResponse { model_id })
        });
        state.send(job)?;
        // What waited behind a gap now fails, as there is no model, rather than wait for ever.
        waiting.into_iter().try_for_each(|job| state.send(job))?;
        Ok(answer)
    }
}
