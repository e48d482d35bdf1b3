//! The policy-gradient losses that trainers have built in, in the form in which they have them: raw sums over tokens.
//!
//! All take per-token logprobs `lp` of the policy, `old` of the policy that sampled, and advantages, each `[tokens]`
//! per sequence. Prompt tokens carry an advantage of 0.

use tinsmith_grad::{Ragged, Var};

use crate::aggregate::or_one;
use crate::at_caller;
use crate::config::config;

config! {
    /// Options of [`ppo`].
    pub struct PpoConfig {
        /// The lower bound of the importance ratio (a ratio, not 1 - ε).
        clip_low: f64 = 0.8,
        /// The upper bound of the importance ratio; infinity for none.
        clip_high: f64 = 1.2,
    }
}

config! {
    /// Options of [`cispo`].
    pub struct CispoConfig {
        /// The lower bound of the importance ratio. Above 0, tokens that the policy has already left would keep a large
        /// weight; so the default is 0.
        clip_low: f64 = 0.0,
        /// The upper bound of the importance ratio.
        clip_high: f64 = 4.0,
    }
}

config! {
    /// Options of [`dro`].
    pub struct DroConfig {
        /// How strongly the policy is held near the one that sampled.
        beta: f64 = 0.05,
    }
}

config! {
    /// Options of [`gspo`]. The trainers do not publish their defaults; these are the bounds of the method's paper, narrow
    /// because the mean log ratio of a sequence varies much less than that of a token.
    pub struct GspoConfig {
        /// The lower bound of the sequence's importance ratio.
        clip_low: f64 = 0.9997,
        /// The upper bound of the sequence's importance ratio.
        clip_high: f64 = 1.0004,
    }
}

/// Policy gradient corrected for sampling from an older policy: `-Σ r·A` with `r = e^(l - old)`.
///
/// Gradient: `-r·A`. A token with advantage 0 contributes 0 even where its ratio overflows; elsewhere a ratio that
/// overflows (log ratio above 88 in f32, 709 in f64) makes the loss infinite, as the objective has no bound: see [`ppo`].
/// The `importance_sampling` of Tinker, Fireworks and SkyRL.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-0.5, -1.0]]);
/// let old = ragged(&[vec![-0.5 - 2f64.ln(), -1.0]]); // ratios 2 and 1
/// let advantages = ragged(&[vec![3.0, -1.0]]);
/// let loss = tinsmith_losses::importance_sampling(&lp, &old, &advantages);
/// assert!((loss.item()? + 5.0).abs() < 1e-12); // -(2 · 3 - 1)
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn importance_sampling(lp: &Ragged, old: &Ragged, advantages: &Ragged) -> Var {
    at_caller! { -weighted_ratio(&(lp - old), advantages).sum() }
}

/// Proximal policy optimisation's clipped objective: `-Σ min(r·A, clip(r, low, high)·A)` with `r = e^(l - old)`.
///
/// Gradient: `-r·A` where `A > 0` and `r <= high`, or `A < 0` and `r >= low`; else 0. The branch that is not chosen
/// takes no part in the gradient, so a clipped ratio may overflow; a negative advantage on an overflowing ratio is
/// infinite, as the objective has no bound there. Schulman et al., 2017 (arXiv:1707.06347); the `ppo` of Tinker,
/// Fireworks and SkyRL. [`clipped`] tells which tokens lie outside the bounds.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-0.5, -0.5, -0.5]]);
/// let old = ragged(&[vec![-0.5 - 2f64.ln(), -0.5 - 2f64.ln(), -0.5]]); // ratios 2, 2, 1
/// let advantages = ragged(&[vec![1.0, -1.0, 1.0]]);
/// let loss = tinsmith_losses::ppo(&lp, &old, &advantages, &Default::default());
/// assert!((loss.item()? - -(1.2 - 2.0 + 1.0)).abs() < 1e-12);
/// assert_eq!(loss.backward(&[lp.values()])?[0].to_vec1::<f64>()?[0], 0.0); // clipped
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn ppo(lp: &Ragged, old: &Ragged, advantages: &Ragged, config: &PpoConfig) -> Var {
    at_caller! { -clipped_surrogate(&(lp - old), advantages, config.clip_low, config.clip_high).sum() }
}

/// Clipped importance weights on a policy gradient: `-Σ sg(clip(r, low, high))·l·A` with `r = e^(l - old)`.
///
/// Gradient: `-clip(r)·A`; unlike [`ppo`]'s it never stops, it is only limited. MiniMax-M1, 2025 (arXiv:2506.13585);
/// the `cispo` of Tinker and Fireworks.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-0.5, -1.0]]);
/// let old = ragged(&[vec![-9.5, -1.0]]); // ratios e^9, limited to 4, and 1
/// let advantages = ragged(&[vec![1.0, -1.0]]);
/// let loss = tinsmith_losses::cispo(&lp, &old, &advantages, &Default::default());
/// assert!((loss.item()? - 1.0).abs() < 1e-12); // 4 · 0.5 · 1 + 1 · 1 · -1
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn cispo(lp: &Ragged, old: &Ragged, advantages: &Ragged, config: &CispoConfig) -> Var {
    at_caller! {
        let ratio = (lp - old).detach().clamp(config.clip_low.ln(), config.clip_high.ln()).exp();
        -(ratio * lp * advantages).sum()
    }
}

/// Direct reward optimisation: `-Σ (l·A - β/2 (l - old)²)`, a policy gradient held back by a square, with no ratio.
///
/// Gradient: `-A + β (l - old)`. The square acts on every token, those without advantage included: the form has no mask.
/// Richemond et al., 2024 (arXiv:2405.19107); the `dro` of Tinker and Fireworks.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{DroConfig, dro};
///
/// let lp = ragged(&[vec![-0.5, -1.0]]);
/// let old = ragged(&[vec![-2.5, -1.0]]);
/// let advantages = ragged(&[vec![1.0, -1.0]]);
/// let loss = dro(&lp, &old, &advantages, &DroConfig::default().beta(0.25));
/// assert_eq!(loss.item()?, 0.0); // -(-0.5 - 0.125 · 4 + 1)
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn dro(lp: &Ragged, old: &Ragged, advantages: &Ragged, config: &DroConfig) -> Var {
    at_caller! { ((lp - old).square() * (config.beta / 2.0) - lp * advantages).sum() }
}

/// Group sequence policy optimisation: [`ppo`] with one ratio a sequence, `-Σ min(r·A, clip(r, low, high)·A)`.
///
/// `r_t = e^m·e^(l - sg(l))` has the value `e^m` on every token of a sequence and a gradient on each, where `m` is the
/// mean of `sg(l) - old` over the tokens with `ratio_mask != 0`. Gradient: `-e^m·A` under PPO's condition on `e^m`, else 0.
/// A sequence with an empty mask contributes 0. Zheng et al., 2025 (arXiv:2507.18071); the `gspo` of Tinker and
/// Fireworks, where the mask is called `sequence_ratio_mask`.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{GspoConfig, gspo};
///
/// let lp = ragged(&[vec![-7.0, -0.5, -0.5]]);
/// let old = ragged(&[vec![-1.0, -0.5 - 4f64.ln(), -0.5]]);
/// let answer = ragged(&[vec![0.0, 1.0, 1.0]]); // log ratios ln 4 and 0: their mean is ln 2
/// let advantages = ragged(&[vec![0.0, 1.0, 1.0]]);
/// let config = GspoConfig::default().clip_high(3.0);
/// let loss = gspo(&lp, &old, &advantages, &answer, &config);
/// assert!((loss.item()? + 4.0).abs() < 1e-12); // -(2 + 2)
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn gspo(
    lp: &Ragged,
    old: &Ragged,
    advantages: &Ragged,
    ratio_mask: &Ragged,
    config: &GspoConfig,
) -> Var {
    at_caller! {
        let dtype = lp.values().dtype();
        let mask = ratio_mask.ne(0.0).to_dtype(dtype);
        let count = mask.sum_per_seq();
        let counted = lp.expand(&count.ne(0.0).to_dtype(dtype));
        let log_ratio = sequence_log_ratio(lp, old, &mask);
        -clipped_surrogate(&log_ratio, &(advantages * counted), config.clip_low, config.clip_high).sum()
    }
}

/// Which tokens have an importance ratio outside of `low..=high`, as 1 and 0.
///
/// Its mean is the clip fraction that PPO runs are watched by; [`aggregate`](crate::aggregate) averages it under a mask.
/// It looks at the ratio alone: with a positive advantage a ratio below `low` is not clipped, but counted here.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-0.5, -0.5], vec![-3.0, -1.0]]);
/// let old = ragged(&[vec![-0.6, -1.5], vec![-1.0, -1.0]]); // ratios 1.1, 2.7, 0.1, 1
/// let outside = tinsmith_losses::clipped(&lp, &old, 0.8, 1.2);
/// assert_eq!(outside.mean().item()?, 0.5);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn clipped(lp: &Ragged, old: &Ragged, low: f64, high: f64) -> Ragged {
    at_caller! { outside(&(lp - old), low, high) }
}

#[track_caller]
pub(crate) fn outside(log_ratio: &Ragged, low: f64, high: f64) -> Ragged {
    let below = log_ratio.lt(low.ln());
    below.where_(
        1.0,
        log_ratio.gt(high.ln()).to_dtype(log_ratio.values().dtype()),
    )
}

/// `r·A` with `r = e^d`, 0 where `A` is 0 whatever `d` is.
#[track_caller]
pub(crate) fn weighted_ratio(log_ratio: &Ragged, advantages: &Ragged) -> Ragged {
    labelled_exp(&advantages.ne(0.0).where_(log_ratio, 0.0)) * advantages
}

/// `min(r·A, clip(r, low, high)·A)` with `r = e^d`, 0 where `A` is 0 whatever `d` is.
///
/// Limiting `d` before the exponential, on the one side that can be chosen, keeps `e^d` finite wherever it is clipped;
/// clipping `r` would multiply a gradient of 0 with an infinite ratio. A gradient passes where the limit changes nothing, so
/// a ratio on the bound keeps it; a NaN has none, but stays NaN in the value.
#[track_caller]
pub(crate) fn clipped_surrogate(
    log_ratio: &Ragged,
    advantages: &Ragged,
    low: f64,
    high: f64,
) -> Ragged {
    let d = log_ratio.detach();
    let if_bad = advantages.lt(0.0).where_(d.maximum(low.ln()), 0.0);
    let limited = advantages.gt(0.0).where_(d.minimum(high.ln()), if_bad);
    labelled_exp(&limited.eq(&d).where_(log_ratio, limited)) * advantages
}

/// The ratio, named so that a report of a value that is not finite points to it.
#[track_caller]
fn labelled_exp(log_ratio: &Ragged) -> Ragged {
    log_ratio.map(|log_ratio| log_ratio.exp().label("importance ratio"))
}

/// The mean over `weights` of `sg(l) - old`, on every token, with the gradient of that token's `l`.
#[track_caller]
pub(crate) fn sequence_log_ratio(lp: &Ragged, old: &Ragged, weights: &Ragged) -> Ragged {
    let fixed = lp.detach();
    let mean = (&fixed - old).dot_per_seq(weights) / or_one(&weights.sum_per_seq());
    lp.expand(&mean) + (lp - fixed)
}
