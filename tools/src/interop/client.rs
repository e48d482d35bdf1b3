//! What the scenarios that use our client share: texts as data, losses, and what is measured.

use anyhow::{Context, Result};
use tinsmith_client::{AdamParams, Batch, Datum, ForwardBackwardOutput, Loss, LossFn};
use tinsmith_client::{StepReport, TrainingClient};

/// One list of logprobs a datum.
pub type Logprobs = Vec<Vec<f32>>;

/// Each byte of `text` but the first, to be predicted from those before it.
pub fn datum(text: &str) -> Result<Datum> {
    let tokens = tokens(text);
    let weights = vec![1.0; tokens.len()];
    Ok(Datum::from_tokens_and_weights(&tokens, &weights)?)
}

/// The tiny model's tokens.
pub fn tokens(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// What the model gives the targets of `data`.
pub fn logprobs(training: &TrainingClient, data: &[Datum]) -> Result<Logprobs> {
    let pass = training.forward(data, LossFn::CrossEntropy, None)?;
    logprobs_of(&pass.result()?)
}

/// The logprobs in the result of a pass.
pub fn logprobs_of(output: &ForwardBackwardOutput) -> Result<Logprobs> {
    let outputs = output.loss_fn_outputs.iter();
    let logprobs = outputs.map(|fields| Some(fields.get("logprobs")?.as_f32()?.to_vec()));
    logprobs.collect::<Option<_>>().context("no logprobs came")
}

/// The furthest that two numbers at the same place are apart; infinite where the lengths differ.
pub fn apart(a: &Logprobs, b: &Logprobs) -> f32 {
    if !a.iter().map(Vec::len).eq(b.iter().map(Vec::len)) {
        return f32::INFINITY;
    }
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The mean over sequences of the mean squared logprob of their tokens.
pub fn squared_nll(batch: &Batch) -> anyhow::Result<Loss> {
    Ok(Loss::new(batch.logprobs().square().mean_per_seq().mean()))
}

/// A step on a loss of our own.
pub fn custom_step(
    training: &TrainingClient,
    data: &[Datum],
    adam: &AdamParams,
    loss: impl FnOnce(&Batch) -> anyhow::Result<Loss>,
) -> Result<StepReport> {
    let step = training.forward_backward_custom(data, loss)?;
    let optim = training.optim_step(adam)?;
    let report = step.result()?.report;
    optim.result()?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logprobs_of_other_lengths_are_infinitely_apart() {
        let a = vec![vec![-1.0, -2.0], vec![-3.0]];
        assert_eq!(apart(&a, &vec![vec![-1.0, -2.5], vec![-3.0]]), 0.5);
        assert_eq!(apart(&a, &vec![vec![-1.0], vec![-2.0, -3.0]]), f32::INFINITY);
        assert_eq!(apart(&a, &vec![vec![-1.0, -2.0]]), f32::INFINITY);
    }
}
