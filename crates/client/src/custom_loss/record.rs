//! Steps of custom losses on disk, and the same steps again without a server.

use std::{
    fs, io,
    panic::Location,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tinsmith_wire::{Datum, Metrics, TensorData};

use super::evaluate::{Evaluated, evaluate};
#[cfg(doc)]
use crate::Error;
use crate::{
    Batch, Clock, Loss, Result, SystemClock, TrainingClient,
    observe::step_files::{StepFiles, failed, step_files},
};

impl TrainingClient {
    /// From now on writes what each custom loss saw and gave to a file of its own in the folder
    /// `dir`: the data with all their inputs, the logprobs of the first pass, the loss, its metrics
    /// and its gradient. [`replay`] runs them again. The folder is made if it is missing; steps
    /// that are in it already are kept, and counting goes on after them.
    ///
    /// A step that cannot be written is an error before its second pass is sent, so nothing is
    /// trained that was not recorded.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn record(&self, dir: impl AsRef<Path>) -> Result<()> {
        self.model.step_files.start(dir.as_ref())
    }
}

/// A step as it lies on disk.
#[derive(Serialize, Deserialize)]
struct Recorded {
    format: u32,
    data: Vec<Datum>,
    logprobs: Vec<TensorData>,
    loss: f64,
    metrics: Metrics,
    /// By the packed logprobs, row-major.
    gradient: Vec<f32>,
}

const FORMAT: u32 = 1;

/// Writes a step, if steps are recorded.
pub(super) fn write(
    files: &StepFiles,
    data: &[Datum],
    logprobs: &[TensorData],
    evaluated: &Evaluated,
) -> Result<()> {
    files.write(|| {
        let step = Recorded {
            format: FORMAT,
            data: data.to_vec(),
            logprobs: logprobs.to_vec(),
            loss: evaluated.value,
            metrics: evaluated.metrics.clone(),
            gradient: evaluated.gradient.clone(),
        };
        Ok(serde_json::to_vec(&step)?)
    })
}

/// A recorded step, and what a loss function makes of it now.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ReplayedStep {
    /// The file.
    pub path: PathBuf,
    /// The loss as recorded.
    pub recorded_loss: f64,
    /// The loss now.
    pub loss: f64,
    /// The metrics as recorded.
    pub recorded_metrics: Metrics,
    /// The metrics now.
    pub metrics: Metrics,
    /// The greatest difference between an element of the gradient recorded and now.
    pub gradient_difference: f64,
    /// Whether loss, metrics and gradient are the recorded ones, bit for bit.
    pub is_identical: bool,
}

/// Runs a loss function on the steps that [`TrainingClient::record`] wrote to `dir`, in their
/// order, without a server. The same loss function gives the same bits; a changed one shows what it
/// would have given.
///
/// # Errors
/// [`Error::File`] for a file that cannot be read or is no recorded step, and those of the loss
/// function, as in [`forward_backward_custom`](TrainingClient::forward_backward_custom).
///
/// ```
/// use tinsmith_client::{Datum, Loss, LoraConfig, ModelInput, ServiceClient, replay};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
/// # let dir = tempfile::tempdir()?;
/// let datum = Datum::new(ModelInput::from_tokens(vec![1, 2, 3])).with("target_tokens", vec![2i64, 3, 4]);
/// let loss = |scale: f64| move |batch: &tinsmith_client::Batch| Ok(Loss::new(batch.logprobs().sum() * scale));
/// training.record(dir.path())?;
/// training.forward_backward_custom(&[datum], loss(1.0))?.result()?;
///
/// assert!(replay(dir.path(), loss(1.0))?[0].is_identical); // without a server
/// let changed = &replay(dir.path(), loss(2.0))?[0];
/// assert_eq!((changed.loss, changed.gradient_difference), (2.0 * changed.recorded_loss, 1.0));
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn replay<F>(dir: impl AsRef<Path>, mut loss: F) -> Result<Vec<ReplayedStep>>
where
    F: FnMut(&Batch) -> anyhow::Result<Loss>,
{
    let (at, clock) = (Location::caller(), SystemClock::default());
    let steps = step_files(dir.as_ref())?.into_iter();
    let replayed = steps.map(|(_, path)| {
        let step = read(&path)?;
        let batch = Batch::new(&step.data, &step.logprobs)?;
        let now = evaluate(&batch, &mut loss, at, Vec::new(), || clock.now())?;
        Ok(compare(path, step, now))
    });
    replayed.collect()
}

fn compare(path: PathBuf, step: Recorded, now: Evaluated) -> ReplayedStep {
    let both = || step.gradient.iter().zip(&now.gradient);
    let difference = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).abs();
    let is_identical = step.loss.to_bits() == now.value.to_bits()
        && step.metrics == now.metrics
        && step.gradient.len() == now.gradient.len()
        && both().all(|(a, b)| a.to_bits() == b.to_bits());
    ReplayedStep {
        path,
        recorded_loss: step.loss,
        loss: now.value,
        recorded_metrics: step.metrics,
        gradient_difference: both().map(difference).fold(0.0, f64::max),
        is_identical,
        metrics: now.metrics,
    }
}

fn read(path: &Path) -> Result<Recorded> {
    let bytes = fs::read(path).map_err(|source| failed(path, source))?;
    let step: Recorded =
        serde_json::from_slice(&bytes).map_err(|error| failed(path, error.into()))?;
    if step.format != FORMAT {
        let found = step.format;
        let why =
            format!("the step is recorded in format {found}, and this version reads {FORMAT}");
        return Err(failed(path, io::Error::new(io::ErrorKind::InvalidData, why)));
    }
    Ok(step)
}
