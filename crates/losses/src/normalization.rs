/// What accumulated gradients are divided by before clipping and the optimizer's step.
///
/// The `grad_accumulation_normalization` of Fireworks' `optim_step`. Losses that are raw sums (reinforcement learning) want
/// [`NumLossTokens`](GradNormalization::NumLossTokens); losses that are means already (SFT, DPO, ORPO) want
/// [`None`](GradNormalization::None), or they would be normalised twice.
///
/// ```
/// use tinsmith_losses::GradNormalization;
///
/// let weights: [&[f32]; 3] = [&[0.0, 0.5, -1.0], &[0.0], &[2.0]]; // per sequence, of all micro-batches
/// assert_eq!(GradNormalization::NumLossTokens.count(weights), 3);
/// assert_eq!(GradNormalization::NumSequences.count(weights), 2);
/// assert_eq!(GradNormalization::NumSequences.factor(weights), 0.5);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GradNormalization {
    /// By nothing.
    #[default]
    None,
    /// By the number of tokens that have a gradient. A token that is masked, clipped or of advantage 0 has none.
    NumLossTokens,
    /// By the number of sequences with at least one such token.
    NumSequences,
}

impl GradNormalization {
    /// What to divide by, given the gradient of each token (or the weight that was sent for it), by sequence, of all
    /// micro-batches. 0 if no token has a gradient.
    pub fn count<'a>(self, gradients: impl IntoIterator<Item = &'a [f32]>) -> usize {
        let tokens = |gradient: &[f32]| gradient.iter().filter(|&&g| g != 0.0).count();
        let tokens = gradients.into_iter().map(tokens);
        match self {
            GradNormalization::None => 1,
            GradNormalization::NumLossTokens => tokens.sum(),
            GradNormalization::NumSequences => tokens.filter(|&tokens| tokens > 0).count(),
        }
    }

    /// What to multiply the gradients with: 1 over [`count`](GradNormalization::count), or 1 if that is 0.
    pub fn factor<'a>(self, gradients: impl IntoIterator<Item = &'a [f32]>) -> f64 {
        1.0 / self.count(gradients).max(1) as f64
    }
}
