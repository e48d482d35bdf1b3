//! One step of the optimizer.

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
    /// The settings of the model's optimizer.
    pub params: OptimizerParams,
    /// What the gradient is divided by; left to the server when absent.
    pub grad_accumulation_normalization: Option<GradAccumulationNormalization>,
}

impl OptimStep {
    /// Divides the gradient before the step. Fireworks only. After custom losses, which are
    /// normalized as they are written, the choice is [`None`](GradAccumulationNormalization::None).
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
