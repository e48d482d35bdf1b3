//! One checkpoint: what it is, how long it lives, its file, its end.

use tar::HeaderMode;
use tinsmith_wire::{SetTtlRequest, WeightsInfoResponse};

use super::Hub;
use crate::checkpoint::{Reference, Saved, Visibility, missing};
use crate::{Error, Result};

impl Hub {
    pub(crate) fn weights_info(&self, path: &str) -> Result<WeightsInfoResponse> {
        let info = self.store.load(&path.parse()?, |name| self.bases.config(name))?.info;
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

    /// Sets or ends the life of a checkpoint, from now.
    pub(crate) fn set_ttl(&self, at: &Reference, ttl: SetTtlRequest) -> Result<()> {
        let notes = self.checkpoint(at)?.notes;
        self.store.annotate(at, &notes.living(ttl.ttl_seconds)?)
    }

    /// Says who may read a checkpoint.
    pub(crate) fn set_visibility(&self, at: &Reference, visibility: Visibility) -> Result<()> {
        let notes = self.checkpoint(at)?.notes;
        self.store.annotate(at, &notes.visible(visibility))
    }

    /// A checkpoint's file, as `{name}.safetensors` in a tar file.
    pub(crate) fn archive(&self, at: &Reference) -> Result<Vec<u8>> {
        self.checkpoint(at)?;
        let path = self.store.file(at);
        let mut archive = tar::Builder::new(Vec::new());
        archive.mode(HeaderMode::Deterministic);
        archive
            .append_path_with_name(&path, format!("{}.safetensors", at.name))
            .and_then(|()| archive.into_inner())
            .map_err(|e| Error::io("read", &path, &e))
    }

    pub(crate) fn delete_checkpoint(&self, at: &Reference) -> Result<()> {
        self.store.delete(at)
    }

    /// A checkpoint that is there.
    pub(crate) fn checkpoint(&self, at: &Reference) -> Result<Saved> {
        self.store.find(at)?.ok_or_else(|| missing(at))
    }
}
