use std::fmt;

use serde::{Serialize, Serializer};

use super::{Drift, Rescaling, RolloutGap, StepReport, SurrogateCheck};

/// Something about a step that is allowed, and seldom meant.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// Every element of the gradient is 0.
    ZeroGradient,
    /// The model is far from the policy that sampled the tokens: `k3` is more than 0.05 nats or not
    /// finite.
    Rollout(RolloutGap),
    /// The two passes disagree about the logprobs by more than rounding.
    Drift(Drift),
    /// The server computed another loss than that of the weights it was sent.
    Surrogate(SurrogateCheck),
    /// The server is SkyRL-tx, which divides weights and does not show it.
    Rescaled(Rescaling),
    /// A metric of this name stands for something else in the result.
    MetricReplaced(&'static str),
}

/// The loss itself, and the server's of the second pass.
const RESERVED: [&str; 2] = ["loss:sum", "surrogate_loss:sum"];

impl Warning {
    pub(crate) fn about(report: &StepReport) -> Vec<Warning> {
        let zero = (report.gradient.max_abs == 0.0).then_some(Warning::ZeroGradient);
        let rollout = report.rollout.filter(RolloutGap::is_conspicuous).map(Warning::Rollout);
        let drift = report.drift.filter(|drift| drift.exceeds(Drift::CONSPICUOUS));
        let surrogate = report.surrogate.filter(|check| !check.agrees).map(Warning::Surrogate);
        let replaced = RESERVED.into_iter().filter(|name| report.metrics.get(name).is_some());
        let replaced = replaced.map(Warning::MetricReplaced);
        let passes = drift.map(Warning::Drift).into_iter().chain(surrogate);
        zero.into_iter().chain(rollout).chain(passes).chain(replaced).collect()
    }
}

/// A sentence or two: what, and what to do.
impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::ZeroGradient => f.write_str(
                "the gradient is 0 for every token, so this step trains nothing: are all advantages or weights 0, or everything clipped?",
            ),
            Warning::Rollout(gap) => write!(
                f,
                "the model's logprobs are far from the input `logprobs` (k3 {:.3} nats, ratios up to {:.3}): were the tokens sampled \
                 from other weights or at another temperature, or is the input one place off?",
                gap.k3, gap.max_ratio
            ),
            Warning::Drift(drift) => write!(
                f,
                "the logprobs of the two passes differ by up to {:.3} nats, so the gradient is not that of the weights it is applied to: did \
                 something train the model in between, or does the server compute differently each time?",
                drift.max_abs
            ),
            Warning::Surrogate(check) if check.weights_divided_by_their_sum => write!(
                f,
                "the server divides the weights of each sequence by their sum (its loss is {:.6}, that of the weights sent {:.6}): the scale and \
                 for some sequences the sign of the gradient are lost, so a custom loss does not train as written on this server",
                check.server, check.expected
            ),
            Warning::Rescaled(it) => write!(
                f,
                "this server is SkyRL-tx, whose JAX engine divides the weights of each sequence by their sum and does not show it in its losses, so \
                 a custom loss does not train as written: sequences that get another scale {}, that are multiplied by up to 1e9 because their weights \
                 add up to 0 or less {}",
                it.sequences, it.inflated
            ),
            Warning::MetricReplaced(name) => write!(
                f,
                "the metric {name:?} of the loss function is not in the result, where that name stands for {}: rename it",
                if *name == "loss:sum" { "the loss" } else { "the server's loss" }
            ),
            Warning::Surrogate(check) => write!(
                f,
                "the server's loss is {:.6}, that of the weights sent {:.6}: it does not apply the gradient of this loss as sent",
                check.server, check.expected
            ),
        }
    }
}

/// The sentence.
impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
