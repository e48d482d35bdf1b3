use serde::Serialize;

/// A term of a loss, evaluated.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TermReport {
    /// `loss`, or the name given to [`Loss::regularize`](crate::Loss::regularize).
    pub name: String,
    /// What it is multiplied by.
    pub weight: f64,
    /// Its value, before that.
    pub value: f64,
    /// The Euclidean norm of its gradient by the logprobs, weight included, if
    /// [`Loss::gradient_norms`](crate::Loss::gradient_norms) asked for it.
    pub gradient_norm: Option<f64>,
}

impl TermReport {
    /// What it adds to the loss.
    pub fn weighted(&self) -> f64 {
        self.weight * self.value
    }
}
