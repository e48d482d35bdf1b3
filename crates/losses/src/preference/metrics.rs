use tinsmith_grad::Var;

use super::pairs::pairs;
use crate::aggregate::Reduction;
use crate::at_caller;

/// What a preference run is watched by; each a scalar, 0 of no pairs. Made by
/// [`preference_metrics`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PreferenceMetrics {
    /// The share of pairs whose chosen sequence has the higher reward. A tie is a miss.
    pub accuracy: Var,
    /// The mean reward of the chosen minus that of the rejected sequences, in the unit of the
    /// rewards.
    pub margin: Var,
    /// The mean reward of the chosen sequences.
    pub chosen_reward: Var,
    /// The mean reward of the rejected sequences.
    pub rejected_reward: Var,
}

/// Accuracy, margin and means of interleaved rewards `[2P]`.
///
/// The rewards are [`implicit_reward`](crate::implicit_reward) for [`dpo`](crate::dpo),
/// [`ipo`](crate::ipo) and [`hinge`](crate::hinge); `β` times
/// [`mean_logprob`](crate::mean_logprob) for [`simpo`](crate::simpo); `β` times
/// [`sequence_logprob`](crate::sequence_logprob) for [`bradley_terry`](crate::bradley_terry).
/// tinker-cookbook reports DPO's margin in that unit, β included; Fireworks' cookbook without β.
///
/// ```
/// # use tinsmith_grad::{Device, Var};
/// let rewards = Var::from_vec(vec![2.0, 1.0, 0.5, 0.5], &[4], &Device::Cpu);
/// let metrics = tinsmith_losses::preference_metrics(&rewards);
/// assert_eq!(metrics.accuracy.item()?, 0.5);
/// assert_eq!(metrics.margin.item()?, 0.5);
/// assert_eq!(metrics.chosen_reward.item()?, 1.25);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn preference_metrics(rewards: &Var) -> PreferenceMetrics {
    at_caller! {
        let (chosen, rejected) = pairs(rewards);
        let mean = |x: &Var| Reduction::Mean.apply(x);
        PreferenceMetrics {
            accuracy: mean(&chosen.gt(&rejected).to_dtype(rewards.dtype())),
            margin: mean(&(&chosen - &rejected)),
            chosen_reward: mean(&chosen),
            rejected_reward: mean(&rejected),
        }
    }
}
