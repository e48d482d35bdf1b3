//! Custom losses, as a training client offers them.

use std::panic::Location;

use tinsmith_wire::Datum;

#[cfg(doc)]
use crate::Error;
use crate::{
    ApiFuture, Batch, CustomStep, Loss, PrecomputedForward, Result, StepOutput, TrainingClient,
};

impl TrainingClient {
    /// Trains on a loss of your own, in two passes: the model's logprobs come from the server,
    /// `loss` and its gradient are computed here, and the gradient goes back as the weights of a
    /// cross-entropy pass, whose gradient by the model is then that of `loss`. Returns when the
    /// server has accepted the second pass.
    ///
    /// Every datum needs `target_tokens`. Only they and `weights` (zeros when absent) travel; all
    /// other inputs are for `loss`, through [`Batch::input`]. `loss` is called once, on this
    /// thread; other threads that use this client wait until the second pass is accepted.
    ///
    /// # Errors
    /// Before anything is sent: [`Error::EmptyBatch`], [`Error::Datum`]. Between the passes, so
    /// that nothing is trained and the client can go on: [`Error::OutputCount`],
    /// [`Error::Logprobs`], [`Error::LossFailed`], [`Error::Loss`], [`Error::Term`],
    /// [`Error::Metric`], [`Error::NameTaken`], [`Error::LossNotScalar`],
    /// [`Error::MetricNotScalar`], [`Error::ConstantTerm`], [`Error::UnusedData`],
    /// [`Error::LossNotFinite`], [`Error::GradientNotFinite`], [`Error::NormalizedApart`], and
    /// [`Error::File`] where steps are recorded. And those of
    /// [`forward_backward`](Self::forward_backward) and [`ApiFuture::result`].
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
    /// let output = step.result()?.output;
    /// assert_eq!(output.loss_fn_outputs[0]["logprobs"].elem_count(), 3);
    /// optim.result()?;
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn forward_backward_custom<F>(&self, data: &[Datum], loss: F) -> Result<CustomStep>
    where
        F: FnOnce(&Batch) -> anyhow::Result<Loss>,
    {
        super::step(&self.model, data, loss, Location::caller())
    }

    /// The first pass of a custom loss by itself, for
    /// [`forward_backward_custom_after`](Self::forward_backward_custom_after): to look at the
    /// logprobs before choosing a loss, or for several losses on one batch, which then pay for it
    /// once.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`Error::OutputCount`] and [`Error::Logprobs`] of its
    /// result.
    pub fn precompute_forward(&self, data: &[Datum]) -> Result<ApiFuture<PrecomputedForward>> {
        super::precompute(&self.model, data)
    }

    /// As [`forward_backward_custom`](Self::forward_backward_custom), with a forward pass that has
    /// been made before, on the same tokens and targets. Other inputs of the data may be new.
    ///
    /// # Errors
    /// As [`forward_backward_custom`](Self::forward_backward_custom); [`Error::StaleForward`] when
    /// the weights have changed since, by an [`optim_step`](Self::optim_step) or by loading, or
    /// when the batch is another.
    ///
    /// ```
    /// # use tinsmith_client::{AdamParams, Datum, Error, LoraConfig, Loss, ModelInput, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2, 3])).with("target_tokens", vec![2i64, 3, 4])];
    /// let forward = training.precompute_forward(&data)?.result()?;
    /// let surprise = -forward.logprobs()[0].as_f32().unwrap_or_default().iter().sum::<f32>();
    ///
    /// let step = training.forward_backward_custom_after(&forward, &data, |batch| Ok(Loss::new(-batch.logprobs().sum())))?;
    /// assert!((step.report().loss - f64::from(surprise)).abs() < 1e-4);
    ///
    /// training.optim_step(&AdamParams::default())?.result()?; // the logprobs are others now
    /// let late = training.forward_backward_custom_after(&forward, &data, |batch| Ok(Loss::new(-batch.logprobs().sum())));
    /// assert!(matches!(late, Err(Error::StaleForward { .. })));
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn forward_backward_custom_after<F>(
        &self,
        forward: &PrecomputedForward,
        data: &[Datum],
        loss: F,
    ) -> Result<CustomStep>
    where
        F: FnOnce(&Batch) -> anyhow::Result<Loss>,
    {
        super::step_after(&self.model, forward, data, loss, Location::caller())
    }

    /// What a loss of your own is on these data, and its metrics: a forward pass and the loss
    /// function, so that nothing is trained and no gradient gathers. For held-out data between
    /// steps.
    ///
    /// Returns when the result is there. The pass takes its place among the requests under way, one
    /// sequence id for each of its requests, and sees the weights as they are after all that was
    /// sent before; other threads may go on sending. The loss must pass every check of a step. The
    /// report tells of the gradient too, though it goes nowhere.
    ///
    /// # Errors
    /// As [`forward_backward_custom`](Self::forward_backward_custom).
    ///
    /// ```
    /// # use tinsmith_client::{AdamParams, Datum, LoraConfig, Loss, ModelInput, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// # let data = [Datum::new(ModelInput::from_tokens(vec![1, 2, 3])).with("target_tokens", vec![2i64, 3, 4])];
    /// let nll = |batch: &tinsmith_client::Batch| {
    ///     let lp = batch.logprobs();
    ///     Ok(Loss::new(-lp.mean()).metric("perplexity", (-lp.mean()).exp()))
    /// };
    /// let before = training.evaluate(&data, nll)?;
    /// assert!((before.output.metrics["perplexity"].ln() - before.report.loss).abs() < 1e-5);
    ///
    /// training.optim_step(&AdamParams::default())?.result()?; // nothing has gathered
    /// assert_eq!(training.evaluate(&data, nll)?.report.loss, before.report.loss);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn evaluate<F>(&self, data: &[Datum], loss: F) -> Result<StepOutput>
    where
        F: FnOnce(&Batch) -> anyhow::Result<Loss>,
    {
        super::evaluate_only(&self.model, data, loss, Location::caller())
    }
}
