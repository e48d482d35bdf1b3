//! From a batch to a loss and its gradient: the same for training, for a check without a server and
//! for a recorded step.

use std::{panic::Location, time::Duration};

use tinsmith_grad::{Backward, Error as GradError, Tensor, Var, grad};
use tinsmith_wire::{Datum, Metrics, TensorData};

use super::loss::{Loss, MetricValue, Term};
use crate::{
    Batch, Error, GradientReport, Normalization, Result, RolloutGap, StepReport, TermReport,
    Warning, observe::trace,
};

/// A loss, evaluated and found good.
#[derive(Debug)]
pub(crate) struct Evaluated {
    pub value: f64,
    pub terms: Vec<TermReport>,
    pub metrics: Metrics,
    /// By the packed logprobs, row-major; what is sent is its negative.
    pub gradient: Vec<f32>,
    pub gradient_report: GradientReport,
    pub normalization: Option<Normalization>,
    pub max_drift: Option<f64>,
    pub is_detached_allowed: bool,
}

impl Evaluated {
    /// What is known before anything is sent. `logprobs` are those of the `data`, as they came.
    pub fn report(&self, data: &[Datum], logprobs: &[TensorData]) -> StepReport {
        let mut report = StepReport {
            loss: self.value,
            terms: self.terms.clone(),
            metrics: self.metrics.clone(),
            gradient: self.gradient_report,
            normalization: self.normalization,
            rollout: RolloutGap::of(data, logprobs),
            ..StepReport::default()
        };
        report.warnings = Warning::about(&report);
        report
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
    now: impl Fn() -> Duration,
) -> Result<Evaluated>
where
    F: FnOnce(&Batch) -> anyhow::Result<Loss>,
{
    let _span = trace::loss();
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
    let mut gradient_report = GradientReport::of(&gradient);
    if !gradient_report.norm.is_finite() {
        return Err(loss.gradient_not_finite(&gradient, &root, batch));
    }

    let normalization = Normalization::of(loss.normalized_by, &gradient, logprobs.offsets());
    let factor = normalization.map_or(1.0, |by| by.factor());
    if factor != 1.0 {
        gradient.iter_mut().for_each(|g| *g = (f64::from(*g) * factor) as f32);
        gradient_report = GradientReport::of(&gradient);
    }
    let mut lazy = lazy.iter();
    let metrics = known(&loss.metrics, &mut lazy);
    let norms: Vec<f64> = norms.iter().map(|norm| norm * factor).collect();
    let mut terms = loss.term_reports(terms, &norms, &mut lazy);
    loss.check_metric_names(&terms)?;
    loss.time_terms_into(&mut terms, leaf, now)?;
    Ok(Evaluated {
        value: values.value(),
        terms,
        metrics,
        gradient,
        gradient_report,
        normalization,
        max_drift: loss.max_drift,
        is_detached_allowed: loss.detached_allowed,
    })
}

impl Loss {
    /// One for each term, if they are asked for.
    fn gradient_norms_by(&self, leaf: &Var) -> Result<Vec<Var>> {
        match self.has_norms {
            true => self.terms.iter().map(|term| norm(term, leaf)).collect(),
            false => Ok(Vec::new()),
        }
    }

    /// Those of the loss, then those of each term.
    pub(super) fn all_metrics(&self) -> impl Iterator<Item = &(String, MetricValue)> {
        self.metrics.iter().chain(self.terms.iter().flat_map(|term| &term.metrics))
    }

    fn lazy_metrics(&self) -> impl Iterator<Item = &Var> {
        self.all_metrics().filter_map(|(_, value)| match value {
            MetricValue::Lazy(var) => Some(var),
            MetricValue::Known(_) => None,
        })
    }

    /// `norms` are none or one for each term; `lazy` are the values of what is left of
    /// [`lazy_metrics`](Self::lazy_metrics).
    fn term_reports<'a>(
        &self,
        values: &[f64],
        norms: &[f64],
        lazy: &mut impl Iterator<Item = &'a f64>,
    ) -> Vec<TermReport> {
        let terms = self.terms.iter().zip(values).enumerate();
        let report = |(i, (term, &value)): (usize, (&Term, &f64))| TermReport {
            name: term.name.clone(),
            weight: term.weight,
            value,
            gradient_norm: norms.get(i).copied(),
            metrics: known(&term.metrics, lazy),
            time: None,
        };
        terms.map(report).collect()
    }

    fn time_terms_into(
        &self,
        reports: &mut [TermReport],
        leaf: &Var,
        now: impl Fn() -> Duration,
    ) -> Result<()> {
        if !self.has_times {
            return Ok(());
        }
        let mut gradient = vec![0f32; leaf.elem_count()];
        for (term, report) in self.terms.iter().zip(reports) {
            let start = now();
            let root = term.weighted();
            let backward = Backward::new(&root).allow_unused();
            backward.run_into(&[leaf], &mut [&mut gradient]).map_err(Error::Loss)?;
            report.time = Some(now().saturating_sub(start));
        }
        Ok(())
    }
}

/// The metrics with their values; those evaluated come in order.
fn known<'a>(
    metrics: &[(String, MetricValue)],
    evaluated: &mut impl Iterator<Item = &'a f64>,
) -> Metrics {
    let known = metrics.iter().map(|(name, value)| match value {
        MetricValue::Known(x) => (name.as_str(), *x),
        MetricValue::Lazy(_) => (name.as_str(), evaluated.next().copied().unwrap_or(f64::NAN)),
    });
    known.collect()
}

impl Term {
    pub fn weighted(&self) -> Var {
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

fn number(tensor: &Tensor) -> Result<f64> {
    Var::new(tensor.clone()).item().map_err(Error::Loss)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tinsmith_wire::ModelInput;

    use super::*;
    use crate::training::shared_arrays::SharedArrays;

    #[test]
    fn each_term_is_timed_by_the_clock_given() {
        let data = [Datum::new(ModelInput::from_tokens(vec![1, 2]))];
        let batch = Batch::new(&data, &[vec![-1f32, -2.0].into()]).unwrap();
        let asked = Cell::new(0);
        // The second question comes 1 s after the first, the third 2 s after the second, ..
        let now = || {
            asked.set(asked.get() + 1);
            Duration::from_secs(asked.get() * (asked.get() - 1) / 2)
        };
        let loss = |batch: &Batch| {
            let lp = batch.logprobs();
            Ok(Loss::new(-lp.sum()).regularize("l2", 0.5, lp.square().sum()).time_terms())
        };
        let found = evaluate(&batch, loss, Location::caller(), Vec::new(), now).unwrap();
        let seconds: Vec<_> = found.terms.iter().map(|term| term.time.unwrap().as_secs()).collect();
        assert_eq!((seconds, asked.get()), (vec![1, 3], 4));
        // The terms' own gradients stay apart from that of the loss: -1 + l.
        assert_eq!(found.gradient, [-2.0, -3.0]);
    }

    /// A schedule that is kept for the next step keeps none of the arrays of this one.
    #[test]
    fn steps_share_the_memory_of_their_batches() {
        let arrays = SharedArrays::default();
        let tokens = 20_000;
        for step in 0..5 {
            let old = vec![-1f32; tokens];
            let data = [Datum::new(ModelInput::from_tokens(vec![1; tokens])).with("logprobs", old)];
            let logprobs = [vec![-1.0 - step as f32; tokens].into()];
            let batch = Batch::in_arrays(&arrays, &data, &logprobs).unwrap();
            let loss = |batch: &Batch| {
                let lp = batch.logprobs();
                Ok(Loss::new(((&lp - batch.input("logprobs")?) * &lp).sum()))
            };
            let now = || Duration::ZERO;
            let found = evaluate(&batch, loss, Location::caller(), Vec::new(), now).unwrap();
            // l (l + 1), whose derivative is 2 l + 1.
            let l = -1.0 - f64::from(step);
            assert!((found.value / tokens as f64 - l * (l + 1.0)).abs() < 1e-6);
            assert_eq!(f64::from(found.gradient[7]), 2.0 * l + 1.0);
        }
        assert_eq!(arrays.len(), 2);
    }
}
