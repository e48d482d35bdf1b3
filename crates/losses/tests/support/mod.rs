//! Random ragged batches. All numbers lie on a grid that keeps them off the kinks of every loss, so
//! that difference quotients are right: logprobs are odd multiples of 1/128, what they are compared
//! with even ones.

#![allow(dead_code, reason = "each test file uses its part")]

use proptest::prelude::*;
use tinsmith_grad::{Device, Ragged, Var};
use tinsmith_losses::recipes::Rollout;

/// Interleaved pairs of sequences and all that a loss may ask for beside the logprobs.
#[derive(Clone, Debug)]
pub struct Batch {
    pub lp: Ragged,
    pub old: Ragged,
    pub sampled: Ragged,
    pub reference: Ragged,
    /// 0 and 1; at least the last token of each sequence is active.
    pub mask: Ragged,
    /// `[n]`.
    pub advantages: Var,
}

impl Batch {
    pub fn token_advantages(&self) -> Ragged {
        self.lp.expand(&self.advantages) * &self.mask
    }

    pub fn rollout(&self) -> Rollout {
        Rollout::new(&self.old, &self.advantages)
            .sampled(&self.sampled)
            .reference(&self.reference)
            .weights(&self.mask)
    }

    /// The batch of these sequences, in this order.
    pub fn select(&self, seqs: &[usize]) -> Batch {
        let index: Vec<i64> = seqs.iter().map(|&seq| seq as i64).collect();
        let index = Var::from_vec(index, &[seqs.len()], &Device::Cpu);
        Batch {
            lp: self.lp.select(seqs),
            old: self.old.select(seqs),
            sampled: self.sampled.select(seqs),
            reference: self.reference.select(seqs),
            mask: self.mask.select(seqs),
            advantages: self.advantages.index_select(&index, 0),
        }
    }
}

/// One to three pairs of sequences of one to five tokens.
pub fn batch() -> impl Strategy<Value = Batch> {
    prop::collection::vec(1..=5usize, 1..=3).prop_flat_map(|lengths| {
        let lengths: Vec<usize> = lengths.iter().flat_map(|&n| [n, 6 - n]).collect();
        let total: usize = lengths.iter().sum();
        let near = || prop::collection::vec(-90..90i32, total);
        let mask = prop::collection::vec(any::<bool>(), total);
        let advantages = prop::collection::vec(-96..96i32, lengths.len());
        (
            Just(lengths),
            prop::collection::vec(-300..-1i32, total),
            near(),
            near(),
            near(),
            mask,
            advantages,
        )
            .prop_map(|(lengths, lp, old, sampled, reference, mask, advantages)| {
                let packed = |values: Vec<f64>| {
                    let rows = values.len();
                    Ragged::new(Var::from_vec(values, &[rows], &Device::Cpu), &lengths)
                };
                let beside =
                    |away: &[i32]| packed(lp.iter().zip(away).map(|(x, d)| even(x + d)).collect());
                let ends: Vec<usize> = lengths
                    .iter()
                    .scan(0, |end, length| {
                        *end += length;
                        Some(*end - 1)
                    })
                    .collect();
                let active = |t: usize| f64::from(u8::from(mask[t] || ends.contains(&t)));
                Batch {
                    lp: packed(lp.iter().map(|&x| odd(x)).collect()),
                    old: beside(&old),
                    sampled: beside(&sampled),
                    reference: beside(&reference),
                    mask: packed((0..mask.len()).map(active).collect()),
                    advantages: {
                        let values: Vec<f64> = advantages.iter().map(|&a| odd(a)).collect();
                        Var::from_vec(values, &[lengths.len()], &Device::Cpu)
                    },
                }
            })
    })
}

/// Sequences with K logprobs at each position, and target distributions whose rows sum to 1, all
/// positive.
#[derive(Clone, Debug)]
pub struct TargetBatch {
    pub lp: Ragged,
    pub target: Ragged,
}

pub fn target_batch() -> impl Strategy<Value = TargetBatch> {
    (prop::collection::vec(1..=3usize, 1..=3), 2..=4usize).prop_flat_map(|(lengths, k)| {
        let total: usize = lengths.iter().sum();
        let lp = prop::collection::vec(-300..-1i32, total * k);
        let target = prop::collection::vec(1..40i32, total * k);
        (Just((lengths, k)), lp, target).prop_map(|((lengths, k), lp, target)| {
            let packed = |values: Vec<f64>| {
                let rows = values.len() / k;
                Ragged::new(Var::from_vec(values, &[rows, k], &Device::Cpu), &lengths)
            };
            let share = |row: &[i32]| {
                let sum: i32 = row.iter().sum();
                row.iter().map(|&x| f64::from(x) / f64::from(sum)).collect::<Vec<_>>()
            };
            TargetBatch {
                lp: packed(lp.iter().map(|&x| odd(x)).collect()),
                target: packed(target.chunks(k).flat_map(share).collect()),
            }
        })
    })
}

fn odd(x: i32) -> f64 {
    f64::from(2 * x + 1) / 128.0
}

fn even(x: i32) -> f64 {
    f64::from(2 * x) / 128.0
}

pub fn vec(x: &Var) -> Vec<f64> {
    x.to_vec().unwrap()
}

/// The gradient by the logprobs, packed.
pub fn gradient(loss: &Var, lp: &Ragged) -> Vec<f64> {
    loss.backward(&[lp.values()]).unwrap()[0].flatten_all().unwrap().to_vec1().unwrap()
}

pub fn close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-10 * a.abs().max(b.abs()).max(1.0))
}
