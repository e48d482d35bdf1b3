//! What a loss function gives back.

use std::panic::Location;

use tinsmith_grad::Var;
use tinsmith_wire::GradAccumulationNormalization;

#[cfg(doc)]
use crate::Error;

/// The value of a loss function: one number to minimize, and numbers to look at.
///
/// ```
/// use tinsmith_client::{Loss, grad::Var};
/// let value = Var::scalar(2.0);
/// let loss = Loss::new(value.clone()).metric("accuracy", 0.5).regularize("l2", 0.01, value.square());
/// ```
#[derive(Debug, Clone)]
#[must_use = "return it from the loss function"]
pub struct Loss {
    pub(super) terms: Vec<Term>,
    pub(super) metrics: Vec<(String, MetricValue)>,
    pub(super) unused_allowed: bool,
    pub(super) constant_terms_allowed: bool,
    pub(super) detached_allowed: bool,
    pub(super) has_norms: bool,
    pub(super) has_times: bool,
    pub(super) normalized_by: GradAccumulationNormalization,
    pub(super) max_drift: Option<f64>,
    pub(super) at: &'static Location<'static>,
}

#[derive(Debug, Clone)]
pub(super) struct Term {
    pub name: String,
    pub weight: f64,
    pub value: Var,
    pub metrics: Vec<(String, MetricValue)>,
    pub at: &'static Location<'static>,
}

impl Term {
    #[track_caller]
    fn new(name: String, weight: f64, value: Var) -> Self {
        Term { name, weight, value, metrics: Vec::new(), at: Location::caller() }
    }
}

/// A number to report beside a loss: known already, or evaluated with the loss.
#[derive(Debug, Clone)]
pub enum MetricValue {
    /// Known.
    Known(f64),
    /// A scalar, evaluated with the loss. It takes no part in the gradient.
    Lazy(Var),
}

impl From<f64> for MetricValue {
    fn from(x: f64) -> Self {
        MetricValue::Known(x)
    }
}

impl From<Var> for MetricValue {
    fn from(var: Var) -> Self {
        MetricValue::Lazy(var)
    }
}

impl From<&Var> for MetricValue {
    fn from(var: &Var) -> Self {
        MetricValue::Lazy(var.clone())
    }
}

impl Loss {
    /// A loss of this value, a scalar.
    #[track_caller]
    pub fn new(value: Var) -> Self {
        Loss {
            terms: vec![Term::new("loss".into(), 1.0, value)],
            metrics: Vec::new(),
            unused_allowed: false,
            constant_terms_allowed: false,
            detached_allowed: false,
            has_norms: false,
            has_times: false,
            normalized_by: GradAccumulationNormalization::None,
            max_drift: None,
            at: Location::caller(),
        }
    }

    /// Reports a number under `name` in the metrics of the result.
    pub fn metric(mut self, name: impl Into<String>, value: impl Into<MetricValue>) -> Self {
        self.metrics.push((name.into(), value.into()));
        self
    }

    /// Adds `weight * value` to the loss, and reports the term by `name`. A term that does not
    /// depend on the logprobs, because it was detached say, is an error unless
    /// [`allow_constant_terms`](Self::allow_constant_terms) accepts it.
    ///
    /// Each term of a loss that has several is in the report, and in the metrics of the result:
    /// `loss/NAME` is its value, `loss/NAME:weighted` what it adds to the loss,
    /// `loss/NAME:grad_norm` what [`gradient_norms`](Self::gradient_norms) asks for,
    /// `loss/NAME:seconds` what [`time_terms`](Self::time_terms) asks for and `loss/NAME/OWN` its
    /// [`term_metric`](Self::term_metric) OWN. The value given to [`new`](Self::new) is the term
    /// `loss`.
    ///
    /// ```
    /// # use tinsmith_client::{Datum, LoraConfig, Loss, ModelInput, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2])).with("target_tokens", vec![2i64, 3])];
    /// let step = training.forward_backward_custom(&data, |batch| {
    ///     let lp = batch.logprobs();
    ///     Ok(Loss::new(-lp.sum())
    ///         .regularize("l2", 0.5, lp.square().sum())
    ///         .term_metric("largest", lp.square().values().max()))
    /// })?;
    /// let metrics = step.result()?.output.metrics;
    /// assert_eq!(metrics["loss/l2:weighted"], 0.5 * metrics["loss/l2"]);
    /// assert!(metrics["loss/l2/largest"] < metrics["loss/l2"]);
    /// let sum = metrics["loss/loss"] + metrics["loss/l2:weighted"];
    /// assert!((sum - metrics["loss:sum"]).abs() < 1e-4);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn regularize(mut self, name: impl Into<String>, weight: f64, value: Var) -> Self {
        self.terms.push(Term::new(name.into(), weight, value));
        self
    }

    /// Reports a number about the term that was given last, to [`regularize`](Self::regularize) or
    /// [`new`](Self::new): in the term's report, and as `loss/TERM/NAME` in the metrics of the
    /// result.
    ///
    /// ```
    /// use tinsmith_client::{Datum, Loss, ModelInput, check_loss};
    /// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2])).with("target_tokens", vec![2i64, 3])];
    /// let check = check_loss(&data, |batch| {
    ///     let lp = batch.logprobs();
    ///     Ok(Loss::new(-lp.sum())
    ///         .term_metric("tokens", 2.0)
    ///         .regularize("l2", 0.5, lp.square().sum())
    ///         .term_metric("tokens", 1.0))
    /// })?;
    /// let tokens: Vec<f64> = check.report.terms.iter().map(|term| term.metrics["tokens"]).collect();
    /// assert_eq!(tokens, [2.0, 1.0]);
    /// # anyhow::Ok(())
    /// ```
    pub fn term_metric(mut self, name: impl Into<String>, value: impl Into<MetricValue>) -> Self {
        if let Some(term) = self.terms.last_mut() {
            term.metrics.push((name.into(), value.into()));
        }
        self
    }

    /// Reports what each term and its gradient take to evaluate. For that each is evaluated once
    /// more by itself, after the loss, so a step costs about twice as much as it did, and more if
    /// terms share much; their times need not add up to that of the loss, where they are evaluated
    /// together. In the first two steps of a batch's lengths the time includes planning.
    ///
    /// ```
    /// use tinsmith_client::{Datum, Loss, ModelInput, check_loss};
    /// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2])).with("target_tokens", vec![2i64, 3])];
    /// let check = check_loss(&data, |batch| {
    ///     let lp = batch.logprobs();
    ///     Ok(Loss::new(-lp.sum()).regularize("l2", 0.5, lp.square().sum()).time_terms())
    /// })?;
    /// assert!(check.report.terms.iter().all(|term| term.time.is_some()));
    /// # anyhow::Ok(())
    /// ```
    pub fn time_terms(mut self) -> Self {
        self.has_times = true;
        self
    }

    /// Reports the norm of each term's own gradient, which shows how terms weigh against each
    /// other. Costs a differentiation per term.
    ///
    /// ```
    /// use tinsmith_client::{Datum, Loss, ModelInput, check_loss};
    /// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2, 3, 4])).with("target_tokens", vec![2i64, 3, 4, 5])];
    /// let check = check_loss(&data, |batch| {
    ///     let lp = batch.logprobs();
    ///     Ok(Loss::new(-lp.sum()).regularize("mean", 0.5, lp.mean()).gradient_norms())
    /// })?;
    /// // Of four elements each: -1, and 0.5 / 4.
    /// let norms: Vec<_> = check.report.terms.iter().map(|term| term.gradient_norm).collect();
    /// assert_eq!(norms, [Some(2.0), Some(0.25)]);
    /// # anyhow::Ok(())
    /// ```
    pub fn gradient_norms(mut self) -> Self {
        self.has_norms = true;
        self
    }

    /// Divides the gradient by the number of tokens, or of sequences, for which it is not 0, before
    /// it is sent: what `grad_accumulation_normalization` of Fireworks' `optim_step` does, for
    /// servers that lack it. For losses that are sums; one that is a mean already would be divided
    /// twice. The value of the loss stays as it is; the gradient in the report is the one sent.
    ///
    /// All data of an optimizer step must come in one call then: [`Error::NormalizedApart`]. And
    /// the server must not divide again: [`Error::NormalizedTwice`].
    ///
    /// ```
    /// use tinsmith_client::{Datum, GradAccumulationNormalization, Loss, ModelInput, check_loss};
    /// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2, 3, 4]))
    ///     .with("target_tokens", vec![2i64, 3, 4, 5])
    ///     .with("weights", vec![0.0f32, 0.0, 1.0, 1.0])];
    /// let check = check_loss(&data, |batch| {
    ///     let sum = -(batch.logprobs() * batch.input("weights")?).sum();
    ///     Ok(Loss::new(sum).normalize(GradAccumulationNormalization::NumLossTokens))
    /// })?;
    /// assert_eq!(check.report.gradient.max_abs, 0.5); // two tokens of weight 1
    /// # anyhow::Ok(())
    /// ```
    pub fn normalize(mut self, by: GradAccumulationNormalization) -> Self {
        self.normalized_by = by;
        self
    }

    /// Makes the result of the step an error, [`Error::Drift`], if a logprob of the second pass is
    /// further than `nats` from that of the first. Without it a conspicuous drift is a
    /// [`Warning`](crate::Warning) of the report.
    ///
    /// ```
    /// # use tinsmith_client::{Datum, LoraConfig, Loss, ModelInput, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
    /// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2])).with("target_tokens", vec![2i64, 3])];
    /// // The local trainer computes the same bits each time.
    /// let step = training.forward_backward_custom(&data, |batch| {
    ///     Ok(Loss::new(-batch.logprobs().sum()).max_drift(0.0))
    /// })?;
    /// step.result()?;
    /// # anyhow::Ok(())
    /// ```
    pub fn max_drift(mut self, nats: f64) -> Self {
        self.max_drift = Some(nats);
        self
    }

    /// Accepts that some data do not enter the loss; their gradient is 0.
    ///
    /// ```
    /// use tinsmith_client::{Datum, Loss, ModelInput, check_loss};
    /// let datum = || Datum::new(ModelInput::from_tokens(vec![1, 2])).with("target_tokens", vec![2i64, 3]);
    /// let first_alone = |batch: &tinsmith_client::Batch| {
    ///     Ok(Loss::new(-batch.logprobs().seqs()[0].sum()))
    /// };
    /// let error = check_loss(&[datum(), datum()], first_alone).unwrap_err();
    /// assert!(error.to_string().contains("does not use the logprobs of datum 1"));
    /// let check = check_loss(&[datum(), datum()], |batch| Ok(first_alone(batch)?.allow_unused()))?;
    /// assert_eq!(check.report.gradient.zeros, 0.5);
    /// # anyhow::Ok(())
    /// ```
    pub fn allow_unused(mut self) -> Self {
        self.unused_allowed = true;
        self
    }

    /// Accepts terms that do not depend on the logprobs: they are part of the loss's value and
    /// train nothing.
    ///
    /// ```
    /// use tinsmith_client::{Datum, Loss, ModelInput, check_loss, grad::Var};
    /// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2])).with("target_tokens", vec![2i64, 3])];
    /// let with_offset = |batch: &tinsmith_client::Batch| {
    ///     Ok(Loss::new(-batch.logprobs().sum()).regularize("offset", 1.0, Var::scalar(3.0)))
    /// };
    /// let error = check_loss(&data, with_offset).unwrap_err();
    /// assert!(error.to_string().contains("the term \"offset\" of the loss"));
    /// check_loss(&data, |batch| Ok(with_offset(batch)?.allow_constant_terms()))?;
    /// # anyhow::Ok(())
    /// ```
    pub fn allow_constant_terms(mut self) -> Self {
        self.constant_terms_allowed = true;
        self
    }

    /// Accepts that parts of the loss are detached, so that its gradient is not the derivative of
    /// its value: [`check_loss`](crate::check_loss()) then compares the gradient with the
    /// derivative that takes them for constants.
    ///
    /// ```
    /// use tinsmith_client::{Datum, Loss, ModelInput, check_loss};
    /// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2])).with("target_tokens", vec![2i64, 3])];
    /// let weighted_by_confidence = |batch: &tinsmith_client::Batch| {
    ///     let lp = batch.logprobs();
    ///     Ok(Loss::new(-(lp.exp().detach() * &lp).sum()))
    /// };
    /// assert!(check_loss(&data, weighted_by_confidence).is_err());
    /// check_loss(&data, |batch| Ok(weighted_by_confidence(batch)?.allow_detached()))?;
    /// # anyhow::Ok(())
    /// ```
    pub fn allow_detached(mut self) -> Self {
        self.detached_allowed = true;
        self
    }
}
