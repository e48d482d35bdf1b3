use std::f64::consts::PI;

/// How the learning rate falls over a run.
///
/// ```
/// use tinsmith_losses::LrSchedule;
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
