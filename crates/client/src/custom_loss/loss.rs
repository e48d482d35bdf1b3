//! What a loss function gives back.

use std::{ops::Range, panic::Location};

use serde::Serialize;
use tinsmith_grad::{Backward, Error as GradError, Tensor, Var, grad, reached_rows};

use tinsmith_wire::GradAccumulationNormalization;

use crate::{Batch, Error, Normalization, Result, training::preflight};

/// The value of a loss function: one number to minimise, and numbers to look at.
///
/// ```
/// use tinsmith_client::{Loss, grad::Var};
/// let value = Var::scalar(2.0);
/// let loss = Loss::new(value.clone()).metric("accuracy", 0.5).regularize("l2", 0.01, value.square());
/// ```
#[derive(Debug, Clone)]
#[must_use = "return it from the loss function"]
pub struct Loss {
    terms: Vec<Term>,
    metrics: Vec<(String, MetricValue)>,
    unused_allowed: bool,
    detached_allowed: bool,
    has_norms: bool,
    normalized_by: GradAccumulationNormalization,
    max_drift: Option<f64>,
    at: &'static Location<'static>,
}

#[derive(Debug, Clone)]
struct Term {
    name: String,
    weight: f64,
    value: Var,
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
            terms: vec![Term { name: "loss".into(), weight: 1.0, value }],
            metrics: Vec::new(),
            unused_allowed: false,
            detached_allowed: false,
            has_norms: false,
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

    /// Adds `weight * value` to the loss, and reports the term by `name`.
    pub fn regularize(mut self, name: impl Into<String>, weight: f64, value: Var) -> Self {
        self.terms.push(Term { name: name.into(), weight, value });
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
    /// All data of an optimiser step must come in one call then: [`Error::NormalizedApart`]. And
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

    pub(crate) fn is_detached_allowed(&self) -> bool {
        self.detached_allowed
    }
}

/// A term of a loss, evaluated.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TermReport {
    /// `loss`, or the name given to [`Loss::regularize`].
    pub name: String,
    /// What it is multiplied by.
    pub weight: f64,
    /// Its value, before that.
    pub value: f64,
    /// The Euclidean norm of its gradient by the logprobs, weight included, if
    /// [`Loss::gradient_norms`] asked for it.
    pub gradient_norm: Option<f64>,
}

impl TermReport {
    /// What it adds to the loss.
    pub fn weighted(&self) -> f64 {
        self.weight * self.value
    }
}

/// A loss, evaluated and found good.
#[derive(Debug)]
pub(crate) struct Evaluated {
    pub value: f64,
    pub terms: Vec<TermReport>,
    pub metrics: Vec<(String, f64)>,
    /// By the packed logprobs, row-major; what is sent is its negative.
    pub gradient: Vec<f32>,
    pub normalization: Option<Normalization>,
    pub max_drift: Option<f64>,
}

impl Loss {
    /// The loss, its terms, its metrics and its gradient in one evaluation, each guard in turn. The
    /// gradient is written to the buffer given.
    pub(crate) fn evaluate(self, batch: &Batch, mut gradient: Vec<f32>) -> Result<Evaluated> {
        self.check_names()?;
        let logprobs = batch.logprobs();
        let leaf = logprobs.values();
        let root = self.root()?;
        if !self.unused_allowed {
            let data = unused(&reached_rows(&root, leaf), logprobs.offsets());
            if !data.is_empty() {
                return Err(Error::UnusedData { data, at: self.at });
            }
        }
        let lazy = self.metrics.iter().filter_map(|(_, value)| match value {
            MetricValue::Lazy(var) => Some(var),
            MetricValue::Known(_) => None,
        });
        let norms = match self.has_norms {
            true => self.terms.iter().map(|term| norm(term, leaf)).collect::<Result<Vec<Var>>>()?,
            false => Vec::new(),
        };
        let values = self.terms.iter().map(|term| &term.value);
        let beside: Vec<&Var> = values.chain(&norms).chain(lazy).collect();
        let backward = Backward::new(&root).allow_unused().aux(&beside);
        gradient.resize(leaf.elem_count(), 0.0);
        let values = backward.run_into(&[leaf], &mut [&mut gradient]).map_err(Error::Loss)?;
        let value = values.value();
        if !value.is_finite() {
            let cause = culprit(&root, leaf);
            return Err(Error::LossNotFinite { value, cause, at: self.at });
        }
        if let Some(element) = preflight::first(&gradient, |g| !g.is_finite()) {
            let row_len = gradient.len() / logprobs.total().max(1);
            let offsets = logprobs.offsets();
            let index = offsets.partition_point(|&start| start * row_len <= element) - 1;
            return Err(Error::GradientNotFinite {
                index,
                position: element - offsets[index] * row_len,
                value: gradient[element],
                cause: culprit(&root, leaf),
                at: self.at,
            });
        }
        let normalization = Normalization::of(self.normalized_by, &gradient, logprobs.offsets());
        let factor = normalization.map_or(1.0, |by| by.factor());
        if factor != 1.0 {
            for g in &mut gradient {
                *g = (f64::from(*g) * factor) as f32;
            }
        }
        let beside = values.aux().iter().map(number).collect::<Result<Vec<f64>>>()?;
        let (terms, beside) = beside.split_at(self.terms.len());
        let (norms, lazy) = beside.split_at(norms.len());
        let mut lazy = lazy.iter();
        Ok(Evaluated {
            value,
            terms: self
                .terms
                .into_iter()
                .zip(terms)
                .enumerate()
                .map(|(i, (term, &value))| {
                    term.report(value, norms.get(i).map(|norm| norm * factor))
                })
                .collect(),
            metrics: self
                .metrics
                .into_iter()
                .map(|(name, value)| (name, value.known(&mut lazy)))
                .collect(),
            gradient,
            normalization,
            max_drift: self.max_drift,
        })
    }

    /// Every term and every metric has a name of its own.
    fn check_names(&self) -> Result<()> {
        let terms = self.terms.iter().map(|term| &term.name);
        let metrics = self.metrics.iter().map(|(name, _)| name);
        for names in [terms.collect::<Vec<_>>(), metrics.collect()] {
            for (i, &name) in names.iter().enumerate() {
                if names[..i].contains(&name) {
                    let name = name.clone();
                    return Err(Error::NameTaken { name, at: self.at });
                }
            }
        }
        Ok(())
    }

    /// The sum of the terms, once each is known to be one number.
    pub(crate) fn root(&self) -> Result<Var> {
        let is_scalar = |var: &Var| match var.error() {
            Some(error) => Err(Error::Loss(error.clone())),
            None => Ok(var.elem_count() == 1),
        };
        for Term { value, .. } in &self.terms {
            if !is_scalar(value)? {
                let shape = value.shape().to_vec();
                return Err(Error::LossNotScalar { shape, at: self.at });
            }
        }
        for (name, value) in &self.metrics {
            if let MetricValue::Lazy(var) = value
                && !is_scalar(var)?
            {
                let (name, shape) = (name.clone(), var.shape().to_vec());
                return Err(Error::MetricNotScalar { name, shape, at: self.at });
            }
        }
        let mut weighted = self.terms.iter().map(Term::weighted);
        let first = weighted.next().unwrap_or_else(|| Var::scalar(0.0));
        Ok(weighted.fold(first, |sum, term| sum + term))
    }
}

impl Term {
    fn weighted(&self) -> Var {
        let value = self.value.reshape(&[]);
        if self.weight == 1.0 { value } else { value * self.weight }
    }

    fn report(self, value: f64, gradient_norm: Option<f64>) -> TermReport {
        TermReport { name: self.name, weight: self.weight, value, gradient_norm }
    }
}

impl MetricValue {
    /// Its number; those evaluated come in order.
    fn known<'a>(self, evaluated: &mut impl Iterator<Item = &'a f64>) -> f64 {
        match self {
            MetricValue::Known(x) => x,
            MetricValue::Lazy(_) => evaluated.next().copied().unwrap_or(f64::NAN),
        }
    }
}

/// The norm of the gradient of a term by `leaf`; 0 for one that does not depend on it.
fn norm(term: &Term, leaf: &Var) -> Result<Var> {
    match grad(&term.weighted(), &[leaf]) {
        Ok(gradient) => Ok(gradient[0].square().sum().sqrt()),
        Err(GradError::Unused { .. }) => Ok(Var::scalar(0.0)),
        Err(error) => Err(Error::Loss(error)),
    }
}

/// The op that made the first NaN or infinity.
fn culprit(root: &Var, leaf: &Var) -> Option<Box<GradError>> {
    Backward::new(root).allow_unused().check_finite().run(&[leaf]).err().map(Box::new)
}

/// The sequences of which no row is reached. One without rows needs none.
fn unused(reached: &[Range<usize>], offsets: &[usize]) -> Vec<usize> {
    let is_unused = |seq: &[usize]| {
        let next = reached.partition_point(|range| range.end <= seq[0]);
        seq[0] < seq[1] && reached.get(next).is_none_or(|range| range.start >= seq[1])
    };
    let seqs = offsets.windows(2).enumerate();
    seqs.filter(|(_, seq)| is_unused(seq)).map(|(i, _)| i).collect()
}

fn number(tensor: &Tensor) -> Result<f64> {
    Var::new(tensor.clone()).item().map_err(Error::Loss)
}

#[cfg(test)]
mod tests {
    use super::unused;

    #[test]
    fn a_sequence_is_unused_when_no_row_of_it_is_reached() {
        let offsets = [0, 2, 2, 5, 6];
        assert_eq!(unused(&[0..3, 4..6], &offsets), [0; 0]);
        assert_eq!(unused(&[], &offsets), [0, 2, 3]);
        assert_eq!(unused(&[1..2, 4..5], &offsets), [3]);
        assert_eq!(unused(&[2..4, 4..5], &offsets), [0, 3]);
    }
}
