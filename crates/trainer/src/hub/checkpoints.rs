//! Asking after checkpoints and deleting them.

use std::fs::Metadata;

use tinsmith_wire::WeightsInfoResponse;

use super::Hub;
use crate::Result;
use crate::checkpoint::Reference;
use crate::timestamp::timestamp;

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
}
