//! From rewards to advantages.

use tinsmith_grad::Ragged;

use crate::aggregate::{Aggregation, aggregate};
use crate::at_caller;
use crate::config::config;
use crate::inputs::{coefficients, tokens};
use crate::masked::masked;

config! {
    /// Options of [`normalized`].
    pub struct NormalizeConfig {
        /// Added to the standard deviation. Recipes use 1e-8, 1e-6 or 1e-4.
        eps: f64 = 1e-8,
        /// What is subtracted from the number of rewards in the deviation: 1, or 0 for the
        /// population's.
        correction: f64 = 1.0,
        /// Whether a standard deviation below `eps` is taken to be 1, as Fireworks' cookbook does.
        floor: bool = true,
    }
}

/// The rewards of one group less their mean.
///
/// A group of equal rewards has advantages of exactly 0, hence no gradient; see [`informative`].
/// Rewards that differ by rounding alone, as 0.1 + 0.2 and 0.3 do, are equal. A group with a reward
/// that is NaN or infinite has no mean: all its advantages are NaN, and so is a loss that any of
/// them enters. Tinker's and tinker-cookbook's default.
///
/// ```
/// use tinsmith_losses::advantages;
///
/// assert_eq!(advantages::centered(&[1.0, 0.0, 0.0, 1.0]), [0.5, -0.5, -0.5, 0.5]);
/// assert_eq!(advantages::centered(&[0.7; 3]), [0.0; 3]);
/// ```
pub fn centered(rewards: &[f64]) -> Vec<f64> {
    match Spread::of(rewards) {
        Spread::Equal => vec![0.0; rewards.len()],
        Spread::NotFinite => vec![f64::NAN; rewards.len()],
        Spread::Different => {
            let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
            rewards.iter().map(|reward| reward - mean).collect()
        }
    }
}

/// The rewards of one group less their mean, over their standard deviation:
/// `(R - mean)/(std + eps)`.
///
/// A group of one, or of equal rewards, has advantages of exactly 0; equal and not finite are what
/// they are in [`centered`]. GRPO: Shao et al., 2024 (arXiv:2402.03300).
///
/// ```
/// use tinsmith_losses::advantages::{NormalizeConfig, normalized};
///
/// let config = NormalizeConfig::default().eps(0.0).correction(0.0);
/// assert_eq!(normalized(&[3.0, 1.0, 1.0, 3.0], &config), [1.0, -1.0, -1.0, 1.0]);
/// assert_eq!(normalized(&[0.03; 16], &config), [0.0; 16]);
/// assert_eq!(normalized(&[2.0], &NormalizeConfig::default()), [0.0]);
/// ```
pub fn normalized(rewards: &[f64], config: &NormalizeConfig) -> Vec<f64> {
    let centered = centered(rewards);
    let degrees = rewards.len() as f64 - config.correction;
    // Of unit size before they are squared, so that the squares neither overflow nor underflow.
    let size = centered.iter().fold(0.0, |size: f64, x| size.max(x.abs()));
    let squares = centered.iter().map(|x| (x / size) * (x / size)).sum::<f64>();
    let std = match size > 0.0 && degrees > 0.0 {
        true => size * (squares / degrees).sqrt(),
        false => 1.0,
    };
    let std = match config.floor && std < config.eps {
        true => 1.0,
        false => std,
    };
    centered.iter().map(|x| x / (std + config.eps)).collect()
}

/// Advantages of a group of which only the `keep` responses with the highest `metric` are trained
/// on: those are [`normalized`] among themselves, the others are 0.
///
/// `metric` maps a response's index to a number: minus its length keeps the shortest, its reward
/// over its length those that use their tokens best. Of equals the earlier one is kept; a response
/// whose metric is NaN comes last. Group filtered policy optimization: Shrivastava et al., 2025
/// (arXiv:2508.09726).
///
/// ```
/// use tinsmith_losses::advantages::{NormalizeConfig, filtered};
///
/// let (rewards, lengths) = ([1.0, 1.0, 0.0, 0.0], [900, 200, 300, 100]);
/// let config = NormalizeConfig::default().eps(0.0).correction(0.0);
/// let shortest = filtered(&rewards, 2, |i| -f64::from(lengths[i]), &config);
/// assert_eq!(shortest, [0.0, 1.0, 0.0, -1.0]);
/// ```
pub fn filtered(
    rewards: &[f64],
    keep: usize,
    metric: impl Fn(usize) -> f64,
    config: &NormalizeConfig,
) -> Vec<f64> {
    let key = |i: usize| match metric(i) {
        x if x.is_nan() => f64::NEG_INFINITY,
        x => x,
    };
    let mut ranked: Vec<(f64, usize)> = (0..rewards.len()).map(|i| (key(i), i)).collect();
    ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a)); // stable, so that the earlier one comes first
    ranked.truncate(keep);
    let kept: Vec<f64> = ranked.iter().map(|&(_, i)| rewards[i]).collect();
    let mut advantages = vec![0.0; rewards.len()];
    for ((_, i), advantage) in ranked.into_iter().zip(normalized(&kept, config)) {
        advantages[i] = advantage;
    }
    advantages
}

/// Which groups to train on: those whose rewards differ, or one alone if there is none.
///
/// tinker-cookbook's rule; it keeps one group so that a step has something to send. Rewards that
/// differ by rounding alone are equal, as in [`centered`]. A group with a reward that is not finite
/// teaches nothing and is left out; it is kept for want of a better one only.
///
/// ```
/// use tinsmith_losses::advantages;
///
/// let groups = [vec![1.0, 1.0], vec![0.0, 1.0], vec![0.0, 0.0], vec![f64::NAN, 1.0]];
/// assert_eq!(advantages::informative(&groups), [1]);
/// assert_eq!(advantages::informative(&groups[..1]), [0]);
/// ```
pub fn informative(groups: &[impl AsRef<[f64]>]) -> Vec<usize> {
    let are = |spread| (0..groups.len()).filter(move |&i| Spread::of(groups[i].as_ref()) == spread);
    let kept: Vec<usize> = are(Spread::Different).collect();
    match kept.is_empty() {
        true => are(Spread::Equal).chain(0..groups.len()).take(1).collect(),
        false => kept,
    }
}

/// How the rewards of a group lie to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spread {
    Equal,
    Different,
    NotFinite,
}

impl Spread {
    fn of(rewards: &[f64]) -> Spread {
        if !rewards.iter().all(|reward| reward.is_finite()) {
            return Spread::NotFinite;
        }
        let least = rewards.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let rounding = 4.0 * f64::EPSILON * least.abs().max(most.abs());
        match most - least <= rounding {
            true => Spread::Equal,
            false => Spread::Different,
        }
    }
}

/// From a reward at each step to the discounted sum of those to come, the step's own included:
/// `Σ_k γ^k x[t+k]`.
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
/// All are `[tokens]` per sequence: q the sampled tokens' logprobs, m a mask of 0 and 1, avg the
/// mean of `q - base` under it, so that the penalty shifts advantages between tokens and not on the
/// whole. From tinker-cookbook.
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
        coefficients!("kl_penalized", advantages; coefficient);
        tokens!("kl_penalized"; advantages, sampled, base, mask);
        let divergence = sampled - base;
        let average = aggregate(&divergence, mask, Aggregation::TokenMean);
        let penalty = divergence.map(|divergence| (average - divergence) * coefficient);
        advantages + masked(&penalty, mask)
    }
}

/// Advantages of on-policy distillation: `A - c·m·(q - teacher)`, to be trained with importance
/// sampling.
///
/// Arguments as in [`kl_penalized`], without the average: the teacher is to be imitated. From
/// tinker-cookbook, where c is 1 and A is 0.
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
    at_caller! {
        coefficients!("distilled", advantages; coefficient);
        tokens!("distilled"; advantages, sampled, teacher, mask);
        advantages - masked(&(sampled - teacher), mask) * coefficient
    }
}
