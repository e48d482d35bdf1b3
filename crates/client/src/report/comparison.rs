//! The answer of a second pass against the first and against what was sent, in one walk.

use tinsmith_wire::{ForwardBackwardOutput, TensorData};

use super::drift::Distances;
use super::lanes;
use super::surrogate::Expected;
use super::{Drift, SurrogateCheck};

/// `first[i]` are the logprobs of datum i in the first pass, `weights[i]` were sent for it in the
/// second. No drift unless the logprobs of both passes are comparable; no check unless the weights
/// belong to the logprobs and the server tells a loss.
pub(super) fn compare(
    first: &[TensorData],
    weights: &[TensorData],
    output: &ForwardBackwardOutput,
) -> (Option<Drift>, Option<SurrogateCheck>) {
    let outputs = &output.loss_fn_outputs;
    let mut drift = (first.len() == outputs.len()).then(Distances::default);
    let mut expected = (weights.len() == outputs.len()).then(Expected::default);
    for (i, output) in outputs.iter().enumerate() {
        let Some(after) = output.get("logprobs").and_then(TensorData::as_f32) else {
            return (None, None);
        };
        let fits = |values: &&[f32]| values.len() == after.len();
        let dense = weights.get(i).and_then(|weights| weights.to_dense().ok());
        let before = first.get(i).and_then(TensorData::as_f32).filter(fits);
        let sent = dense.as_ref().and_then(TensorData::as_f32).filter(fits);
        drift = drift.filter(|_| before.is_some());
        expected = expected.filter(|_| sent.is_some());
        // What is missing leaves figures that nobody asks for.
        let arrays = [before.unwrap_or(after), after, sent.unwrap_or(after)];
        let ([distance, sum, absolute, total], [greatest]) =
            lanes::walk(arrays, |[before, after, weight]| {
                let (distance, term) = ((before - after).abs(), -weight * after);
                ([distance, term, term.abs(), weight], [distance])
            });
        if let Some(drift) = &mut drift {
            drift.max_abs = drift.max_abs.max(greatest);
            drift.sum += distance;
            drift.count += after.len();
        }
        if let Some(expected) = &mut expected {
            expected.add(sum, absolute, total);
        }
    }
    let drift = drift.map(|distances| distances.drift());
    (drift, expected.and_then(|expected| expected.against(output)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(logprobs: &[&[f32]]) -> ForwardBackwardOutput {
        let outputs =
            logprobs.iter().map(|lp| [("logprobs".to_owned(), lp.to_vec().into())].into());
        ForwardBackwardOutput {
            loss_fn_outputs: outputs.collect(),
            metrics: [("loss:sum", 4.0)].into_iter().collect(),
            ..Default::default()
        }
    }

    fn tensors(values: &[&[f32]]) -> Vec<TensorData> {
        values.iter().map(|values| values.to_vec().into()).collect()
    }

    #[test]
    fn each_is_told_where_the_other_cannot_be() {
        let answer = answer(&[&[-1.0, -2.0], &[-0.5]]);
        let first = tensors(&[&[-1.0, -1.5], &[-0.75]]);
        let weights = tensors(&[&[1.0, 2.0], &[-2.0]]);
        // 1 + 4 - 1.
        let (drift, check) = compare(&first, &weights, &answer);
        assert_eq!(drift, Some(Drift { max_abs: 0.5, mean_abs: 0.25 }));
        assert_eq!(check.map(|check| (check.expected, check.agrees)), Some((4.0, true)));

        let odd = tensors(&[&[1.0, 2.0], &[-2.0, 0.0]]);
        assert_eq!(compare(&first, &odd, &answer), (drift, None));
        assert_eq!(compare(&first, &[], &answer), (drift, None));
        assert_eq!(compare(&odd, &weights, &answer), (None, check));
        assert_eq!(compare(&[], &weights, &answer), (None, check));
        let silent = ForwardBackwardOutput::default();
        assert_eq!(compare(&first, &weights, &silent), (None, None));
    }
}
