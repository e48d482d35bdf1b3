//! From rewards to advantages.

use tinsmith_grad::Ragged;

use crate::aggregate::{Aggregation, aggregate};
use crate::at_caller;
use crate::config::config;

config! {
    /// Options of [`normalized`].
    pub struct NormalizeConfig {
        /// Added to the standard deviation. Recipes use 1e-8, 1e-6 or 1e-4.
        eps: f64 = 1e-8,
        /// What is subtracted from the number of rewards in the deviation: 1, or 0 for the population's.
        correction: f64 = 1.0,
        /// Whether a standard deviation below `eps` is taken to be 1, as Fireworks' cookbook does.
        floor: bool = true,
    }
}

/// The rewards of one group less their mean.
///
/// A group of equal rewards has advantages of 0, hence no gradient; see [`informative`]. Tinker's and tinker-cookbook's
/// default.
///
/// ```
/// use tinsmith_losses::advantages;
///
/// assert_eq!(advantages::centered(&[1.0, 0.0, 0.0, 1.0]), [0.5, -0.5, -0.5, 0.5]);
/// ```
pub fn centered(rewards: &[f64]) -> Vec<f64> {
    let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
    rewards.iter().map(|reward| reward - mean).collect()
}

/// The rewards of one group less their mean, over their standard deviation: `(R - mean)/(std + eps)`.
///
/// A group of one, or of equal rewards, has advantages of 0. GRPO: Shao et al., 2024 (arXiv:2402.03300).
///
/// ```
/// use tinsmith_losses::advantages::{NormalizeConfig, normalized};
///
/// let config = NormalizeConfig::default().eps(0.0).correction(0.0);
/// assert_eq!(normalized(&[3.0, 1.0, 1.0, 3.0], &config), [1.0, -1.0, -1.0, 1.0]);
/// assert_eq!(normalized(&[2.0], &NormalizeConfig::default()), [0.0]);
/// ```
pub fn normalized(rewards: &[f64], config: &NormalizeConfig) -> Vec<f64> {
    let centered = centered(rewards);
    let degrees = rewards.len() as f64 - config.correction;
    let variance = centered.iter().map(|x| x * x).sum::<f64>() / degrees;
    // Not over 0, which gives 0/0: a group of one, or of equal rewards, tells nothing.
    let std = if degrees > 0.0 && variance > 0.0 {
        variance.sqrt()
    } else {
        1.0
    };
    let std = if config.floor && std < config.eps {
        1.0
    } else {
        std
    };
    centered.iter().map(|x| x / (std + config.eps)).collect()
}

/// Which groups to train on: those whose rewards differ, or the first alone if there is none.
///
/// tinker-cookbook's rule; it keeps one group so that a step has something to send.
///
/// ```
/// use tinsmith_losses::advantages;
///
/// let groups = [vec![1.0, 1.0], vec![0.0, 1.0], vec![0.0, 0.0]];
/// assert_eq!(advantages::informative(&groups), [1]);
/// assert_eq!(advantages::informative(&groups[..1]), [0]);
/// ```
pub fn informative(groups: &[impl AsRef<[f64]>]) -> Vec<usize> {
    let differs = |group: &[f64]| group.iter().any(|reward| *reward != group[0]);
    let kept: Vec<usize> = (0..groups.len())
        .filter(|&i| differs(groups[i].as_ref()))
        .collect();
    match kept.is_empty() && !groups.is_empty() {
        true => vec![0],
        false => kept,
    }
}

/// From a reward at each step to the discounted sum of those to come, the step's own included: `Σ_k γ^k x[t+k]`.
///
/// ```
/// use tinsmith_losses::advantages;
///
/// assert_eq!(advantages::discounted_future_sum(&[1.0, 0.0, 4.0], 0.5), [2.0, 2.0, 4.0]);
/// ```
pub fn discounted_future_sum(x: &[f64], gamma: f64) -> Vec<f64> {
    let mut sums = x.to_vec();
    for t in (0..x.len().saturating_sub(1)).rev() {
        sums[t] += gamma * sums[t + 1];
    }
    sums
}

/// Advantages less a KL penalty to a base policy: `A + c·m·(avg - (q - base))`.
///
/// All are `[tokens]` per sequence: q the sampled tokens' logprobs, m a mask of 0 and 1, avg the mean of `q - base` under
/// it, so that the penalty shifts advantages between tokens and not on the whole. From tinker-cookbook.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::advantages::kl_penalized;
///
/// let advantages = ragged(&[vec![0.0, 1.0], vec![1.0]]);
/// let mask = ragged(&[vec![0.0, 1.0], vec![1.0]]);
/// let sampled = ragged(&[vec![-9.0, -1.0], vec![-2.0]]);
/// let base = ragged(&[vec![-1.0, -2.0], vec![-2.0]]); // q - base: -, 1; 0, on average 0.5
/// let shaped = kl_penalized(&advantages, &sampled, &base, &mask, 0.5);
/// assert_eq!(shaped.values().to_vec::<f64>()?, [0.0, 0.75, 1.25]);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn kl_penalized(
    advantages: &Ragged,
    sampled: &Ragged,
    base: &Ragged,
    mask: &Ragged,
    coefficient: f64,
) -> Ragged {
    at_caller! {
        let divergence = sampled - base;
        let average = aggregate(&divergence, mask, Aggregation::TokenMean);
        advantages + mask * divergence.map(|divergence| (average - divergence) * coefficient)
    }
}

/// Advantages of on-policy distillation: `A - c·m·(q - teacher)`, to be trained with importance sampling.
///
/// Arguments as in [`kl_penalized`], without the average: the teacher is to be imitated. From tinker-cookbook, where c is 1
/// and A is 0.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::advantages::distilled;
///
/// let (zero, mask) = (ragged(&[vec![0.0, 0.0]]), ragged(&[vec![0.0, 1.0]]));
/// let shaped = distilled(&zero, &ragged(&[vec![-1.0, -1.0]]), &ragged(&[vec![-3.0, -2.0]]), &mask, 1.0);
/// assert_eq!(shaped.values().to_vec::<f64>()?, [0.0, -1.0]);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn distilled(
    advantages: &Ragged,
    sampled: &Ragged,
    teacher: &Ragged,
    mask: &Ragged,
    coefficient: f64,
) -> Ragged {
    at_caller! { advantages - mask * (sampled - teacher) * coefficient }
}
