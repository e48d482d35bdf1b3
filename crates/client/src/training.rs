//! A model in training.

use std::{ops::Range, panic::Location, sync::Arc};

use tinsmith_wire::{
    AdamParams, Datum, ForwardBackwardInput, ForwardBackwardOutput, ForwardBackwardRequest,
    ForwardRequest, GetInfoRequest, GetInfoResponse, LoadWeightsRequest, LoadWeightsResponse,
    LossFn, LossFnConfig, OptimStepRequest, OptimStepResponse, SaveWeightsForSamplerRequest,
    SaveWeightsForSamplerResponse, SaveWeightsRequest, SaveWeightsResponse, UnloadModelRequest,
    UnloadModelResponse,
};

use crate::{
    ApiFuture, Batch, CustomStep, Error, Loss, Result, SamplingClient,
    combine::combine,
    custom_loss,
    future::Pending,
    order::{Order, Turn},
    preflight,
    record::Recorder,
    retry::Kind,
    session::{Session, call},
};

/// A model in training. Clones share it.
///
/// Requests are executed in the order of the calls. A call returns when the server has accepted its request, so a
/// `forward_backward` and the `optim_step` after it may both be under way.
///
/// When a request that reached the server cannot be brought to acceptance, the order of what follows cannot be kept:
/// every later call fails with [`Error::Poisoned`], naming that first error. A request that the server accepts
/// and then fails to execute does not have this effect, nor does an error before anything is sent, nor one in a loss
/// function.
#[derive(Debug, Clone)]
pub struct TrainingClient {
    pub(crate) model: Arc<Model>,
}

#[derive(Debug)]
pub(crate) struct Model {
    pub session: Arc<Session>,
    pub id: String,
    pub order: Order,
    pub recorder: Recorder,
}

/// The two passes over data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Forward,
    ForwardBackward,
}

impl TrainingClient {
    pub(crate) fn new(session: Arc<Session>, id: String) -> Self {
        let order = Order::new();
        TrainingClient {
            model: Arc::new(Model {
                session,
                id,
                order,
                recorder: Recorder::default(),
            }),
        }
    }

    /// The model's id on the server.
    pub fn model_id(&self) -> &str {
        &self.model.id
    }

    /// What the server knows about the model.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Reply`].
    pub fn get_info(&self) -> Result<GetInfoResponse> {
        let model_id = self.model.id.clone();
        let http = &self.model.session.http;
        http.call(
            "/api/v1/get_info",
            &GetInfoRequest { model_id },
            call("get_info"),
            Kind::Submit,
        )
    }

    /// Runs the model and a loss of the server's, without a gradient.
    ///
    /// # Errors
    /// As [`forward_backward`](Self::forward_backward).
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
    /// A batch too large for one request goes in several ([`ChunkLimits`](crate::ChunkLimits)); their outputs come back
    /// in the order of `data`, their metrics combined.
    ///
    /// # Errors
    /// [`Error::EmptyBatch`] or [`Error::Datum`] before anything is sent; [`Error::Status`], [`Error::Deadline`],
    /// [`Error::Unreachable`] when the request is not accepted.
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
        let chunks = self.model.session.chunks.split(data);
        let mut turn = self.model.order.turn()?;
        let pending = self
            .model
            .send_pass(&mut turn, pass, data, &chunks, &loss_fn, config)?;
        let session = self.model.session.clone();
        Ok(ApiFuture::joined(session, pending, |_, parts, _| {
            Ok(combine(parts))
        }))
    }

    /// Trains on a loss of your own, in two passes: the model's logprobs come from the server, `loss` and its gradient
    /// are computed here, and the gradient goes back as the weights of a cross-entropy pass, whose gradient by the
    /// model is then that of `loss`. Returns when the server has accepted the second pass.
    ///
    /// Every datum needs `target_tokens`. Only they and `weights` (zeros when absent) travel; all other inputs are for
    /// `loss`, through [`Batch::input`]. `loss` is called once, on this thread; other threads that use this client wait
    /// until the second pass is accepted.
    ///
    /// # Errors
    /// Before anything is sent: [`Error::EmptyBatch`], [`Error::Datum`]. Between the passes, so that nothing is trained
    /// and the client can go on: [`Error::OutputCount`], [`Error::Logprobs`], [`Error::LossFailed`], [`Error::Loss`],
    /// [`Error::LossNotScalar`], [`Error::LossNotFinite`], [`Error::UnusedData`], [`Error::MetricNotScalar`],
    /// [`Error::GradientNotFinite`]. And those of [`forward_backward`](Self::forward_backward) and
    /// [`ApiFuture::result`].
    ///
    /// ```
    /// # use tinsmith_client::{AdamParams, Datum, LoraConfig, Loss, ModelInput, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2, 3]))
    ///     .with("target_tokens", vec![2i64, 3, 4])
    ///     .with("logprobs", vec![-6.0f32, -5.5, -5.0]) // when they were sampled
    ///     .with("advantages", vec![0.0f32, 1.0, 1.0])];
    /// let step = training.forward_backward_custom(&data, |batch| {
    ///     let logprobs = batch.logprobs();
    ///     let advantages = batch.input("advantages")?;
    ///     let ratio = (&logprobs - batch.input("logprobs")?).exp();
    ///     Ok(Loss::new(-(ratio * advantages).sum()).metric("mean logprob", logprobs.mean()))
    /// })?;
    /// println!("loss {}, gradient norm {}", step.report().loss, step.report().gradient.norm);
    /// let optim = training.optim_step(&AdamParams::default().learning_rate(1e-5))?;
    /// let output = step.result()?;
    /// assert_eq!(output.loss_fn_outputs[0]["logprobs"].elem_count(), 3);
    /// optim.result()?;
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn forward_backward_custom<F>(&self, data: &[Datum], loss: F) -> Result<CustomStep>
    where
        F: FnOnce(&Batch) -> anyhow::Result<Loss>,
    {
        custom_loss::run(&self.model, data, loss, Location::caller())
    }

    /// Applies the gradient that has gathered, and clears it.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Unreachable`]. [`Error::may_have_been_applied`] tells whether the
    /// step may have been taken all the same.
    pub fn optim_step(&self, params: &AdamParams) -> Result<ApiFuture<OptimStepResponse>> {
        let request = |seq_id| OptimStepRequest {
            params: params.clone().into(),
            model_id: self.model.id.clone(),
            seq_id,
            ..OptimStepRequest::default()
        };
        self.model.send_one(
            "optim_step",
            "OptimStep",
            Kind::Submit,
            request,
            |_, answer| Ok(answer),
        )
    }

    /// Saves weights and optimiser state under `name` (letters, digits, `-`, `_`); the result has the path to load
    /// them by.
    ///
    /// # Errors
    /// As [`optim_step`](Self::optim_step); [`Error::Status`] 409 when the name is taken.
    pub fn save_state(&self, name: &str) -> Result<ApiFuture<SaveWeightsResponse>> {
        let request = |seq_id| SaveWeightsRequest {
            model_id: self.model.id.clone(),
            path: Some(name.to_owned()),
            seq_id,
            overwrite: false,
            ttl_seconds: None,
            user_metadata: None,
        };
        self.model.send_one(
            "save_weights",
            "SaveWeights",
            Kind::Save,
            request,
            |_, answer| Ok(answer),
        )
    }

    /// Loads weights from a path of [`save_state`](Self::save_state); the optimiser starts anew.
    ///
    /// # Errors
    /// As [`optim_step`](Self::optim_step).
    pub fn load_state(&self, path: &str) -> Result<ApiFuture<LoadWeightsResponse>> {
        self.load(path, false)
    }

    /// Loads weights and optimiser state from a path of [`save_state`](Self::save_state).
    ///
    /// # Errors
    /// As [`optim_step`](Self::optim_step).
    pub fn load_state_with_optimizer(&self, path: &str) -> Result<ApiFuture<LoadWeightsResponse>> {
        self.load(path, true)
    }

    fn load(&self, path: &str, optimizer: bool) -> Result<ApiFuture<LoadWeightsResponse>> {
        let request = |seq_id| LoadWeightsRequest {
            model_id: self.model.id.clone(),
            path: path.to_owned(),
            seq_id,
            optimizer,
            ..LoadWeightsRequest::default()
        };
        self.model.send_one(
            "load_weights",
            "LoadWeights",
            Kind::Submit,
            request,
            |_, answer| Ok(answer),
        )
    }

    /// A client that samples from the model as it is now. With a `name` the weights are kept under it, to be sampled
    /// from again ([`SamplingClient::path`]); without, they go with the session.
    ///
    /// # Errors
    /// As [`save_state`](Self::save_state).
    pub fn save_weights_for_sampler(
        &self,
        name: Option<&str>,
    ) -> Result<ApiFuture<SamplingClient>> {
        let session = &self.model.session;
        let request = |seq_id| SaveWeightsForSamplerRequest {
            model_id: self.model.id.clone(),
            path: name.map(str::to_owned),
            sampling_session_seq_id: name.is_none().then(|| session.next_sampler()),
            seq_id,
            ..SaveWeightsForSamplerRequest::default()
        };
        self.model.send_one(
            "save_weights_for_sampler",
            "SaveWeightsForSampler",
            Kind::Save,
            request,
            sampler,
        )
    }

    /// Frees the model on the server. The end of the session does so too.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Deadline`], [`Error::Unreachable`].
    pub fn unload(self) -> Result<ApiFuture<UnloadModelResponse>> {
        let session = &self.model.session;
        let request = UnloadModelRequest {
            model_id: self.model.id.clone(),
        };
        let pending =
            session.submit("unload_model", "UnloadModel", &request, None, Kind::Submit)?;
        Ok(ApiFuture::single(session.clone(), pending, |_, answer| {
            Ok(answer)
        }))
    }
}

/// A client for what was saved: its sampling session, or a new one on its path.
fn sampler(session: &Arc<Session>, saved: SaveWeightsForSamplerResponse) -> Result<SamplingClient> {
    match (saved.sampling_session_id, saved.path) {
        (Some(id), path) => Ok(SamplingClient::new(session.clone(), id, path)),
        (None, Some(path)) => SamplingClient::create(session.clone(), &path),
        (None, None) => Err(Error::Unexpected {
            call: Box::new(call("save_weights_for_sampler")),
            problem: "the answer has neither a path nor a sampling session".into(),
        }),
    }
}

impl Model {
    /// Sends one training request, in its turn.
    fn send_one<B, P, T>(
        &self,
        name: &'static str,
        request_type: &'static str,
        kind: Kind,
        request: impl FnOnce(u64) -> B,
        finish: impl FnOnce(&Arc<Session>, P) -> Result<T> + Send + 'static,
    ) -> Result<ApiFuture<T>>
    where
        B: serde::Serialize,
        P: serde::de::DeserializeOwned + Send + 'static,
        T: 'static,
    {
        let pending = self.order.turn()?.send(|seq_id| {
            self.session
                .submit(name, request_type, &request(seq_id), Some(seq_id), kind)
        })?;
        Ok(ApiFuture::single(self.session.clone(), pending, finish))
    }

    /// Sends a batch, one request a chunk, in order.
    pub fn send_pass(
        &self,
        turn: &mut Turn<'_>,
        pass: Pass,
        data: &[Datum],
        chunks: &[Range<usize>],
        loss_fn: &LossFn,
        config: Option<LossFnConfig>,
    ) -> Result<Vec<Pending<ForwardBackwardOutput>>> {
        let send = |chunk: &Range<usize>| {
            let input = ForwardBackwardInput {
                data: data[chunk.clone()].to_vec(),
                loss_fn: loss_fn.clone(),
                loss_fn_config: config.clone(),
            };
            turn.send(|seq_id| self.send_chunk(pass, input, seq_id))
        };
        chunks.iter().map(send).collect()
    }

    fn send_chunk(
        &self,
        pass: Pass,
        input: ForwardBackwardInput,
        seq_id: u64,
    ) -> Result<Pending<ForwardBackwardOutput>> {
        let model_id = self.id.clone();
        let seq = Some(seq_id);
        match pass {
            Pass::Forward => {
                let request = ForwardRequest {
                    forward_input: input,
                    model_id,
                    seq_id,
                };
                self.session
                    .submit("forward", "Forward", &request, seq, Kind::Submit)
            }
            Pass::ForwardBackward => {
                let request = ForwardBackwardRequest {
                    forward_backward_input: input,
                    model_id,
                    seq_id,
                };
                self.session.submit(
                    "forward_backward",
                    "ForwardBackward",
                    &request,
                    seq,
                    Kind::Submit,
                )
            }
        }
    }
}
