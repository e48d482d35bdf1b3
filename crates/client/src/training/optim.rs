//! One step of the optimizer, and the learning rate it is made with.

use std::f64::consts::PI;

use tinsmith_wire::{AdamParams, DimuonParams, GradAccumulationNormalization, OptimizerParams};

/// What [`TrainingClient::optim_step_with`](crate::TrainingClient::optim_step_with) does with the
/// gathered gradient.
///
/// ```
/// use tinsmith_client::{AdamParams, GradAccumulationNormalization, OptimStep};
/// let step = OptimStep::from(AdamParams::default().learning_rate(1e-5))
///     .grad_accumulation_normalization(GradAccumulationNormalization::NumSequences);
/// # drop(step);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct OptimStep {
    /// The settings of the model's optimiser.
    pub params: OptimizerParams,
    /// What the gradient is divided by; left to the server when absent.
    pub grad_accumulation_normalization: Option<GradAccumulationNormalization>,
}

impl OptimStep {
    /// Divides the gradient before the step. Fireworks only. After custom losses, which are
    /// normalised as they are written, the choice is [`None`](GradAccumulationNormalization::None).
    ///
    /// ```
    /// use tinsmith_client::{AdamParams, GradAccumulationNormalization, OptimStep};
    /// let step = OptimStep::from(AdamParams::default())
    ///     .grad_accumulation_normalization(GradAccumulationNormalization::None);
    /// assert_eq!(step.grad_accumulation_normalization, Some(GradAccumulationNormalization::None));
    /// ```
    #[must_use]
    pub fn grad_accumulation_normalization(mut self, by: GradAccumulationNormalization) -> Self {
        self.grad_accumulation_normalization = Some(by);
        self
    }
}

impl From<OptimizerParams> for OptimStep {
    fn from(params: OptimizerParams) -> Self {
        OptimStep { params, grad_accumulation_normalization: None }
    }
}

impl From<AdamParams> for OptimStep {
    fn from(params: AdamParams) -> Self {
        OptimizerParams::from(params).into()
    }
}

impl From<DimuonParams> for OptimStep {
    fn from(params: DimuonParams) -> Self {
        OptimizerParams::from(params).into()
    }
}

/// How the learning rate falls over a run.
///
/// ```
/// use tinsmith_client::LrSchedule;
///
/// assert_eq!(LrSchedule::Linear.multiplier(3, 4), 0.25);
/// assert_eq!(LrSchedule::Cosine.multiplier(0, 4), 1.0);
/// assert!((LrSchedule::Cosine.multiplier(2, 4) - 0.5).abs() < 1e-15);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LrSchedule {
    /// Not at all.
    Constant,
    /// In a straight line, to 0 after the last step.
    #[default]
    Linear,
    /// Along half a cosine, to 0 after the last step.
    Cosine,
}

impl LrSchedule {
    /// What to multiply the learning rate with at `step`, counted from 0, of `total_steps`.
    pub fn multiplier(self, step: usize, total_steps: usize) -> f64 {
        let progress = step as f64 / total_steps.max(1) as f64;
        match self {
            LrSchedule::Constant => 1.0,
            LrSchedule::Linear => 1.0 - progress,
            LrSchedule::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
        }
    }
}
