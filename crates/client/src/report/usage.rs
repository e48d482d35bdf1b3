use std::ops::AddAssign;

use serde::Serialize;
use tinsmith_wire::{Datum, SampleResponse};

use super::{PhaseTimes, StepReport};

/// What was asked of a server, in the units that services bill by. A token is a position of a
/// model's input.
///
/// ```
/// use tinsmith_client::{Datum, ModelInput, Usage};
/// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2, 3])), Datum::new(ModelInput::from_tokens(vec![4]))];
/// let mut usage = Usage::forward(&data);
/// usage += Usage::forward_backward(&data);
/// assert_eq!((usage.forward_sequences, usage.forward_tokens), (2, 4));
/// assert_eq!(usage.forward_backward_tokens, 4);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// Sequences of forward passes.
    pub forward_sequences: u64,
    /// Their tokens.
    pub forward_tokens: u64,
    /// Sequences of passes with a gradient.
    pub forward_backward_sequences: u64,
    /// Their tokens.
    pub forward_backward_tokens: u64,
    /// Sequences that were sampled.
    pub sampled_sequences: u64,
    /// Tokens of the prompts, each once however many sequences were asked of it.
    pub prompt_tokens: u64,
    /// Tokens that were sampled.
    pub sampled_tokens: u64,
}

impl Usage {
    /// That of a forward pass, [`precompute_forward`](crate::TrainingClient::precompute_forward)
    /// say.
    pub fn forward(data: &[Datum]) -> Self {
        Usage {
            forward_sequences: data.len() as u64,
            forward_tokens: tokens(data),
            ..Usage::default()
        }
    }

    /// That of a pass with a gradient. A step of a custom loss has its own in its
    /// [report](StepReport::usage).
    pub fn forward_backward(data: &[Datum]) -> Self {
        Usage {
            forward_backward_sequences: data.len() as u64,
            forward_backward_tokens: tokens(data),
            ..Usage::default()
        }
    }

    /// That of an answer to a prompt of so many tokens.
    ///
    /// ```
    /// use tinsmith_client::{SampleResponse, SampledSequence, Usage};
    /// let sequence = |tokens: Vec<u32>| SampledSequence { tokens, ..Default::default() };
    /// let response = SampleResponse { sequences: vec![sequence(vec![5, 6]), sequence(vec![7])], ..Default::default() };
    /// let usage = Usage::sample(4, &response);
    /// assert_eq!((usage.sampled_sequences, usage.prompt_tokens, usage.sampled_tokens), (2, 4, 3));
    /// ```
    pub fn sample(prompt_tokens: usize, response: &SampleResponse) -> Self {
        let sampled = response.sequences.iter().map(|sequence| sequence.tokens.len() as u64);
        Usage {
            sampled_sequences: response.sequences.len() as u64,
            prompt_tokens: prompt_tokens as u64,
            sampled_tokens: sampled.sum(),
            ..Usage::default()
        }
    }
}

/// An input of unknown length, an image say, counts by its targets.
fn tokens(data: &[Datum]) -> u64 {
    let targets = |datum: &Datum| {
        let rows = datum.input("target_tokens").and_then(|it| it.shape().first().copied());
        rows.unwrap_or(0)
    };
    let length = |datum: &Datum| datum.model_input.len().unwrap_or_else(|| targets(datum)) as u64;
    data.iter().map(length).sum()
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        let Usage {
            forward_sequences,
            forward_tokens,
            forward_backward_sequences,
            forward_backward_tokens,
            sampled_sequences,
            prompt_tokens,
            sampled_tokens,
        } = other;
        self.forward_sequences += forward_sequences;
        self.forward_tokens += forward_tokens;
        self.forward_backward_sequences += forward_backward_sequences;
        self.forward_backward_tokens += forward_backward_tokens;
        self.sampled_sequences += sampled_sequences;
        self.prompt_tokens += prompt_tokens;
        self.sampled_tokens += sampled_tokens;
    }
}

/// What a run has taken so far: the sum of the reports given to it, and of what is added to `usage`
/// by hand.
///
/// ```
/// use tinsmith_client::{Datum, LoraConfig, Loss, ModelInput, PriceList, RunTotals, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
/// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2, 3])).with("target_tokens", vec![2i64, 3, 4])];
/// let mut totals = RunTotals::default();
/// for _ in 0..2 {
///     let step = training.forward_backward_custom(&data, |batch| Ok(Loss::new(-batch.logprobs().sum())))?;
///     totals.add(&step.result()?.report);
/// }
/// assert_eq!((totals.steps, totals.usage.forward_tokens, totals.usage.forward_backward_tokens), (2, 6, 6));
///
/// let prices = PriceList { forward: 0.1, forward_backward: 0.4, ..PriceList::default() };
/// assert!((prices.dollars(&totals.usage) - 6.0 * 0.5 / 1e6).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RunTotals {
    /// Steps.
    pub steps: u64,
    /// What was asked of the server.
    pub usage: Usage,
    /// The time of each phase.
    pub times: PhaseTimes,
    /// Bytes of the requests, as bodies.
    pub bytes_sent: u64,
    /// Bytes of their results.
    pub bytes_received: u64,
}

impl RunTotals {
    /// One step more.
    pub fn add(&mut self, report: &StepReport) {
        self.steps += 1;
        self.usage += report.usage;
        self.times += report.times;
        self.bytes_sent += report.bytes_sent;
        self.bytes_received += report.bytes_received;
    }
}

/// What a service asks for, in dollars for a million tokens; 0 where nothing is said.
///
/// ```
/// use tinsmith_client::{Datum, ModelInput, PriceList, Usage};
/// let prices = PriceList { forward: 0.5, forward_backward: 1.5, prompt: 0.25, sample: 2.0 };
/// let data = [Datum::new(ModelInput::from_tokens(vec![7; 1_000]))];
/// assert_eq!(prices.dollars(&Usage::forward_backward(&data)), 0.0015);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PriceList {
    /// Of a forward pass, pass 1 of a custom loss among them.
    pub forward: f64,
    /// Of a pass with a gradient, pass 2 of a custom loss among them.
    pub forward_backward: f64,
    /// Of a prompt.
    pub prompt: f64,
    /// Of what is sampled.
    pub sample: f64,
}

impl PriceList {
    /// What this costs.
    pub fn dollars(&self, usage: &Usage) -> f64 {
        let priced = [
            (usage.forward_tokens, self.forward),
            (usage.forward_backward_tokens, self.forward_backward),
            (usage.prompt_tokens, self.prompt),
            (usage.sampled_tokens, self.sample),
        ];
        priced.iter().map(|&(tokens, dollars)| tokens as f64 * dollars).sum::<f64>() / 1e6
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tinsmith_wire::{Chunk, ModelInput};

    use super::*;

    #[test]
    fn an_input_of_unknown_length_counts_by_its_targets() {
        let image = ModelInput { chunks: vec![Chunk::Dmel { dmel: vec![0u8; 4].into() }].into() };
        assert_eq!(image.len(), None);
        let data = [Datum::new(image).with("target_tokens", vec![0i64; 7])];
        assert_eq!(Usage::forward(&data).forward_tokens, 7);
    }

    #[test]
    fn totals_are_sums() {
        let report = |tokens, seconds| StepReport {
            usage: Usage { forward_tokens: tokens, ..Usage::default() },
            times: PhaseTimes { loss: Duration::from_secs(seconds), ..PhaseTimes::default() },
            bytes_sent: 10,
            bytes_received: 20,
            ..StepReport::default()
        };
        let mut totals = RunTotals::default();
        totals.add(&report(3, 1));
        totals.add(&report(4, 2));
        totals.usage += Usage { sampled_tokens: 9, ..Usage::default() };
        let found = (totals.steps, totals.usage.forward_tokens, totals.usage.sampled_tokens);
        assert_eq!(found, (2, 7, 9));
        assert_eq!(totals.times.loss, Duration::from_secs(3));
        assert_eq!((totals.bytes_sent, totals.bytes_received), (20, 40));
    }

    fn usage() -> impl Strategy<Value = Usage> {
        prop::array::uniform7(0u64..1_000_000_000).prop_map(|n| Usage {
            forward_sequences: n[0],
            forward_tokens: n[1],
            forward_backward_sequences: n[2],
            forward_backward_tokens: n[3],
            sampled_sequences: n[4],
            prompt_tokens: n[5],
            sampled_tokens: n[6],
        })
    }

    proptest! {
        /// Paying for two things is paying for each.
        #[test]
        fn a_cost_is_linear(
            a in usage(), b in usage(), prices in prop::array::uniform4(0f64..100.0),
        ) {
            let [forward, forward_backward, prompt, sample] = prices;
            let prices = PriceList { forward, forward_backward, prompt, sample };
            let mut both = a;
            both += b;
            let (apart, together) = (prices.dollars(&a) + prices.dollars(&b), prices.dollars(&both));
            prop_assert!((apart - together).abs() <= 1e-12 * together);
            prop_assert!(together >= 0.0);
        }
    }
}
