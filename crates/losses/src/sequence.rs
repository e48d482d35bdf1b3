//! From one logprob per token to one per sequence: what preference losses compare.

use tinsmith_grad::{Ragged, Var};

use crate::at_caller;
use crate::inputs::{coefficients, tokens};
use crate::masked::{masked_mean_per_seq, masked_sum_per_seq};

/// The logprob of each sequence, `[n]`: `Σ_t w·l`. `lp` and `weights` are `[tokens]`; the weight is
/// 1 on the answer's tokens and 0 on the prompt's, which take no part whatever their logprobs.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-3.0, -0.5, -1.5], vec![-2.0]]);
/// let answer = ragged(&[vec![0.0, 1.0, 1.0], vec![1.0]]);
/// assert_eq!(tinsmith_losses::sequence_logprob(&lp, &answer).to_vec::<f64>()?, [-2.0, -2.0]);
/// assert_eq!(tinsmith_losses::mean_logprob(&lp, &answer).to_vec::<f64>()?, [-1.0, -2.0]);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn sequence_logprob(lp: &Ragged, weights: &Ragged) -> Var {
    at_caller! {
        tokens!("sequence_logprob"; lp, weights);
        masked_sum_per_seq(lp, weights)
    }
}

/// The logprob per token of each sequence, `[n]`: `Σ_t w·l / Σ_t w`, 0 for a sequence without
/// weight.
///
/// A preference between means does not favor short answers. See [`sequence_logprob`] for the
/// arguments and an example.
#[track_caller]
pub fn mean_logprob(lp: &Ragged, weights: &Ragged) -> Var {
    at_caller! {
        tokens!("mean_logprob"; lp, weights);
        masked_mean_per_seq(lp, weights)
    }
}

/// DPO's implicit reward of each sequence, `[n]`: `β Σ_t w·(l - ref)`.
///
/// The reward under which the policy is the best one that stays close to the reference (Rafailov et
/// al., 2023). All are `[tokens]` per sequence.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-1.0, -0.5]]);
/// let reference = ragged(&[vec![-9.0, -2.5]]);
/// let weights = ragged(&[vec![0.0, 1.0]]);
/// let reward = tinsmith_losses::implicit_reward(&lp, &reference, &weights, 0.25);
/// assert_eq!(reward.to_vec::<f64>()?, [0.5]);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn implicit_reward(lp: &Ragged, reference: &Ragged, weights: &Ragged, beta: f64) -> Var {
    at_caller! {
        coefficients!("implicit_reward", lp; beta);
        tokens!("implicit_reward"; lp, reference, weights);
        masked_sum_per_seq(&(lp - reference), weights) * beta
    }
}
