//! What a trainer keeps, as listings: runs, their checkpoints, sessions.

use std::time::SystemTime;

use tinsmith_wire::{
    Checkpoint, CheckpointType, CheckpointsResponse, Cursor, SessionInfo, SessionsResponse,
    TrainingRun, TrainingRunsResponse, UserMetadata,
};

use super::{Hub, State};
use crate::Result;
use crate::checkpoint::{Kind, Saved, Visibility};
use crate::engine::unknown_model;
use crate::timestamp::timestamp;

/// A model of this trainer, unloaded or not.
pub(super) struct Run {
    pub(super) id: String,
    pub(super) base_model: String,
    pub(super) lora_rank: usize,
    pub(super) user_metadata: Option<UserMetadata>,
    pub(super) last_request: SystemTime,
}

/// A part of a listing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    pub(crate) offset: usize,
    pub(crate) limit: usize,
}

impl Page {
    fn of<T>(self, all: Vec<T>) -> (Vec<T>, Cursor) {
        let cursor = Cursor {
            offset: self.offset as u64,
            limit: self.limit as u64,
            total_count: all.len() as u64,
        };
        let page = all.into_iter().skip(self.offset).take(self.limit);
        (page.collect(), cursor)
    }
}

impl Hub {
    /// Newest first.
    pub(crate) fn training_runs(&self, page: Page) -> Result<TrainingRunsResponse> {
        let state = self.lock();
        let (runs, cursor) = page.of(state.runs.iter().rev().collect());
        let training_runs = runs.into_iter().map(|run| self.describe(run));
        Ok(TrainingRunsResponse {
            training_runs: training_runs.collect::<Result<_>>()?,
            cursor: Some(cursor),
        })
    }

    pub(crate) fn training_run(&self, id: &str) -> Result<TrainingRun> {
        self.describe(self.lock().run(id)?)
    }

    /// Training checkpoints and sampler weights of a run, by path.
    pub(crate) fn checkpoints(&self, run: &str) -> Result<CheckpointsResponse> {
        Ok(CheckpointsResponse { checkpoints: self.saved(run)?, cursor: None })
    }

    /// Those of all runs, newest run first.
    pub(crate) fn all_checkpoints(&self, page: Page) -> Result<CheckpointsResponse> {
        let runs: Vec<String> = self.lock().runs.iter().rev().map(|run| run.id.clone()).collect();
        let mut all = Vec::new();
        for run in runs {
            all.extend(self.saved(&run)?);
        }
        let (checkpoints, cursor) = page.of(all);
        Ok(CheckpointsResponse { checkpoints, cursor: Some(cursor) })
    }

    pub(crate) fn sessions(&self) -> SessionsResponse {
        let mut sessions: Vec<String> = self.lock().sessions.keys().cloned().collect();
        sessions.sort();
        SessionsResponse { sessions }
    }

    pub(crate) fn session_info(&self, id: &str) -> Result<SessionInfo> {
        let mut state = self.lock();
        let session = state.session(id)?;
        let user_metadata = session.user_metadata.clone();
        let (runs, samplers) = (format!("{id}:train:"), format!("{id}:sample:"));
        let of_session = |ids: Vec<&String>, prefix: &str| {
            let mut ids: Vec<String> =
                ids.into_iter().filter(|i| i.starts_with(prefix)).cloned().collect();
            ids.sort();
            ids
        };
        Ok(SessionInfo {
            training_run_ids: of_session(state.runs.iter().map(|run| &run.id).collect(), &runs),
            sampler_ids: of_session(state.samplers.keys().collect(), &samplers),
            user_metadata,
            display_name: None,
        })
    }

    fn describe(&self, run: &Run) -> Result<TrainingRun> {
        let saved = self.saved(&run.id)?;
        let newest = |kind: CheckpointType| {
            let of_kind = saved.iter().filter(|c| c.checkpoint_type == kind);
            of_kind.max_by(|a, b| a.time.cmp(&b.time)).cloned()
        };
        Ok(TrainingRun {
            training_run_id: run.id.clone(),
            base_model: run.base_model.clone(),
            model_owner: "local".to_owned(),
            is_lora: true,
            lora_rank: u32::try_from(run.lora_rank).ok(),
            corrupted: false,
            last_request_time: timestamp(run.last_request),
            last_checkpoint: newest(CheckpointType::Training),
            last_sampler_checkpoint: newest(CheckpointType::Sampler),
            user_metadata: run.user_metadata.clone(),
        })
    }

    fn saved(&self, run: &str) -> Result<Vec<Checkpoint>> {
        let describe = |saved: Saved| Checkpoint {
            checkpoint_id: format!("{}/{}", saved.at.kind.folder(), saved.at.name),
            checkpoint_type: match saved.at.kind {
                Kind::Training => CheckpointType::Training,
                Kind::Sampler => CheckpointType::Sampler,
            },
            time: timestamp(saved.time),
            tinker_path: saved.at.to_string(),
            size_bytes: Some(saved.bytes),
            public: Some(saved.notes.visibility == Visibility::Public),
            expires_at: saved.notes.expires().map(timestamp),
            user_metadata: saved.notes.user_metadata,
        };
        Ok(self.store.list(run)?.into_iter().map(describe).collect())
    }
}

impl State {
    fn run(&self, id: &str) -> Result<&Run> {
        let found = self.runs.iter().find(|run| run.id == id);
        found.ok_or_else(|| unknown_model(id))
    }

    /// Notes that a run has been asked for something.
    pub(super) fn touch(&mut self, id: &str) {
        if let Some(run) = self.runs.iter_mut().find(|run| run.id == id) {
            run.last_request = SystemTime::now();
        }
    }
}
