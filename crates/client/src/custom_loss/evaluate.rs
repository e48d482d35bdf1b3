//! From a batch to a loss and its gradient: the same for training, for a check without a server and
//! for a recorded step.

use std::{ops::Range, panic::Location};

use tinsmith_grad::{Backward, Error as GradError, Tensor, Var, grad, reached_rows};
use tinsmith_wire::Metrics;

use super::loss::{Loss, MetricValue, Term};
use crate::{
    Batch, Error, GradientReport, Normalization, Result, StepReport, TermReport,
    training::preflight,
};

/// A loss, evaluated and found good.
#[derive(Debug)]
pub(crate) struct Evaluated {
    pub value: f64,
    pub terms: Vec<TermReport>,
    pub metrics: Metrics,
    /// By the packed logprobs, row-major; what is sent is its negative.
    pub gradient: Vec<f32>,
    pub normalization: Option<Normalization>,
    pub max_drift: Option<f64>,
    pub is_detached_allowed: bool,
}

impl Evaluated {
    /// What is known before anything is sent.
    pub fn report(&self) -> StepReport {
        StepReport::of_loss(
            self.value,
            self.terms.clone(),
            self.metrics.clone(),
            GradientReport::of(&self.gradient),
            self.normalization,
        )
    }
}

/// What the loss function, called by the user at `at`, makes of a batch.
pub(crate) fn call<F>(batch: &Batch, loss: F, at: &'static Location<'static>) -> Result<Loss>
where
    F: FnOnce(&Batch) -> anyhow::Result<Loss>,
{
    loss(batch).map_err(|source| Error::LossFailed { source, at })
}

/// Calls the loss function and evaluates its loss, terms, metrics and gradient in one schedule,
/// with each guard in turn. The gradient is written to the buffer given.
pub(crate) fn evaluate<F>(
    batch: &Batch,
    loss: F,
    at: &'static Location<'static>,
    mut gradient: Vec<f32>,
) -> Result<Evaluated>
where
    F: FnOnce(&Batch) -> anyhow::Result<Loss>,
{
    let loss = call(batch, loss, at)?;
    let logprobs = batch.logprobs();
    let leaf = logprobs.values();
    let root = loss.root()?;
    loss.check_reach(&root, batch)?;

    let norms = loss.gradient_norms_by(leaf)?;
    let values = loss.terms.iter().map(|term| &term.value);
    let beside: Vec<&Var> = values.chain(&norms).chain(loss.lazy_metrics()).collect();
    gradient.resize(leaf.elem_count(), 0.0);
    let backward = Backward::new(&root).allow_unused().aux(&beside);
    let values = backward.run_into(&[leaf], &mut [&mut gradient]).map_err(Error::Loss)?;
    loss.check_value(values.value(), &root, leaf)?;
    loss.check_gradient(&gradient, &root, batch)?;

    let normalization = Normalization::of(loss.normalized_by, &gradient, logprobs.offsets());
    let factor = normalization.map_or(1.0, |by| by.factor());
    if factor != 1.0 {
        gradient.iter_mut().for_each(|g| *g = (f64::from(*g) * factor) as f32);
    }
    let beside = values.aux().iter().map(number).collect::<Result<Vec<f64>>>()?;
    let (terms, beside) = beside.split_at(loss.terms.len());
    let (norms, lazy) = beside.split_at(norms.len());
    Ok(Evaluated {
        value: values.value(),
        terms: loss.term_reports(terms, norms, factor),
        metrics: loss.known_metrics(lazy),
        gradient,
        normalization,
        max_drift: loss.max_drift,
        is_detached_allowed: loss.detached_allowed,
    })
}

impl Loss {
    /// The sum of the terms, once each of these and each metric is known to be one number of a name
    /// of its own.
    pub(super) fn root(&self) -> Result<Var> {
        self.check_names()?;
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

    /// Every datum is trained on, unless the user does not want that.
    fn check_reach(&self, root: &Var, batch: &Batch) -> Result<()> {
        if self.unused_allowed {
            return Ok(());
        }
        let logprobs = batch.logprobs();
        let data = unused(&reached_rows(root, logprobs.values()), logprobs.offsets());
        match data.is_empty() {
            true => Ok(()),
            false => Err(Error::UnusedData { data, at: self.at }),
        }
    }

    fn check_value(&self, value: f64, root: &Var, leaf: &Var) -> Result<()> {
        if value.is_finite() {
            return Ok(());
        }
        let cause = culprit(root, leaf);
        Err(Error::LossNotFinite { value, cause, at: self.at })
    }

    fn check_gradient(&self, gradient: &[f32], root: &Var, batch: &Batch) -> Result<()> {
        let Some(element) = preflight::first(gradient, |g| !g.is_finite()) else {
            return Ok(());
        };
        let logprobs = batch.logprobs();
        let row_len = gradient.len() / logprobs.total().max(1);
        let offsets = logprobs.offsets();
        let index = offsets.partition_point(|&start| start * row_len <= element) - 1;
        Err(Error::GradientNotFinite {
            index,
            position: element - offsets[index] * row_len,
            value: gradient[element],
            cause: culprit(root, logprobs.values()),
            at: self.at,
        })
    }

    /// One for each term, if they are asked for.
    fn gradient_norms_by(&self, leaf: &Var) -> Result<Vec<Var>> {
        match self.has_norms {
            true => self.terms.iter().map(|term| norm(term, leaf)).collect(),
            false => Ok(Vec::new()),
        }
    }

    fn lazy_metrics(&self) -> impl Iterator<Item = &Var> {
        self.metrics.iter().filter_map(|(_, value)| match value {
            MetricValue::Lazy(var) => Some(var),
            MetricValue::Known(_) => None,
        })
    }

    /// `norms` are none or one for each term.
    fn term_reports(&self, values: &[f64], norms: &[f64], factor: f64) -> Vec<TermReport> {
        let terms = self.terms.iter().zip(values).enumerate();
        let report = |(i, (term, &value)): (usize, (&Term, &f64))| TermReport {
            name: term.name.clone(),
            weight: term.weight,
            value,
            gradient_norm: norms.get(i).map(|norm| norm * factor),
        };
        terms.map(report).collect()
    }

    /// `lazy` are the values of [`lazy_metrics`](Self::lazy_metrics).
    fn known_metrics(&self, lazy: &[f64]) -> Metrics {
        let mut lazy = lazy.iter();
        let known = self.metrics.iter().map(|(name, value)| match value {
            MetricValue::Known(x) => (name.as_str(), *x),
            MetricValue::Lazy(_) => (name.as_str(), lazy.next().copied().unwrap_or(f64::NAN)),
        });
        known.collect()
    }
}

impl Term {
    fn weighted(&self) -> Var {
        let value = self.value.reshape(&[]);
        if self.weight == 1.0 { value } else { value * self.weight }
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
