//! What a server keeps: runs, checkpoints, sessions.

use std::{io, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use tinsmith_wire::{
    Checkpoint, CheckpointsResponse, Cursor, ExternalWeightsUrls, SamplerInfo, ServerCapabilities,
    SessionInfo, SetTtlRequest, TrainingRun, TrainingRunsResponse, WeightsInfoRequest,
    WeightsInfoResponse,
};

use crate::{
    CallInfo, CheckpointPath, Error, Result,
    http::api::Api,
    protocol::endpoints::{
        ALL_CHECKPOINTS, ARCHIVE, CAPABILITIES, DELETE_CHECKPOINT, EXTERNAL_WEIGHTS, Endpoint,
        Nothing, PUBLISH_CHECKPOINT, RUN_CHECKPOINTS, SAMPLER, SESSION, SESSIONS, SET_TTL,
        TRAINING_RUN, TRAINING_RUNS, UNPUBLISH_CHECKPOINT, WEIGHTS_INFO,
    },
    training::checkpoint_path::escaped,
};

/// A client for what the server keeps. It needs no session:
/// [`ServiceClientBuilder::rest`](crate::ServiceClientBuilder::rest), or
/// [`ServiceClient::rest`](crate::ServiceClient::rest).
///
/// ```
/// use tinsmith_client::{LoraConfig, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
/// let saved = training.save_state("first")?.result()?;
///
/// let rest = service.rest();
/// assert_eq!(rest.checkpoints(training.model_id())?[0].tinker_path, saved.path);
/// rest.delete_checkpoint(&saved.path)?;
/// assert!(rest.checkpoints(training.model_id())?.is_empty());
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct RestClient {
    api: Arc<Api>,
}

/// Where a checkpoint can be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveUrl {
    /// The address of a tar file. Whoever has it can read the weights.
    pub url: String,
    /// Until when it is good, as an HTTP date, if the server says.
    pub expires: Option<String>,
}

/// Entries asked for at once.
const PAGE: u64 = 100;
/// Most pages of a list.
const MAX_PAGES: u32 = 10_000;

impl RestClient {
    pub(crate) fn new(api: Arc<Api>) -> Self {
        RestClient { api }
    }

    /// All training runs of the user, page by page.
    ///
    /// # Errors
    /// [`Error::Status`] where the server keeps no list, [`Error::Deadline`], [`Error::Reply`].
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let runs = service.rest().training_runs()?;
    /// assert_eq!((runs.len(), runs[0].training_run_id.as_str()), (1, training.model_id()));
    /// # anyhow::Ok(())
    /// ```
    pub fn training_runs(&self) -> Result<Vec<TrainingRun>> {
        self.pages(&TRAINING_RUNS, |page: TrainingRunsResponse| (page.training_runs, page.cursor))
    }

    /// One training run, by the id of its model.
    ///
    /// # Errors
    /// [`Error::Status`] 404 when there is none, [`Error::Deadline`], [`Error::Reply`].
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let run = service.rest().training_run(training.model_id())?;
    /// assert_eq!((run.base_model.as_str(), run.lora_rank), ("tiny-qwen3", Some(8)));
    /// # anyhow::Ok(())
    /// ```
    pub fn training_run(&self, id: &str) -> Result<TrainingRun> {
        TRAINING_RUN.get(&self.api, &escaped(id))
    }

    /// The checkpoints of a training run.
    ///
    /// # Errors
    /// As [`training_run`](Self::training_run).
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// training.save_state("first")?.result()?;
    /// let saved = service.rest().checkpoints(training.model_id())?;
    /// assert_eq!(saved[0].checkpoint_id, "weights/first");
    /// # anyhow::Ok(())
    /// ```
    pub fn checkpoints(&self, run: &str) -> Result<Vec<Checkpoint>> {
        Ok(RUN_CHECKPOINTS.get(&self.api, &escaped(run))?.checkpoints)
    }

    /// All checkpoints of the user, page by page.
    ///
    /// # Errors
    /// As [`training_runs`](Self::training_runs).
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// training.save_state("first")?.result()?;
    /// assert_eq!(service.rest().all_checkpoints()?.len(), 1);
    /// # anyhow::Ok(())
    /// ```
    pub fn all_checkpoints(&self) -> Result<Vec<Checkpoint>> {
        self.pages(&ALL_CHECKPOINTS, |page: CheckpointsResponse| (page.checkpoints, page.cursor))
    }

    /// Deletes a checkpoint (`tinker://..`), for good.
    ///
    /// # Errors
    /// [`Error::Config`] for what is no path; [`Error::Status`] 404 when there is none.
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let path = training.save_state("first")?.result()?.path;
    /// let rest = service.rest();
    /// rest.delete_checkpoint(&path)?;
    /// assert!(rest.delete_checkpoint(&path).is_err()); // there is none any more
    /// # anyhow::Ok(())
    /// ```
    pub fn delete_checkpoint(&self, path: &str) -> Result<()> {
        DELETE_CHECKPOINT.act_on(&self.api, &below_runs(path)?)
    }

    /// Lets everybody read a checkpoint.
    ///
    /// # Errors
    /// As [`delete_checkpoint`](Self::delete_checkpoint).
    pub fn publish_checkpoint(&self, path: &str) -> Result<()> {
        PUBLISH_CHECKPOINT.act_on(&self.api, &below_runs(path)?)
    }

    /// Takes back [`publish_checkpoint`](Self::publish_checkpoint).
    ///
    /// # Errors
    /// As [`delete_checkpoint`](Self::delete_checkpoint).
    pub fn unpublish_checkpoint(&self, path: &str) -> Result<()> {
        UNPUBLISH_CHECKPOINT.act_on(&self.api, &below_runs(path)?)
    }

    /// Keeps a checkpoint for so long from now, in whole seconds; for good when `None`.
    ///
    /// # Errors
    /// As [`delete_checkpoint`](Self::delete_checkpoint).
    ///
    /// ```
    /// use std::time::Duration;
    /// use tinsmith_client::{LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let path = training.save_state("first")?.result()?.path;
    /// let rest = service.rest();
    /// rest.set_checkpoint_ttl(&path, Some(Duration::from_secs(3600)))?;
    /// assert!(rest.all_checkpoints()?[0].expires_at.is_some());
    /// rest.set_checkpoint_ttl(&path, None)?;
    /// assert!(rest.all_checkpoints()?[0].expires_at.is_none());
    /// # anyhow::Ok(())
    /// ```
    pub fn set_checkpoint_ttl(&self, path: &str, ttl: Option<Duration>) -> Result<()> {
        let request = SetTtlRequest { ttl_seconds: ttl.map(|ttl| ttl.as_secs()) };
        SET_TTL.act(&self.api, &below_runs(path)?, &request)
    }

    /// Where a checkpoint can be fetched as a tar file. Servers of SDK 0.38 have
    /// [`external_weights_urls`](Self::external_weights_urls) instead.
    ///
    /// # Errors
    /// As [`delete_checkpoint`](Self::delete_checkpoint); [`Error::Unexpected`] when the server
    /// gives no address.
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let path = training.save_state("first")?.result()?.path;
    /// let rest = service.rest();
    /// let archive = rest.archive_url(&path)?;
    /// let mut file = Vec::new(); // or a std::fs::File
    /// assert_eq!(rest.download(&archive.url, &mut file)?, file.len() as u64);
    /// # anyhow::Ok(())
    /// ```
    pub fn archive_url(&self, path: &str) -> Result<ArchiveUrl> {
        let (reply, info) = ARCHIVE.redirect(&self.api, &below_runs(path)?)?;
        match reply.location {
            Some(url) => Ok(ArchiveUrl { url: self.api.absolute(&url), expires: reply.expires }),
            None => Err(Error::Unexpected {
                call: Box::new(info),
                problem: format!("no redirect to an archive, but: {}", self.api.words(&reply.body)),
            }),
        }
    }

    /// Where the files of an external checkpoint can be fetched.
    ///
    /// # Errors
    /// As [`delete_checkpoint`](Self::delete_checkpoint).
    pub fn external_weights_urls(&self, path: &str) -> Result<ExternalWeightsUrls> {
        EXTERNAL_WEIGHTS.get(&self.api, &below_runs(path)?)
    }

    /// Writes what is at `url`, an address of [`archive_url`](Self::archive_url) or
    /// [`external_weights_urls`](Self::external_weights_urls), to `to`, and gives the number of
    /// bytes. The API key is not sent there.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Unreachable`]; [`Error::Write`] when `to` cannot be written.
    pub fn download(&self, url: &str, to: &mut impl io::Write) -> Result<u64> {
        self.api.download(url, to)
    }

    /// What a checkpoint (`tinker://..`) was trained from.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Reply`].
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let path = training.save_state("first")?.result()?.path;
    /// let info = service.rest().weights_info(&path)?;
    /// assert_eq!((info.base_model.as_str(), info.lora_rank), ("tiny-qwen3", Some(8)));
    /// # anyhow::Ok(())
    /// ```
    pub fn weights_info(&self, path: &str) -> Result<WeightsInfoResponse> {
        let request = WeightsInfoRequest { tinker_path: path.to_owned() };
        WEIGHTS_INFO.call(&self.api, &request)
    }

    /// Ids of all sessions of the user.
    ///
    /// # Errors
    /// As [`training_runs`](Self::training_runs).
    ///
    /// ```
    /// use tinsmith_client::ServiceClient;
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// assert_eq!(service.rest().sessions()?, [service.session_id()]);
    /// # anyhow::Ok(())
    /// ```
    pub fn sessions(&self) -> Result<Vec<String>> {
        Ok(SESSIONS.get(&self.api, "")?.sessions)
    }

    /// What was made in a session.
    ///
    /// # Errors
    /// As [`training_run`](Self::training_run).
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let made = service.rest().session(service.session_id())?;
    /// assert_eq!(made.training_run_ids, [training.model_id()]);
    /// # anyhow::Ok(())
    /// ```
    pub fn session(&self, id: &str) -> Result<SessionInfo> {
        SESSION.get(&self.api, &escaped(id))
    }

    /// What a sampling session samples from.
    ///
    /// # Errors
    /// As [`training_run`](Self::training_run).
    ///
    /// ```
    /// use tinsmith_client::ServiceClient;
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// let sampler = service.create_sampling_client("tiny-qwen3")?;
    /// let info = service.rest().sampler(sampler.sampler_id())?;
    /// assert_eq!((info.base_model.as_str(), info.model_path), ("tiny-qwen3", None));
    /// # anyhow::Ok(())
    /// ```
    pub fn sampler(&self, id: &str) -> Result<SamplerInfo> {
        SAMPLER.get(&self.api, &escaped(id))
    }

    /// The models that the server offers.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Reply`].
    pub fn server_capabilities(&self) -> Result<ServerCapabilities> {
        CAPABILITIES.get(&self.api, "")
    }

    /// All entries of a list, however many pages it has.
    fn pages<P: DeserializeOwned, T>(
        &self,
        list: &Endpoint<Nothing, P>,
        open: impl Fn(P) -> (Vec<T>, Option<Cursor>),
    ) -> Result<Vec<T>> {
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let offset = all.len();
            let page = list.get(&self.api, &format!("limit={PAGE}&offset={offset}"))?;
            let (entries, cursor) = open(page);
            let is_last = entries.is_empty();
            all.extend(entries);
            // A list without a cursor is whole.
            let total = cursor.map_or(0, |cursor| cursor.total_count);
            if is_last || all.len() as u64 >= total {
                return Ok(all);
            }
        }
        Err(Error::Unexpected {
            call: Box::new(CallInfo::of(list.name)),
            problem: format!("the list has more than {MAX_PAGES} pages"),
        })
    }
}

fn below_runs(path: &str) -> Result<String> {
    Ok(path.parse::<CheckpointPath>()?.below_runs())
}
