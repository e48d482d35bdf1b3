use std::collections::BTreeMap;

use serde::Serialize;
use tinsmith_wire::{ForwardBackwardOutput, TensorData};

/// The server's loss of the second pass, `sum(-weights * logprobs)`, computed here and by the
/// server. A server that computes something else applies another gradient than that of the loss,
/// and nothing but this would show it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SurrogateCheck {
    /// `sum(-weights * logprobs)` of the weights that were sent and the logprobs that came back.
    pub expected: f64,
    /// What the server computed.
    pub server: f64,
    /// Where it said so.
    pub source: ServerLoss,
    /// Whether the two agree, to 1 % of the sum of absolute terms.
    pub agrees: bool,
    /// Whether the server's value is that of weights divided by their sum, sequence by sequence.
    pub weights_divided_by_their_sum: bool,
}

/// Where a server tells its own loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ServerLoss {
    /// In the metric `loss:sum`.
    LossSum,
    /// By token, in the outputs `elementwise_loss`.
    ElementwiseLoss,
}

/// The share of the absolute terms that rounding may take.
const TOLERANCE: f64 = 0.01;

/// The loss of the weights that were sent, as it is being gathered.
#[derive(Debug, Default)]
pub(super) struct Expected {
    sum: f64,
    size: f64,
    divided: f64,
    divided_size: f64,
}

impl Expected {
    /// A sequence: of `-weights * logprobs` the sum and the sum of absolute values, and the sum of
    /// the weights.
    pub fn add(&mut self, sum: f64, absolute: f64, weights: f64) {
        let weights = weights.max(1e-9);
        self.sum += sum;
        self.size += absolute;
        self.divided += sum / weights;
        self.divided_size += absolute / weights;
    }

    /// None if the server tells no loss.
    pub fn against(&self, output: &ForwardBackwardOutput) -> Option<SurrogateCheck> {
        let (server, source) = told(output)?;
        let near = |value: f64, size: f64| {
            (server - value).abs() <= TOLERANCE * size + f64::from(f32::EPSILON)
        };
        let agrees = near(self.sum, self.size);
        Some(SurrogateCheck {
            expected: self.sum,
            server,
            source,
            agrees,
            weights_divided_by_their_sum: !agrees && near(self.divided, self.divided_size),
        })
    }
}

/// The server's own loss.
fn told(output: &ForwardBackwardOutput) -> Option<(f64, ServerLoss)> {
    if let Some(sum) = output.metrics.get("loss:sum") {
        return Some((sum, ServerLoss::LossSum));
    }
    let of_sequence = |output: &BTreeMap<String, TensorData>| {
        let losses = output.get("elementwise_loss")?.as_f32()?;
        Some(losses.iter().map(|&loss| f64::from(loss)).sum::<f64>())
    };
    let sums: Option<Vec<f64>> = output.loss_fn_outputs.iter().map(of_sequence).collect();
    Some((sums?.iter().sum(), ServerLoss::ElementwiseLoss))
}

#[cfg(test)]
mod tests {
    use super::super::comparison::compare;
    use super::*;

    const WEIGHTS: [[f32; 2]; 2] = [[2.0, 0.0], [-1.0, 4.0]];
    const LOGPROBS: [[f32; 2]; 2] = [[-1.0, -3.0], [-2.0, -0.5]];

    /// -w * lp: 2 and 0; -2 and 2.
    fn check(
        metrics: &[(&str, f64)],
        elementwise: Option<[[f32; 2]; 2]>,
    ) -> Option<SurrogateCheck> {
        let mut output = ForwardBackwardOutput {
            metrics: metrics.iter().copied().collect(),
            ..Default::default()
        };
        for (i, logprobs) in LOGPROBS.iter().enumerate() {
            let mut fields = BTreeMap::new();
            fields.insert("logprobs".to_owned(), logprobs.to_vec().into());
            if let Some(losses) = elementwise {
                fields.insert("elementwise_loss".to_owned(), losses[i].to_vec().into());
            }
            output.loss_fn_outputs.push(fields);
        }
        let weights = WEIGHTS.map(|weights| weights.to_vec().into());
        compare(&[], &weights, &output).1
    }

    #[test]
    fn the_linear_loss_of_the_weights_agrees() {
        let found = check(&[("loss:sum", 2.0)], None).unwrap();
        assert_eq!((found.expected, found.server, found.agrees), (2.0, 2.0, true));
        let found = check(&[], Some([[2.0, 0.0], [-2.0, 2.0]])).unwrap();
        assert_eq!((found.source, found.agrees), (ServerLoss::ElementwiseLoss, true));
    }

    #[test]
    fn a_server_that_divides_by_the_sum_of_the_weights_is_found_out() {
        // 2 / 2 + 0 / 3
        let found = check(&[("loss:sum", 1.0)], None).unwrap();
        assert!(!found.agrees && found.weights_divided_by_their_sum);
        let found = check(&[], Some([[1.0, 0.0], [-2.0 / 3.0, 2.0 / 3.0]])).unwrap();
        assert!(!found.agrees && found.weights_divided_by_their_sum);
    }

    #[test]
    fn another_loss_disagrees_and_none_is_no_verdict() {
        let found = check(&[("loss:sum", -2.0)], None).unwrap();
        assert!(!found.agrees && !found.weights_divided_by_their_sum);
        assert_eq!(check(&[], None), None);
    }
}
