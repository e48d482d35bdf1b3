use tinsmith_grad::{Ragged, Var};

use super::rollout::Rollout;
use crate::at_caller;
use crate::inputs::coefficients;
use crate::policy::ratio::weighted_ratio;

/// Policy gradient against the sampler: per active token `-r·A + β (sg(l) - ref)` with `r = e^d`,
/// `d = clip(l - q, ±cap)`, q the sampler's logprobs, cap the rollout's.
///
/// The KL term has **no gradient**: it shows in the loss and does not act. `kl_beta` is 0 in the
/// source.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::recipes::{Rollout, reinforce};
///
/// let lp = ragged(&[vec![-0.5]]);
/// let sampled = ragged(&[vec![-0.5 - 2f64.ln()]]);
/// let reference = ragged(&[vec![-1.5]]);
/// let advantages = Var::from_vec(vec![3.0], &[1], &Device::Cpu);
/// let rollout = Rollout::new(&lp, &advantages).sampled(&sampled).reference(&reference);
/// let loss = reinforce(&lp, &rollout, 0.25);
/// assert!((loss.item()? + 5.75).abs() < 1e-12); // -2 · 3 + 0.25 · 1
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn reinforce(lp: &Ragged, rollout: &Rollout, kl_beta: f64) -> Var {
    at_caller! {
        coefficients!("reinforce", lp; kl_beta);
        let sampled = rollout.sampled.as_ref().unwrap_or(&rollout.old);
        let log_ratio = rollout.log_ratio_to(lp, sampled);
        let loss = -weighted_ratio(&log_ratio, &rollout.active_advantages()).sum();
        match &rollout.reference {
            Some(reference) if kl_beta != 0.0 => {
                loss + rollout.on_active(&(lp.detach() - reference)).sum() * kl_beta
            }
            _ => loss,
        }
    }
}
