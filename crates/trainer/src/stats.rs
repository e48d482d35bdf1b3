//! What a trainer has done, for tests to ask.

/// How often each kind of training request occurred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Forward passes without a gradient.
    pub forward: u64,
    /// Forward passes with a gradient.
    pub forward_backward: u64,
    /// Optimizer steps.
    pub optim_step: u64,
}

/// The training requests of one model. A resend of the same request counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelStats {
    /// Accepted, whether they have run yet or not.
    pub received: Counts,
    /// Run, with success.
    pub executed: Counts,
}

/// A training request that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Forward,
    ForwardBackward,
    OptimStep,
    /// Saves and loads, which are not.
    Other,
}

impl Counts {
    pub(crate) fn add(&mut self, operation: Operation) {
        match operation {
            Operation::Forward => self.forward += 1,
            Operation::ForwardBackward => self.forward_backward += 1,
            Operation::OptimStep => self.optim_step += 1,
            Operation::Other => {}
        }
    }
}
