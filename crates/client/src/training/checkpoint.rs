//! Saving a model's weights and loading them.

use std::{sync::Arc, time::Duration};

use tinsmith_wire::{
    CreateByLoadRequest, LoadWeightsRequest, LoadWeightsResponse, LoraConfig, SamplerKind,
    SaveWeightsExternalRequest, SaveWeightsExternalResponse, SaveWeightsForSamplerRequest,
    SaveWeightsRequest, SaveWeightsResponse, UserMetadata, WeightsInfoRequest,
};

use crate::{
    ApiFuture, Error, ModelOptions, Result, SamplingClient, TrainingClient,
    protocol::{
        endpoints::{
            CREATE_BY_LOAD, LOAD_WEIGHTS, RUN_CHECKPOINTS, SAVE_EXTERNAL, SAVE_FOR_SAMPLER,
            SAVE_WEIGHTS, WEIGHTS_INFO,
        },
        session::Session,
    },
    training::{
        arguments::{check_name, check_path, check_ttl},
        checkpoint_path::escaped,
        saved_sampler::SavedSampler,
    },
};

/// How a checkpoint is kept. By default for good, and never in place of another.
///
/// ```
/// use std::time::Duration;
/// use tinsmith_client::SaveOptions;
/// let options = SaveOptions::default().overwrite().ttl(Duration::from_secs(24 * 3600));
/// # drop(options);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct SaveOptions {
    /// Whether an existing checkpoint of that name is replaced.
    pub overwrite: bool,
    /// How long it is kept, in whole seconds; servers want an hour at least.
    pub ttl: Option<Duration>,
    /// Notes on it.
    pub user_metadata: Option<UserMetadata>,
    /// What a sampler is made for; a snapshot when absent. For
    /// [`save_weights_for_sampler`](TrainingClient::save_weights_for_sampler_with) only.
    pub kind: Option<SamplerKind>,
}

impl SaveOptions {
    /// Replaces an existing checkpoint of that name.
    #[must_use]
    pub fn overwrite(mut self) -> Self {
        self.overwrite = true;
        self
    }

    /// Keeps it for so long.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Adds notes.
    #[must_use]
    pub fn user_metadata(mut self, notes: UserMetadata) -> Self {
        self.user_metadata = Some(notes);
        self
    }

    /// Says what a sampler is made for.
    #[must_use]
    pub fn kind(mut self, kind: SamplerKind) -> Self {
        self.kind = Some(kind);
        self
    }

    fn ttl_seconds(&self) -> Option<u64> {
        self.ttl.map(|ttl| ttl.as_secs())
    }
}

impl TrainingClient {
    /// Saves weights and optimizer state under `name` (letters, digits, `-`, `_`); the result has
    /// the path to load them by.
    ///
    /// # Errors
    /// As [`optim_step`](Self::optim_step); [`Error::Status`] 409 when the name is taken.
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let saved = training.save_state("halfway")?.result()?;
    /// assert!(saved.path.starts_with("tinker://") && saved.path.ends_with("/weights/halfway"));
    /// training.load_state(&saved.path)?.result()?;
    /// # anyhow::Ok(())
    /// ```
    pub fn save_state(&self, name: &str) -> Result<ApiFuture<SaveWeightsResponse>> {
        self.save_state_with(name, &SaveOptions::default())
    }

    /// As [`save_state`](Self::save_state), kept as `options` say.
    ///
    /// # Errors
    /// As [`save_state`](Self::save_state).
    ///
    /// ```
    /// use std::time::Duration;
    /// use tinsmith_client::{LoraConfig, SaveOptions, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let options = SaveOptions::default().overwrite().ttl(Duration::from_secs(24 * 3600));
    /// training.save_state_with("latest", &options)?.result()?;
    /// training.save_state_with("latest", &options)?.result()?; // in place of the first
    /// # anyhow::Ok(())
    /// ```
    pub fn save_state_with(
        &self,
        name: &str,
        options: &SaveOptions,
    ) -> Result<ApiFuture<SaveWeightsResponse>> {
        check_name(name)?;
        check_ttl(options.ttl)?;
        let request = |seq_id| SaveWeightsRequest {
            model_id: self.model.id.clone(),
            path: Some(name.to_owned()),
            seq_id,
            overwrite: options.overwrite,
            ttl_seconds: options.ttl_seconds(),
            user_metadata: options.user_metadata.clone(),
        };
        let mut turn = self.model.sequencer.turn_to_save()?;
        let saving = self.model.send_one(&mut turn, &SAVE_WEIGHTS, request, |_, answer| Ok(answer));
        match saving {
            Err(error) if self.is_saved_all_the_same(&error) => match self.find_saved(name)? {
                Some(path) => {
                    turn.was_executed(&error);
                    let answer = SaveWeightsResponse { path };
                    Ok(ApiFuture::ready(self.model.session.clone(), answer))
                }
                None => Err(error),
            },
            saving => saving,
        }
    }

    /// Saves weights under `name` for use elsewhere:
    /// [`external_weights_urls`](crate::RestClient::external_weights_urls) tells where to fetch
    /// them. They are encrypted for the `recipients`, public keys of age; not at all when there are
    /// none.
    ///
    /// # Errors
    /// As [`save_state`](Self::save_state).
    pub fn save_weights_external(
        &self,
        name: &str,
        recipients: &[&str],
        options: &SaveOptions,
    ) -> Result<ApiFuture<SaveWeightsExternalResponse>> {
        let keys: Vec<String> = recipients.iter().map(|&key| key.to_owned()).collect();
        check_name(name)?;
        check_ttl(options.ttl)?;
        let request = |seq_id| SaveWeightsExternalRequest {
            model_id: self.model.id.clone(),
            path: name.to_owned(),
            seq_id,
            age_encryption_recipients: (!keys.is_empty()).then(|| keys.clone()),
            ttl_seconds: options.ttl_seconds(),
            user_metadata: options.user_metadata.clone(),
        };
        let mut turn = self.model.sequencer.turn_to_save()?;
        self.model.send_one(&mut turn, &SAVE_EXTERNAL, request, |_, answer| Ok(answer))
    }

    /// Loads weights from a path of [`save_state`](Self::save_state); the optimizer starts anew.
    ///
    /// # Errors
    /// As [`optim_step`](Self::optim_step).
    pub fn load_state(&self, path: &str) -> Result<ApiFuture<LoadWeightsResponse>> {
        self.load(path, false)
    }

    /// Loads weights and optimizer state from a path of [`save_state`](Self::save_state).
    ///
    /// # Errors
    /// As [`optim_step`](Self::optim_step).
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let saved = training.save_state("halfway")?.result()?;
    /// training.load_state_with_optimizer(&saved.path)?.result()?;
    /// # anyhow::Ok(())
    /// ```
    pub fn load_state_with_optimizer(&self, path: &str) -> Result<ApiFuture<LoadWeightsResponse>> {
        self.load(path, true)
    }

    fn load(&self, path: &str, optimizer: bool) -> Result<ApiFuture<LoadWeightsResponse>> {
        check_path(path)?;
        let request = |seq_id| LoadWeightsRequest {
            model_id: self.model.id.clone(),
            path: path.to_owned(),
            seq_id,
            optimizer,
            ..LoadWeightsRequest::default()
        };
        let mut turn = self.model.turn()?;
        let seq_id = turn.next_id();
        let model = &self.model;
        let loading = model.send_one(&mut turn, &LOAD_WEIGHTS, request, |_, answer| Ok(answer))?;
        turn.history().loaded(seq_id);
        Ok(loading)
    }

    /// A client that samples from the model as it is now. With a `name` the weights are kept under
    /// it, to be sampled from again ([`SamplingClient::path`]); without, they go with the session.
    ///
    /// # Errors
    /// As [`save_state`](Self::save_state).
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ModelInput, SamplingParams, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let sampler = training.save_weights_for_sampler(None)?.result()?;
    /// let prompt = ModelInput::from_tokens(vec![1, 2, 3]);
    /// sampler.sample(&prompt, 1, &SamplingParams::max_tokens(4))?.result()?;
    ///
    /// let kept = training.save_weights_for_sampler(Some("step-10"))?.result()?;
    /// assert!(kept.path().unwrap().ends_with("step-10"));
    /// # anyhow::Ok(())
    /// ```
    pub fn save_weights_for_sampler(
        &self,
        name: Option<&str>,
    ) -> Result<ApiFuture<SamplingClient>> {
        self.save_weights_for_sampler_with(name, &SaveOptions::default())
    }

    /// As [`save_weights_for_sampler`](Self::save_weights_for_sampler), kept as `options` say.
    ///
    /// # Errors
    /// As [`save_state`](Self::save_state).
    pub fn save_weights_for_sampler_with(
        &self,
        name: Option<&str>,
        options: &SaveOptions,
    ) -> Result<ApiFuture<SamplingClient>> {
        let session = &self.model.session;
        name.map_or(Ok(()), check_name)?;
        check_ttl(options.ttl)?;
        let throw_away = name.is_none().then(|| session.next_sampler());
        let request = |seq_id| SaveWeightsForSamplerRequest {
            model_id: self.model.id.clone(),
            path: name.map(str::to_owned),
            sampling_session_seq_id: throw_away,
            seq_id,
            overwrite: options.overwrite.then_some(true),
            ttl_seconds: options.ttl_seconds(),
            user_metadata: options.user_metadata.clone(),
            kind: options.kind,
        };
        let mut turn = self.model.sequencer.turn_to_save()?;
        let saving = |seq_id| session.submit(&SAVE_FOR_SAMPLER, Some(seq_id), &request(seq_id));
        let pending = turn.send(saving)?;
        Ok(ApiFuture::new(SavedSampler::new(session.clone(), pending)))
    }

    /// Whether a save that was refused because of a conflict may be the second of two that are one,
    /// of which the first was done though its answer was lost.
    fn is_saved_all_the_same(&self, error: &Error) -> bool {
        matches!(error, Error::Status { status: 409, call, .. } if call.is_uncertain)
    }

    /// The path of this model's checkpoint of that name, if the server has one.
    fn find_saved(&self, name: &str) -> Result<Option<String>> {
        let run = escaped(&self.model.id);
        let listed = RUN_CHECKPOINTS.get(&self.model.session.api, &run)?;
        let ids = [name.to_owned(), format!("weights/{name}")];
        let found = listed.checkpoints.into_iter().find(|it| ids.contains(&it.checkpoint_id));
        Ok(found.map(|checkpoint| checkpoint.tinker_path))
    }

    /// A new model made of a checkpoint. Servers of the protobuf dialect do it in one request; in
    /// the other the model is created as the checkpoint says, and loads it as its first request.
    pub(crate) fn from_state(session: &Arc<Session>, path: &str, optimizer: bool) -> Result<Self> {
        check_path(path)?;
        if session.flavour.creates_by_load {
            return Self::by_load(session, path, optimizer);
        }
        let request = WeightsInfoRequest { tinker_path: path.to_owned() };
        let info = WEIGHTS_INFO.call(&session.api, &request)?;
        let config = LoraConfig {
            rank: info.lora_rank.unwrap_or_default(),
            train_unembed: info.train_unembed.unwrap_or(true),
            train_mlp: info.train_mlp.unwrap_or(true),
            train_attn: info.train_attn.unwrap_or(true),
            ..LoraConfig::default()
        };
        let options = ModelOptions::default();
        let client = TrainingClient::create(session, &info.base_model, &config, &options)?;
        client.load(path, optimizer)?.result()?;
        Ok(client)
    }

    fn by_load(session: &Arc<Session>, path: &str, optimizer: bool) -> Result<Self> {
        let request = CreateByLoadRequest {
            session_id: session.id.clone(),
            model_seq_id: session.next_model(),
            path: path.to_owned(),
            optimizer,
            ..CreateByLoadRequest::default()
        };
        let pending = session.submit(&CREATE_BY_LOAD, None, &request)?;
        let loaded =
            ApiFuture::single(session.clone(), pending, |_, answer| Ok(answer)).result()?;
        // Servers that do not say it name it so.
        let id = loaded
            .model_id
            .unwrap_or_else(|| format!("{}:train:{}", session.id, request.model_seq_id));
        Ok(TrainingClient::new(session.clone(), id))
    }
}
