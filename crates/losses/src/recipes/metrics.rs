use tinsmith_grad::{Ragged, Var};

use super::rollout::Rollout;
use crate::aggregate::{Aggregation, aggregate};
use crate::at_caller;
use crate::clip::Clip;
use crate::inputs::tokens;
use crate::kl::k3;
use crate::masked::only;
use crate::policy::ratio::outside;

/// How far the policy has gone; each a scalar, 0 if no token is active. Made by
/// [`rollout_metrics`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RolloutMetrics {
    /// The number of active tokens.
    pub active_tokens: Var,
    /// The mean over sequences of the mean of `e^d - d - 1` with `d = l - old`, without a limit on
    /// d.
    pub ppo_kl: Var,
    /// The mean of `l - ref` over all active tokens, if the rollout has a reference.
    pub mean_kl: Option<Var>,
    /// The mean over sequences of the mean of k3 to the reference, if the rollout has one.
    pub ref_kl: Option<Var>,
}

/// Token count and KL figures of a rollout.
#[track_caller]
pub fn rollout_metrics(lp: &Ragged, rollout: &Rollout) -> RolloutMetrics {
    at_caller! {
        tokens!("rollout"; lp);
        let active = rollout.active();
        let from = |x: &Ragged, y: &Ragged| rollout.on_active(&(x - y));
        let mean = |x: &Ragged| aggregate(x, &active, Aggregation::TokenMean);
        let per_seq = |x: &Ragged| aggregate(x, &active, Aggregation::SeqMeanTokenMean);
        let reference = rollout.reference.as_ref();
        RolloutMetrics {
            active_tokens: active.sum(),
            ppo_kl: per_seq(&k3(&from(lp, &rollout.old))),
            mean_kl: reference.map(|reference| mean(&from(lp, reference))),
            ref_kl: reference.map(|reference| per_seq(&k3(&from(reference, lp)))),
        }
    }
}

/// What an importance ratio is watched by; each a scalar. Made by [`ratio_metrics`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RatioMetrics {
    /// The mean over sequences of the mean ratio.
    pub ratio_mean: Var,
    /// The mean over sequences of the share of tokens whose ratio is out of bounds.
    pub clip_fraction: Var,
}

/// Mean and clip fraction of the ratios `e^log_ratio` over the tokens of `mask`, which is
/// [`Rollout::active`] or [`Rollout::response`].
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{Clip, recipes::{Rollout, log_ratio, ratio_metrics}};
///
/// let lp = ragged(&[vec![-0.5, -1.0], vec![-1.0]]);
/// let old = ragged(&[vec![-0.5 - 3f64.ln(), -1.0], vec![-1.0]]); // ratios 3, 1; 1
/// let rollout = Rollout::new(&old, &Var::from_vec(vec![1.0, 1.0], &[2], &Device::Cpu));
/// let metrics = ratio_metrics(&log_ratio(&lp, &rollout), &rollout.active(), Clip::eps(0.2));
/// assert!((metrics.ratio_mean.item()? - 1.5).abs() < 1e-12); // (2 + 1) / 2
/// assert_eq!(metrics.clip_fraction.item()?, 0.25);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn ratio_metrics(log_ratio: &Ragged, mask: &Ragged, clip: Clip) -> RatioMetrics {
    at_caller! {
        tokens!("ratio_metrics"; log_ratio, mask);
        let log_ratio = only(&mask.ne(0.0), log_ratio);
        let per_seq = |x: &Ragged| aggregate(x, mask, Aggregation::SeqMeanTokenMean);
        RatioMetrics {
            ratio_mean: per_seq(&log_ratio.exp()),
            clip_fraction: per_seq(&outside("ratio_metrics", &log_ratio, clip)),
        }
    }
}
