//! What a model's requests so far have done to it, where a later one depends on it. Requests are
//! known by their sequence ids.

use tinsmith_wire::GradAccumulationNormalization as By;

use crate::{Error, Result};

#[derive(Debug, Default)]
pub(crate) struct History {
    /// The last request that may have changed the weights; 0 for none.
    weights_changed_by: u64,
    /// The custom loss of which the gathered gradient was divided here.
    normalized_by: Option<u64>,
}

impl History {
    pub fn weights_changed_by(&self) -> u64 {
        self.weights_changed_by
    }

    /// The weights were loaded by this request.
    pub fn loaded(&mut self, seq_id: u64) {
        self.weights_changed_by = seq_id;
    }

    /// The gathered gradient was applied by this request, and cleared.
    pub fn stepped(&mut self, seq_id: u64) {
        self.weights_changed_by = seq_id;
        self.normalized_by = None;
    }

    /// This request gathers a gradient that was divided here.
    pub fn normalized(&mut self, seq_id: u64) {
        self.normalized_by = Some(seq_id);
    }

    /// This request gathered nothing after all.
    pub fn failed(&mut self, seq_id: u64) {
        self.normalized_by = self.normalized_by.filter(|&pass| pass != seq_id);
    }

    /// Whether a gradient may be divided here before it is gathered.
    pub fn check_normalized_pass(&self) -> Result<()> {
        match self.normalized_by {
            Some(pass) => Err(Error::NormalizedApart { pass }),
            None => Ok(()),
        }
    }

    /// Whether the server may divide what has gathered.
    pub fn check_normalized_step(&self, by: Option<By>) -> Result<()> {
        match (by, self.normalized_by) {
            (Some(By::NumLossTokens | By::NumSequences), Some(pass)) => {
                Err(Error::NormalizedTwice { pass })
            }
            _ => Ok(()),
        }
    }
}
