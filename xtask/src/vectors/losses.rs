//! Maps each loss file to the function of `tinsmith-losses` that it tests.

use anyhow::{Result, bail};
use serde_json::Value;
use tinsmith_grad::{DType, Ragged, Var};

use super::file::Case;

/// A loss as recorded: its scalar, the leaves it is differentiated by, and its metrics under their names in the file.
pub struct Outcome {
    pub loss: Var,
    /// One per sequence, in order, as [`Case::leaves`] made them.
    pub leaves: Vec<Var>,
    /// Scalars.
    pub metrics: Vec<(String, Var)>,
}

/// Records the loss named `loss` (the file's name for it) over the inputs of `case`, in `dtype`.
pub fn evaluate(loss: &str, case: &Case, dtype: DType) -> Result<Outcome> {
    let leaves = case.leaves(dtype);
    let logprobs = Ragged::from_seqs(&leaves);
    match loss {
        "cross_entropy" => {
            let loss = -(&logprobs * case.ragged("weights", dtype)?).sum();
            Ok(Outcome {
                metrics: vec![("loss:sum".into(), loss.clone())],
                loss,
                leaves,
            })
        }
        _ => bail!("no loss is known as `{loss}`"),
    }
}

/// Runs one case of the helpers file and compares; the error tells what differed.
pub fn helper(case: &Value) -> Result<()> {
    bail!("no helper is known as {}", case["helper"])
}
