use tinsmith_grad::{Ragged, Var};

use super::rollout::{Rollout, log_ratio};
use super::weight::weighted;
use crate::at_caller;
use crate::policy::ratio::weighted_ratio;

/// Importance sampling: per active token `-r·A·k` with `r = e^d`, d the limited [`log_ratio`].
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::recipes::{Rollout, importance_sampling};
///
/// let lp = ragged(&[vec![-0.5]]);
/// let old = ragged(&[vec![-0.5 - 2f64.ln()]]); // ratio 2
/// let sampled = ragged(&[vec![-0.5 - 4f64.ln()]]); // half as likely as to old: k = 2
/// let advantages = Var::from_vec(vec![3.0], &[1], &Device::Cpu);
/// let rollout = Rollout::new(&old, &advantages).sampled(&sampled);
/// assert!((importance_sampling(&lp, &rollout).item()? + 12.0).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn importance_sampling(lp: &Ragged, rollout: &Rollout) -> Var {
    at_caller! {
        let advantages = rollout.active_advantages();
        let gain = weighted_ratio(&log_ratio(lp, rollout), &advantages);
        -weighted(&gain, &advantages, rollout).sum()
    }
}
