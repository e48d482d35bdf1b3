use std::{cell::RefCell, fmt, panic::Location};

use tinsmith_grad::{DType, Gradcheck, GradcheckReport, Ragged, Var};
use tinsmith_wire::{Datum, TensorData};

use super::{
    evaluate::{self, evaluate},
    two_passes,
};
use crate::{Batch, Clock, DatumProblem, Error, Loss, Result, StepReport, SystemClock};

/// Runs a loss function without a server, on made-up logprobs: every guard of
/// [`forward_backward_custom`](crate::TrainingClient::forward_backward_custom), and its gradient
/// against central differences in f64. For a test of one's own loss, or a look before the first
/// step.
///
/// The logprobs are near the data's own input `logprobs`, if they have one, so that importance
/// ratios are near 1; else between -0.05 and -3. [`check_loss_at`] takes others.
///
/// # Errors
/// Those of `forward_backward_custom` before its second pass, and [`Error::WrongGradient`], which
/// [`Loss::allow_detached`] forgives where it is meant.
///
/// ```
/// use tinsmith_client::{Datum, Error, Loss, ModelInput, check_loss};
///
/// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2, 3]))
///     .with("target_tokens", vec![2i64, 3, 4])
///     .with("weights", vec![0.0f32, 1.0, 1.0])];
/// let check = check_loss(&data, |batch| {
///     Ok(Loss::new(-(batch.logprobs() * batch.input("weights")?).sum()))
/// })?;
/// assert_eq!(check.report.gradient.max_abs, 1.0);
///
/// // A part of the loss that was detached by mistake.
/// let wrong = check_loss(&data, |batch| {
///     let p = batch.logprobs().exp();
///     Ok(Loss::new((&p * p.detach()).sum()))
/// });
/// assert!(matches!(wrong, Err(Error::WrongGradient { .. })));
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn check_loss<F>(data: &[Datum], loss: F) -> Result<LossCheck>
where
    F: Fn(&Batch) -> anyhow::Result<Loss>,
{
    let targets = prepare(data)?;
    let logprobs = data
        .iter()
        .zip(&targets)
        .enumerate()
        .map(|(index, (datum, targets))| made_up(index, datum, targets));
    check(data, &targets, &logprobs.collect::<Result<Vec<_>>>()?, loss, Location::caller())
}

/// As [`check_loss`], on these logprobs: `logprobs[i]` has the shape of the `target_tokens` of
/// `data[i]`.
///
/// # Errors
/// As [`check_loss`]; [`Error::OutputCount`] and [`Error::Logprobs`] for logprobs that do not fit.
#[track_caller]
pub fn check_loss_at<F>(data: &[Datum], logprobs: &[TensorData], loss: F) -> Result<LossCheck>
where
    F: Fn(&Batch) -> anyhow::Result<Loss>,
{
    let targets = prepare(data)?;
    check(data, &targets, logprobs, loss, Location::caller())
}

/// A loss that passed its check. Prints as the report and a line on its derivatives.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LossCheck {
    /// The loss, its terms, metrics and gradient, and warnings.
    pub report: StepReport,
    /// The comparison with central differences.
    pub derivatives: GradcheckReport,
}

impl fmt::Display for LossCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.report, self.derivatives)
    }
}

fn prepare(data: &[Datum]) -> Result<Vec<TensorData>> {
    two_passes::check_data(data)?;
    two_passes::targets(data)
}

fn check<F>(
    data: &[Datum],
    targets: &[TensorData],
    logprobs: &[TensorData],
    loss: F,
    at: &'static Location<'static>,
) -> Result<LossCheck>
where
    F: Fn(&Batch) -> anyhow::Result<Loss>,
{
    two_passes::check_all_logprobs(logprobs.iter().map(Some), targets)?;
    let batch = Batch::new(data, logprobs)?;
    let clock = SystemClock::default();
    let evaluated = evaluate(&batch, &loss, at, Vec::new(), || clock.now())?;

    let failure = RefCell::new(None);
    let packed = batch.logprobs();
    let point = Var::new(packed.values().to_dtype(DType::F64).tensor().map_err(Error::Loss)?);
    let value = |leaves: &[Var]| {
        let logprobs = Ragged::new(leaves[0].clone(), packed.lengths());
        let batch = Batch::with_logprobs(data, logprobs);
        let root = evaluate::call(&batch, &loss, at).and_then(|loss| loss.root());
        root.unwrap_or_else(|error| {
            *failure.borrow_mut() = Some(error);
            leaves[0].sum()
        })
    };
    let hold_detached = evaluated.is_detached_allowed;
    let check = Gradcheck { hold_detached, ..Gradcheck::default() };
    let derivatives = check.run(value, &[point]);
    if let Some(error) = failure.take() {
        return Err(error);
    }
    Ok(LossCheck {
        report: evaluated.report(data, logprobs),
        derivatives: derivatives
            .map_err(|cause| Error::WrongGradient { cause: Box::new(cause), at })?,
    })
}

/// The same numbers in every run, none at a kink: 0, or a ratio of 1.
fn made_up(index: usize, datum: &Datum, targets: &TensorData) -> Result<TensorData> {
    let n = targets.elem_count();
    let uniform = |i: usize, salt: f64| {
        let x = ((index * 8_191 + i) as f64 + salt) * 0.618_033_988_749_894_9;
        x.fract()
    };
    let old = datum
        .input("logprobs")
        .and_then(|old| old.to_dense().ok())
        .filter(|old| old.elem_count() == n);
    let values: Vec<f32> = match old.as_ref().and_then(TensorData::as_f32) {
        Some(old) => {
            let near =
                |(i, &old): (usize, &f32)| (f64::from(old) + uniform(i, 0.31) * 0.5 - 0.25) as f32;
            old.iter().enumerate().map(near).collect()
        }
        None => (0..n).map(|i| (-0.05 - 2.95 * uniform(i, 0.17)) as f32).collect(),
    };
    TensorData::new(values, &targets.shape()).map_err(|error| Error::Logprobs {
        index,
        problem: DatumProblem::Unusable(error.to_string()),
    })
}
