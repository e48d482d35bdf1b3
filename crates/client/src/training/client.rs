//! A model in training.

use std::sync::Arc;

use tinsmith_wire::{
    AdamParams, CreateModelRequest, Datum, ForwardBackwardOutput, GetInfoRequest, GetInfoResponse,
    LoraConfig, LossFn, LossFnConfig, OptimStepRequest, OptimStepResponse, OptimizerConfig, Pass,
    UnloadModelRequest, UnloadModelResponse, UserMetadata,
};

#[cfg(doc)]
use crate::Error;
use crate::{
    ApiFuture, OptimStep, Result,
    observe::step_files::StepFiles,
    protocol::{
        endpoints::{CREATE_MODEL, GET_INFO, OPTIM_STEP, UNLOAD_MODEL},
        flavour::add_tokens,
        session::Session,
    },
    training::{
        arguments,
        combine::combine,
        model::{Model, PassOver},
        preflight,
        sequencer::Sequencer,
        shared_arrays::SharedArrays,
    },
};

/// A model in training. Clones share it.
///
/// Requests are executed in the order of the calls. A call returns when the server has accepted its
/// request, so a `forward_backward` and the `optim_step` after it may both be under way.
///
/// When a request may have been executed although it failed, nobody can tell what a later one would
/// be applied to: every later call fails with [`Error::Poisoned`], naming that first error, except
/// for saves. A request that the server refuses, or accepts and then fails to execute, does not
/// have this effect, nor does an error before anything is sent, nor one in a loss function.
///
/// ```
/// use tinsmith_client::{AdamParams, Datum, LoraConfig, LossFn, ModelInput, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
/// let datum = Datum::new(ModelInput::from_tokens(vec![1, 2, 3])).with("target_tokens", vec![2i64, 3, 4]);
/// let mut losses = Vec::new();
/// for _ in 0..3 {
///     let pass = training.forward_backward(std::slice::from_ref(&datum), LossFn::CrossEntropy, None)?;
///     let step = training.optim_step(&AdamParams::default().learning_rate(0.01))?;
///     losses.push(pass.result()?.metrics["loss:sum"]);
///     step.result()?;
/// }
/// assert!(losses[2] < losses[0]);
/// training.unload()?.result()?;
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct TrainingClient {
    pub(crate) model: Arc<Model>,
}

/// What a new model is besides its adapter.
///
/// ```
/// use tinsmith_client::{ModelOptions, OptimizerConfig};
/// let notes = [("purpose".to_owned(), "a test".into())].into();
/// let options = ModelOptions::default().optimizer(OptimizerConfig::Dimuon { version: 1 }).user_metadata(notes);
/// assert_eq!(options.user_metadata.unwrap()["purpose"], "a test");
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ModelOptions {
    /// Its optimizer, for good; the server's AdamW when absent.
    pub optimizer: Option<OptimizerConfig>,
    /// Notes on it.
    pub user_metadata: Option<UserMetadata>,
}

impl ModelOptions {
    /// Sets the optimizer.
    #[must_use]
    pub fn optimizer(mut self, optimizer: OptimizerConfig) -> Self {
        self.optimizer = Some(optimizer);
        self
    }

    /// Adds notes.
    #[must_use]
    pub fn user_metadata(mut self, notes: UserMetadata) -> Self {
        self.user_metadata = Some(notes);
        self
    }
}

impl TrainingClient {
    pub(crate) fn new(session: Arc<Session>, id: String) -> Self {
        TrainingClient {
            model: Arc::new(Model {
                session,
                id,
                sequencer: Sequencer::new(),
                step_files: StepFiles::default(),
                arrays: SharedArrays::default(),
            }),
        }
    }

    /// A new model.
    pub(crate) fn create(
        session: &Arc<Session>,
        base_model: &str,
        config: &LoraConfig,
        options: &ModelOptions,
    ) -> Result<Self> {
        arguments::check_lora(config)?;
        let request = CreateModelRequest {
            session_id: session.id.clone(),
            model_seq_id: session.next_model(),
            base_model: base_model.to_owned(),
            lora_config: config.clone(),
            optimizer_config: options.optimizer.clone(),
            user_metadata: options.user_metadata.clone(),
        };
        let pending = session.submit(&CREATE_MODEL, None, &request)?;
        let created =
            ApiFuture::single(session.clone(), pending, |_, answer| Ok(answer)).result()?;
        Ok(TrainingClient::new(session.clone(), created.model_id))
    }

    /// The model's id on the server.
    pub fn model_id(&self) -> &str {
        &self.model.id
    }

    /// What the server knows about the model.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Reply`].
    ///
    /// ```
    /// use tinsmith_client::{LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let info = training.info()?;
    /// assert_eq!(info.model_data.model_name.as_deref(), Some("tiny-qwen3"));
    /// # anyhow::Ok(())
    /// ```
    pub fn info(&self) -> Result<GetInfoResponse> {
        let model_id = self.model.id.clone();
        GET_INFO.call(&self.model.session.api, &GetInfoRequest { model_id })
    }

    /// Runs the model and a loss of the server's, without a gradient.
    ///
    /// # Errors
    /// As [`forward_backward`](Self::forward_backward).
    ///
    /// ```
    /// use tinsmith_client::{Datum, LoraConfig, LossFn, ModelInput, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// # let datum = Datum::new(ModelInput::from_tokens(vec![1, 2, 3])).with("target_tokens", vec![2i64, 3, 4]);
    /// let output = training.forward(&[datum], LossFn::CrossEntropy, None)?.result()?;
    /// assert_eq!(output.loss_fn_outputs[0]["logprobs"].shape()[..], [3]);
    /// # anyhow::Ok(())
    /// ```
    pub fn forward(
        &self,
        data: &[Datum],
        loss_fn: LossFn,
        config: Option<LossFnConfig>,
    ) -> Result<ApiFuture<ForwardBackwardOutput>> {
        self.pass(Pass::Forward, data, loss_fn, config)
    }

    /// Runs the model and a loss of the server's, and adds its gradient to the model's.
    ///
    /// A batch too large for one request goes in several ([`ChunkLimits`](crate::ChunkLimits));
    /// their outputs come back in the order of `data`, their metrics combined.
    ///
    /// # Errors
    /// [`Error::EmptyBatch`] or [`Error::Datum`] before anything is sent; [`Error::Status`],
    /// [`Error::Deadline`], [`Error::Unreachable`] when the request is not accepted.
    ///
    /// ```
    /// use tinsmith_client::{AdamParams, Datum, LoraConfig, LossFn, ModelInput, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let datum = Datum::new(ModelInput::from_tokens(vec![1, 2, 3]))
    ///     .with("target_tokens", vec![2i64, 3, 4])
    ///     .with("weights", vec![0.0f32, 1.0, 1.0]);
    /// let step = training.forward_backward(&[datum], LossFn::CrossEntropy, None)?;
    /// let optim = training.optim_step(&AdamParams::default())?;
    /// println!("loss {}", step.result()?.metrics["loss:sum"]);
    /// optim.result()?;
    /// # anyhow::Ok(())
    /// ```
    pub fn forward_backward(
        &self,
        data: &[Datum],
        loss_fn: LossFn,
        config: Option<LossFnConfig>,
    ) -> Result<ApiFuture<ForwardBackwardOutput>> {
        self.pass(Pass::ForwardBackward, data, loss_fn, config)
    }

    fn pass(
        &self,
        pass: Pass,
        data: &[Datum],
        loss_fn: LossFn,
        config: Option<LossFnConfig>,
    ) -> Result<ApiFuture<ForwardBackwardOutput>> {
        preflight::check(data, |_| true)?;
        let session = &self.model.session;
        session.flavour.check_data(data)?;
        let batch = PassOver {
            pass,
            data,
            chunks: &session.flavour.chunks.split(data, session.flavour.byte_count),
            loss_fn: &loss_fn,
            config: config.as_ref(),
        };
        let pending = self.model.send_pass(&mut self.model.turn()?, batch)?;
        let tokens = session.flavour.tokens_to_add(data, loss_fn == LossFn::CrossEntropy);
        Ok(ApiFuture::joined(session.clone(), pending, move |_, parts, _| {
            let mut output = combine(parts);
            add_tokens(&mut output.metrics, tokens);
            Ok(output)
        }))
    }

    /// Applies the gradient that has gathered, and clears it.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Unreachable`].
    /// [`Error::may_have_been_applied`] tells whether the step may have been taken all the same.
    ///
    /// ```
    /// # use tinsmith_client::{AdamParams, LoraConfig, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let step = training.optim_step(&AdamParams::default().learning_rate(1e-5))?.result()?;
    /// assert_eq!(step.metrics["grad_norm"], 0.0); // nothing has gathered
    /// # anyhow::Ok(())
    /// ```
    pub fn optim_step(&self, params: &AdamParams) -> Result<ApiFuture<OptimStepResponse>> {
        self.optim_step_with(&params.clone().into())
    }

    /// As [`optim_step`](Self::optim_step), of another optimizer or of a normalized gradient.
    ///
    /// # Errors
    /// As [`optim_step`](Self::optim_step); [`Error::NormalizedTwice`] before anything is sent.
    ///
    /// ```
    /// use tinsmith_client::{AdamParams, LoraConfig, OptimStep, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let step = OptimStep::from(AdamParams { grad_clip_norm: 1.0, ..AdamParams::default() });
    /// training.optim_step_with(&step)?.result()?;
    /// # anyhow::Ok(())
    /// ```
    pub fn optim_step_with(&self, step: &OptimStep) -> Result<ApiFuture<OptimStepResponse>> {
        arguments::check_optimizer(&step.params)?;
        let request = |seq_id| OptimStepRequest {
            params: step.params.clone(),
            model_id: self.model.id.clone(),
            seq_id,
            grad_accumulation_normalization: step.grad_accumulation_normalization,
        };
        let mut turn = self.model.turn()?;
        turn.history().check_normalized_step(step.grad_accumulation_normalization)?;
        let seq_id = turn.next_id();
        let model = &self.model;
        let stepping = model.send_one(&mut turn, &OPTIM_STEP, request, |_, answer| Ok(answer))?;
        turn.history().stepped(seq_id);
        Ok(stepping)
    }

    /// Frees the model on the server. The end of the session does so too.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Unreachable`].
    pub fn unload(self) -> Result<ApiFuture<UnloadModelResponse>> {
        let session = &self.model.session;
        let request = UnloadModelRequest { model_id: self.model.id.clone() };
        let pending = session.submit(&UNLOAD_MODEL, None, &request)?;
        Ok(ApiFuture::single(session.clone(), pending, |_, answer| Ok(answer)))
    }
}
