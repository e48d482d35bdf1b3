use std::fmt;

/// Why a finished forward pass cannot stand for the first pass of a custom loss.
///
/// ```
/// use tinsmith_client::ForwardProblem;
/// let problem = ForwardProblem::WeightsChanged { by: 7 };
/// assert_eq!(problem.to_string(), "request 7 has changed the weights since");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForwardProblem {
    /// It was made through another training client.
    OtherModel,
    /// The weights have changed since.
    WeightsChanged {
        /// Sequence id of the `optim_step` or `load_weights`.
        by: u64,
    },
    /// It was made on another number of data.
    OtherCount {
        /// Data of the forward pass.
        expected: usize,
        /// Data given now.
        found: usize,
    },
    /// It was made on other tokens or targets.
    OtherData {
        /// The first datum that differs.
        index: usize,
    },
}

impl fmt::Display for ForwardProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ForwardProblem::OtherModel => f.write_str("it belongs to another training client"),
            ForwardProblem::WeightsChanged { by } => {
                write!(f, "request {by} has changed the weights since")
            }
            ForwardProblem::OtherCount { expected, found } => {
                write!(f, "it was made on {expected} data, and these are {found}")
            }
            ForwardProblem::OtherData { index } => {
                write!(f, "datum {index} has other tokens or target_tokens than then")
            }
        }
    }
}
