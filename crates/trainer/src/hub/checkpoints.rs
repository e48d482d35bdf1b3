//! One checkpoint: what it is, how long it lives, its file, its end.

use std::fs;

use tinsmith_wire::{SetTtlRequest, WeightsInfoResponse};

use super::Hub;
use crate::checkpoint::{Reference, missing};
use crate::{Error, Result};

impl Hub {
    pub(crate) fn weights_info(&self, path: &str) -> Result<WeightsInfoResponse> {
        let info = self
            .store
            .load(&path.parse()?, |name| self.bases.config(name))?
            .info;
        Ok(WeightsInfoResponse {
            base_model: info.base_model,
            is_lora: true,
            lora_rank: u32::try_from(info.lora.rank).ok(),
            train_unembed: Some(info.lora.train_unembed),
            train_mlp: Some(info.lora.train_mlp),
            train_attn: Some(info.lora.train_attn),
            ..WeightsInfoResponse::default()
        })
    }

    /// Sets or ends the life of the checkpoint `{weights|sampler_weights}/{name}` of a model, from now.
    pub(crate) fn set_ttl(
        &self,
        model_id: &str,
        checkpoint_id: &str,
        ttl: SetTtlRequest,
    ) -> Result<()> {
        let at = named(model_id, checkpoint_id)?;
        let saved = self.store.find(&at)?.ok_or_else(|| missing(&at))?;
        self.store
            .annotate(&at, &saved.notes.living(ttl.ttl_seconds)?)
    }

    /// The checkpoint's file: its name and its bytes.
    pub(crate) fn checkpoint_file(
        &self,
        model_id: &str,
        checkpoint_id: &str,
    ) -> Result<(String, Vec<u8>)> {
        let at = named(model_id, checkpoint_id)?;
        self.store.find(&at)?.ok_or_else(|| missing(&at))?;
        let path = self.store.file(&at);
        let bytes = fs::read(&path).map_err(|e| Error::io("read", &path, &e))?;
        Ok((format!("{}.safetensors", at.name), bytes))
    }

    /// Deletes the checkpoint `{weights|sampler_weights}/{name}` of a model.
    pub(crate) fn delete_checkpoint(&self, model_id: &str, checkpoint_id: &str) -> Result<()> {
        self.store.delete(&named(model_id, checkpoint_id)?)
    }
}

fn named(model_id: &str, checkpoint_id: &str) -> Result<Reference> {
    format!("tinker://{model_id}/{checkpoint_id}").parse()
}
