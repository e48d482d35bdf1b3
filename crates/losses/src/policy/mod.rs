//! Policy-gradient losses: make likelier what was rewarded.
//!
//! The trainers' built-in forms are raw sums over tokens and take an advantage a token, 0 on the
//! prompt. The published methods take an advantage a sequence, a mask and an [`Aggregation`].
//!
//! [`Aggregation`]: crate::Aggregation

mod cispo;
mod dppo;
mod dro;
mod grpo;
mod gspo;
mod importance_sampling;
mod ppo;
pub(crate) mod ratio;
mod reinforce_kl;
mod sapo;
mod value;

pub use cispo::{CispoConfig, cispo};
pub use dppo::{Divergence, DppoConfig, dppo};
pub use dro::{DroConfig, dro};
pub use grpo::{GrpoConfig, RatioLevel, grpo};
pub use gspo::{GspoConfig, gspo};
pub use importance_sampling::{ImportanceSamplingConfig, importance_sampling};
pub use ppo::{PpoConfig, ppo};
pub use ratio::clipped;
pub use reinforce_kl::reinforce_kl;
pub use sapo::{SapoConfig, sapo};
pub use value::{ValueConfig, value_loss};
