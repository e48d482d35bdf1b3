//! From a batch to a loss and its gradient: the same for training, for a check without a server and
//! for a recorded step.

use std::{ops::Range, panic::Location};

use tinsmith_grad::{Backward, DType, Error as GradError, Tensor, Var, grad, reached_rows};
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
    loss.check_reach(batch)?;

    let norms = loss.gradient_norms_by(leaf)?;
    let values = loss.terms.iter().map(|term| &term.value);
    let beside: Vec<&Var> = values.chain(&norms).chain(loss.lazy_metrics()).collect();
    gradient.resize(leaf.elem_count(), 0.0);
    let backward = Backward::new(&root).allow_unused().aux(&beside);
    let values = backward.run_into(&[leaf], &mut [&mut gradient]).map_err(Error::Loss)?;
    let beside = values.aux().iter().map(number).collect::<Result<Vec<f64>>>()?;
    let (terms, beside) = beside.split_at(loss.terms.len());
    let (norms, lazy) = beside.split_at(norms.len());
    loss.check_value(values.value(), terms, &root, leaf)?;
    loss.check_gradient(&gradient, &root, batch)?;

    let normalization = Normalization::of(loss.normalized_by, &gradient, logprobs.offsets());
    let factor = normalization.map_or(1.0, |by| by.factor());
    if factor != 1.0 {
        gradient.iter_mut().for_each(|g| *g = (f64::from(*g) * factor) as f32);
    }
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
        for term in &self.terms {
            if let Some(error) = term.value.error() {
                return Err(self.term_failed(term, error.clone()));
            }
            if term.value.elem_count() != 1 {
                let (term, shape, at) = (self.named(term), term.value.shape().to_vec(), term.at);
                return Err(Error::LossNotScalar { term, shape, at });
            }
        }
        for (name, value) in &self.metrics {
            let MetricValue::Lazy(var) = value else { continue };
            let (name, at) = (name.clone(), self.at);
            if let Some(error) = var.error() {
                return Err(Error::Metric { name, cause: Box::new(error.clone()), at });
            }
            if var.elem_count() != 1 {
                return Err(Error::MetricNotScalar { name, shape: var.shape().to_vec(), at });
            }
        }
        // A constant that the user made may be f64 beside logprobs in f32.
        let dtype = |term: &Term| term.value.dtype();
        let is_mixed = self.terms.iter().any(|term| dtype(term) != dtype(&self.terms[0]));
        let weighted = self.terms.iter().map(|term| match is_mixed {
            true => term.weighted().to_dtype(DType::F64),
            false => term.weighted(),
        });
        Ok(weighted.reduce(|sum, term| sum + term).unwrap_or_else(|| Var::scalar(0.0)))
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

    /// The name of a term, where there are several.
    fn named(&self, term: &Term) -> Option<String> {
        (self.terms.len() > 1).then(|| term.name.clone())
    }

    fn term_failed(&self, term: &Term, cause: GradError) -> Error {
        match self.named(term) {
            Some(name) => Error::Term { name, cause: Box::new(cause), at: term.at },
            None => Error::Loss(cause),
        }
    }

    /// Every term trains, and every datum is trained on, unless the user does not want that.
    fn check_reach(&self, batch: &Batch) -> Result<()> {
        let logprobs = batch.logprobs();
        let mut reached = Vec::new();
        for term in &self.terms {
            let rows = reached_rows(&term.value, logprobs.values());
            if rows.is_empty() && self.terms.len() > 1 && !self.constant_terms_allowed {
                return Err(Error::ConstantTerm { name: term.name.clone(), at: term.at });
            }
            reached.extend(rows);
        }
        let data = unused(&joined(reached), logprobs.offsets());
        match self.unused_allowed || data.is_empty() {
            true => Ok(()),
            false => Err(Error::UnusedData { data, at: self.at }),
        }
    }

    /// `terms` are the values of the terms.
    fn check_value(&self, value: f64, terms: &[f64], root: &Var, leaf: &Var) -> Result<()> {
        if value.is_finite() {
            return Ok(());
        }
        let mut terms = self.terms.iter().zip(terms);
        let first = terms.find(|(term, value)| !(term.weight * **value).is_finite());
        Err(match first.filter(|_| self.terms.len() > 1) {
            Some((term, &value)) => Error::LossNotFinite {
                term: self.named(term),
                value,
                cause: culprit(&term.weighted(), leaf),
                at: term.at,
            },
            None => {
                Error::LossNotFinite { term: None, value, cause: culprit(root, leaf), at: self.at }
            }
        })
    }

    fn check_gradient(&self, gradient: &[f32], root: &Var, batch: &Batch) -> Result<()> {
        let Some(element) = preflight::first(gradient, |g| !g.is_finite()) else {
            return Ok(());
        };
        let logprobs = batch.logprobs();
        let row_len = gradient.len() / logprobs.total().max(1);
        let offsets = logprobs.offsets();
        let index = offsets.partition_point(|&start| start * row_len <= element) - 1;
        let term = self.term_without_gradient(element, logprobs.values());
        let root = term.map_or_else(|| root.clone(), Term::weighted);
        Err(Error::GradientNotFinite {
            term: term.and_then(|term| self.named(term)),
            index,
            position: element - offsets[index] * row_len,
            value: gradient[element],
            cause: culprit(&root, logprobs.values()),
            at: term.map_or(self.at, |term| term.at),
        })
    }

    /// The first term whose own gradient is not finite at this element.
    fn term_without_gradient(&self, element: usize, leaf: &Var) -> Option<&Term> {
        let is_finite = |term: &Term| -> Option<bool> {
            let mut own = vec![0f32; leaf.elem_count()];
            let root = term.weighted();
            let backward = Backward::new(&root).allow_unused();
            backward.run_into(&[leaf], &mut [&mut own]).ok()?;
            Some(own[element].is_finite())
        };
        self.terms.iter().find(|term| is_finite(term) == Some(false))
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

/// The same rows as sorted, disjoint ranges.
fn joined(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
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
    use super::{joined, unused};

    #[test]
    fn rows_of_several_terms_are_joined() {
        let joined = |ranges: &[std::ops::Range<usize>]| joined(ranges.to_vec());
        assert_eq!(joined(&[4..6, 0..2, 1..3, 6..7, 5..6]), [0..3, 4..7]);
        assert!(joined(&[]).is_empty());
    }

    #[test]
    fn a_sequence_is_unused_when_no_row_of_it_is_reached() {
        let offsets = [0, 2, 2, 5, 6];
        assert_eq!(unused(&[0..3, 4..6], &offsets), [0; 0]);
        assert_eq!(unused(&[], &offsets), [0, 2, 3]);
        assert_eq!(unused(&[1..2, 4..5], &offsets), [3]);
        assert_eq!(unused(&[2..4, 4..5], &offsets), [0, 3]);
    }
}
