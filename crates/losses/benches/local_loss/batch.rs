//! The workloads: how many sequences of how many tokens, and made-up logprobs for them.

use std::iter;

/// The size of a batch.
pub struct Workload {
    pub name: &'static str,
    pub sequences: usize,
    pub tokens: usize,
}

pub const WORKLOADS: [Workload; 5] = [
    Workload { name: "W1", sequences: 8, tokens: 128 },
    Workload { name: "W2", sequences: 64, tokens: 1_024 },
    Workload { name: "W3", sequences: 256, tokens: 4_096 },
    Workload { name: "W4", sequences: 64, tokens: 16_384 },
    Workload { name: "W5", sequences: 1_024, tokens: 64 },
];

/// The inputs of all losses, one value per token (all sequences one after another) or per sequence.
pub struct Batch {
    pub lengths: Vec<usize>,
    pub logprobs: Vec<f32>,
    /// Logprobs of the policy that sampled: ratios of about 0.85 to 1.15.
    pub old: Vec<f32>,
    /// Logprobs of a reference model, further away.
    pub reference: Vec<f32>,
    /// 1 on the last three quarters of each sequence, 0 on its prompt.
    pub weights: Vec<f32>,
    /// One per sequence, within -2..2.
    pub advantages: Vec<f32>,
}

impl Batch {
    /// The same numbers in every run.
    pub fn new(workload: &Workload) -> Batch {
        let &Workload { sequences, tokens, .. } = workload;
        let mut uniform = uniform();
        let logprobs: Vec<f32> =
            uniform.by_ref().take(sequences * tokens).map(|u| u.ln() * 0.7).collect();
        let mut near = |spread: f32| -> Vec<f32> {
            let mut noise = || uniform.by_ref().take(3).sum::<f32>() - 1.5;
            logprobs.iter().map(|l| l + noise() * spread).collect()
        };
        let (old, reference) = (near(0.3), near(0.6));
        let weight = |at: usize| if at % tokens < tokens / 4 { 0.0 } else { 1.0 };
        Batch {
            lengths: vec![tokens; sequences],
            old,
            reference,
            weights: (0..logprobs.len()).map(weight).collect(),
            advantages: uniform.take(sequences).map(|u| u * 4.0 - 2.0).collect(),
            logprobs,
        }
    }

    /// `values`, one per token, by sequence.
    pub fn seqs<'a>(&'a self, mut values: &'a [f32]) -> impl Iterator<Item = &'a [f32]> {
        self.lengths.iter().map(move |&length| {
            let (seq, rest) = values.split_at(length);
            values = rest;
            seq
        })
    }

    /// The advantage of each token: its sequence's, and 0 on the prompt.
    pub fn token_advantages(&self) -> Vec<f32> {
        let of_tokens = self.lengths.iter().zip(&self.advantages);
        let of_tokens = of_tokens.flat_map(|(&length, &a)| iter::repeat_n(a, length));
        of_tokens.zip(&self.weights).map(|(a, w)| a * w).collect()
    }
}

/// Numbers within 0..1, neither included (Knuth's linear congruential generator).
fn uniform() -> impl Iterator<Item = f32> {
    let states = iter::successors(Some(12_345u64), |state| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    });
    states.skip(1).map(|state| ((state >> 41) as f32 + 0.5) / (1u64 << 23) as f32)
}
