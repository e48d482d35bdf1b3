//! Waiting for weights to be saved, and for a sampling session on them where the server gives none.

use std::sync::Arc;

use tinsmith_wire::{CreateSamplingSessionRequest, SaveWeightsForSamplerResponse};

use crate::{
    CallInfo, Error, Result, SamplingClient,
    protocol::{
        endpoints::CREATE_SAMPLING_SESSION,
        future::Wait,
        poll::{Deadline, Pending},
        session::Session,
    },
};

pub(crate) struct SavedSampler {
    session: Arc<Session>,
    stage: Stage,
}

enum Stage {
    Saving(Box<Pending<SaveWeightsForSamplerResponse>>),
    /// Saved at this path.
    Opening(String, CreateSamplingSessionRequest),
    Taken,
}

impl SavedSampler {
    pub fn new(session: Arc<Session>, pending: Pending<SaveWeightsForSamplerResponse>) -> Self {
        SavedSampler { session, stage: Stage::Saving(Box::new(pending)) }
    }

    fn client(&mut self, id: String, path: Option<String>) -> Result<Option<SamplingClient>> {
        self.stage = Stage::Taken;
        SamplingClient::new(self.session.clone(), id, path).map(Some)
    }
}

impl Wait<SamplingClient> for SavedSampler {
    fn wait(&mut self, until: Deadline) -> Result<Option<SamplingClient>> {
        if let Stage::Saving(pending) = &mut self.stage {
            if !pending.wait(&self.session, until)? {
                return Ok(None);
            }
            let Some(saved) = pending.value.take() else {
                return Err(Error::ResultTaken);
            };
            match (saved.sampling_session_id, saved.path) {
                (Some(id), path) => return self.client(id, path),
                (None, Some(path)) => {
                    let request = self.session.sampling_session_request(&path);
                    self.stage = Stage::Opening(path, request);
                }
                (None, None) => {
                    return Err(Error::Unexpected {
                        call: Box::new(CallInfo::of("save_weights_for_sampler")),
                        problem: "the answer has neither a path nor a sampling session".into(),
                    });
                }
            }
        }
        let Stage::Opening(path, request) = &self.stage else {
            return Err(Error::ResultTaken);
        };
        let api = &self.session.api;
        let created = match until {
            Deadline::Once => CREATE_SAMPLING_SESSION.try_call(api, request)?,
            Deadline::Until { .. } => Some(CREATE_SAMPLING_SESSION.call(api, request)?),
        };
        match created {
            Some(created) => {
                let path = path.clone();
                self.client(created.sampling_session_id, Some(path))
            }
            None => Ok(None),
        }
    }

    fn describe(&self) -> String {
        match &self.stage {
            Stage::Saving(pending) => pending.info.to_string(),
            Stage::Opening(path, _) => format!("create_sampling_session on {path}"),
            Stage::Taken => "done".to_owned(),
        }
    }

    fn session(&self) -> &Session {
        &self.session
    }
}
