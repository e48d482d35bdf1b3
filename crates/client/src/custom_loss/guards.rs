//! What must hold of a loss before anything is sent that could train.

use std::ops::Range;

use tinsmith_grad::{Backward, DType, Error as GradError, Var, reached_rows};

use super::loss::{Loss, MetricValue, Term};
use crate::{Batch, Error, Result, TermReport, report::metrics_of};

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
        for (name, value) in self.all_metrics() {
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
        let terms: Vec<&String> = self.terms.iter().map(|term| &term.name).collect();
        let own = self.terms.iter().map(|term| names(&term.metrics));
        for names in [terms, names(&self.metrics)].into_iter().chain(own) {
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
    pub(super) fn check_reach(&self, batch: &Batch) -> Result<()> {
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
    pub(super) fn check_value(
        &self,
        value: f64,
        terms: &[f64],
        root: &Var,
        leaf: &Var,
    ) -> Result<()> {
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

    /// The error of a gradient that has a NaN or an infinity.
    pub(super) fn gradient_not_finite(&self, gradient: &[f32], root: &Var, batch: &Batch) -> Error {
        let element = gradient.iter().position(|g| !g.is_finite()).unwrap_or(0);
        let logprobs = batch.logprobs();
        let row_len = gradient.len() / logprobs.total().max(1);
        let offsets = logprobs.offsets();
        let index = offsets.partition_point(|&start| start * row_len <= element) - 1;
        let term = self.term_without_gradient(element, logprobs.values());
        let root = term.map_or_else(|| root.clone(), Term::weighted);
        Error::GradientNotFinite {
            term: term.and_then(|term| self.named(term)),
            index,
            position: element - offsets[index] * row_len,
            value: gradient[element],
            cause: culprit(&root, logprobs.values()),
            at: term.map_or(self.at, |term| term.at),
        }
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

    /// No metric has the name of a term's number.
    pub(super) fn check_metric_names(&self, terms: &[TermReport]) -> Result<()> {
        let of_terms = metrics_of(terms);
        let taken = of_terms
            .into_iter()
            .find(|(name, _)| self.metrics.iter().any(|(metric, _)| metric == name));
        match taken {
            Some((name, _)) => Err(Error::NameTaken { name, at: self.at }),
            None => Ok(()),
        }
    }
}

fn names(metrics: &[(String, MetricValue)]) -> Vec<&String> {
    metrics.iter().map(|(name, _)| name).collect()
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
