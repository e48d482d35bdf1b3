//! Policy losses in the forms in which training services publish them as recipes: Fireworks'
//! cookbook, whose loop computes them on the client.
//!
//! They differ from the trainers' built-in forms in what surrounds the ratio, and a [`Rollout`]
//! holds that: one advantage per sequence, a mask, a log ratio limited to ±20, and a weight that
//! corrects for the difference between the sampler's and the trainer's logprobs. What the functions
//! take beside it are the method's own options. All are **raw sums** over the active tokens, meant
//! for gradients that the optimizer step divides by the number of loss tokens.
//!
//! ```
//! use tinsmith_grad::{Device, Ragged, Var};
//! use tinsmith_losses::recipes::{self, Rollout};
//!
//! # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
//! let ln2 = 2f64.ln();
//! let lp = ragged(&[vec![-9.0, -0.5, -1.0], vec![-0.5]]);
//! let old = ragged(&[vec![-1.0, -0.5 - ln2, -1.0], vec![-0.5 - ln2]]); // ratios -, 2, 1; 2
//! let advantages = Var::from_vec(vec![1.0, -1.0], &[2], &Device::Cpu);
//! let rollout = Rollout::new(&old, &advantages).prompt_lens(&[2, 1]);
//!
//! let loss = recipes::grpo(&lp, &rollout, &Default::default());
//! assert!((loss.item()? - -(1.2 + 1.0 - 2.0)).abs() < 1e-12);
//! assert_eq!(recipes::rollout_metrics(&lp, &rollout).active_tokens.item()?, 3.0);
//! # anyhow::Ok(())
//! ```

mod cispo;
mod dro;
mod grpo;
mod gspo;
mod importance_sampling;
mod metrics;
mod reinforce;
mod rollout;
mod tis;
mod weight;

pub use cispo::{CispoRecipe, cispo};
pub use dro::dro;
pub use grpo::{DapoRecipe, GrpoRecipe, dapo, grpo};
pub use gspo::{GspoRecipe, gspo, gspo_log_ratio};
pub use importance_sampling::importance_sampling;
pub use metrics::{RatioMetrics, RolloutMetrics, ratio_metrics, rollout_metrics};
pub use reinforce::reinforce;
pub use rollout::{Rollout, log_ratio};
pub use tis::{TisConfig, TisLevel};
pub use weight::tis_weight;
