use tinsmith_grad::{Ragged, Var};

use crate::aggregate::{Aggregation, aggregate};
use crate::at_caller;
use crate::config::config;
use crate::inputs::{positive, tokens};
use crate::masked::only;

config! {
    /// Options of [`value_loss`].
    pub struct ValueConfig {
        /// How far a value may move from its old one before it stops being pushed on; infinity for
        /// no limit. A distance of values, not of ratios.
        clip: f64 = 0.2,
        /// How tokens become one number.
        aggregation: Aggregation = Aggregation::TokenMean,
    }
}

/// The loss of PPO's value function: `agg(½ max((v - R)², (clip(v, old ± ε) - R)²))`.
///
/// `values`, which it is differentiated by, `old` (the values when the tokens were sampled),
/// `returns` and `weights` are `[tokens]` per sequence. Gradient per token, before aggregation:
/// `v - R`, and 0 where v has left `old ± ε` towards R. A token of weight 0 takes no part, whatever
/// its values. Schulman et al., 2017, in the form of OpenAI's baselines, which TRL and verl share.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{ValueConfig, value_loss};
///
/// let values = ragged(&[vec![2.0, 2.0, 7.0]]);
/// let old = ragged(&[vec![1.0, 2.0, 0.0]]);
/// let returns = ragged(&[vec![3.0, 3.0, 0.0]]);
/// let answer = ragged(&[vec![1.0, 1.0, 0.0]]);
/// let config = ValueConfig::default().clip(0.5);
/// let loss = value_loss(&values, &old, &returns, &answer, &config);
/// assert_eq!(loss.item()?, 0.8125); // ½ max(1, 1.5²) and ½ 1
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn value_loss(
    values: &Ragged,
    old: &Ragged,
    returns: &Ragged,
    weights: &Ragged,
    config: &ValueConfig,
) -> Var {
    at_caller! {
        tokens!("value_loss"; values, old, returns, weights);
        let clip = match positive("value_loss", "clip", config.clip) {
            Ok(clip) => clip,
            Err(error) => return error.into(),
        };
        let active = weights.ne(0.0);
        let on = |x: &Ragged| only(&active, x);
        let (old, error) = (on(old), on(&(values - returns)));
        let moved = on(values) - &old;
        let limited = old + moved.clamp(-clip, clip) - on(returns);
        let loss = error.square().maximum(limited.square()) * 0.5;
        aggregate(&loss, weights, config.aggregation)
    }
}
