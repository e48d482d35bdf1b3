use tinsmith_grad::{Ragged, Var};

use super::rollout::Rollout;
use super::weight::weighted;
use crate::at_caller;
use crate::inputs::{coefficients, tokens};
use crate::masked::{masked, only};
use crate::policy::DroConfig;

/// Direct reward optimization: per active token `-(l·A·k - β/2 (l - old)²·[A != 0])`.
///
/// Gradient: `-A·k + β (l - old)`, 0 in a sequence of advantage 0. Richemond et al., 2024
/// (arXiv:2405.19107).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{DroConfig, recipes::{Rollout, dro}};
///
/// let lp = ragged(&[vec![-0.5], vec![-0.5]]);
/// let old = ragged(&[vec![-2.5], vec![-2.5]]);
/// let advantages = Var::from_vec(vec![1.0, 0.0], &[2], &Device::Cpu);
/// let loss = dro(&lp, &Rollout::new(&old, &advantages), &DroConfig::default().beta(0.25));
/// assert_eq!(loss.item()?, 1.0); // 0.5 + 0.125 · 4; the second has no advantage
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn dro(lp: &Ragged, rollout: &Rollout, config: &DroConfig) -> Var {
    at_caller! {
        coefficients!("dro", lp; config.beta);
        tokens!("rollout"; lp);
        let advantages = rollout.active_advantages();
        let distance = only(&advantages.ne(0.0), &(lp - &rollout.old));
        let gain = weighted(&masked(lp, &advantages), &advantages, rollout);
        (distance.square() * (config.beta / 2.0) - gain).sum()
    }
}
