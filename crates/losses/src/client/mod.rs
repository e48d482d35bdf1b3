//! Policy losses as training recipes compute them on the client, in the forms of Fireworks' cookbook.
//!
//! They differ from the trainers' built-in forms in what surrounds the ratio: one advantage per sequence, a mask, a log
//! ratio limited to ±20, and a weight that corrects for the difference between the sampler's and the trainer's
//! logprobs. All are **raw sums** over the active tokens, meant for gradients that the optimizer step divides by the
//! number of loss tokens ([`GradNormalization::NumLossTokens`](crate::GradNormalization)).
//!
//! ```
//! use tinsmith_grad::{Device, Ragged, Var};
//! use tinsmith_losses::client::{self, GrpoConfig, Rollout};
//!
//! # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
//! let lp = ragged(&[vec![-9.0, -0.5, -1.0], vec![-0.5]]);
//! let old = ragged(&[vec![-1.0, -0.5 - 2f64.ln(), -1.0], vec![-0.5 - 2f64.ln()]]); // ratios -, 2, 1; 2
//! let advantages = Var::from_vec(vec![1.0, -1.0], &[2], &Device::Cpu);
//! let rollout = Rollout::new(&old, &advantages).prompt_lens(&[2, 1]);
//!
//! let loss = client::grpo(&lp, &rollout, &GrpoConfig::default());
//! assert!((loss.item()? - -(1.2 + 1.0 - 2.0)).abs() < 1e-12);
//! assert_eq!(client::rollout_metrics(&lp, &rollout).active_tokens.item()?, 3.0);
//! # anyhow::Ok(())
//! ```

mod losses;
mod metrics;
mod rollout;
mod tis;

pub use losses::{
    CispoConfig, DapoConfig, DroConfig, GrpoConfig, GspoConfig, ImportanceSamplingConfig, cispo,
    dapo, dro, grpo, gspo, gspo_log_ratio, importance_sampling, log_ratio, reinforce,
};
pub use metrics::{RatioMetrics, RolloutMetrics, ratio_metrics, rollout_metrics};
pub use rollout::Rollout;
pub use tis::{TisConfig, TisLevel, tis_weight};

/// Log ratios beyond this are of no use and would overflow.
const LOG_CAP: f64 = 20.0;
