//! Losses that prefer one sequence to another. Sequences come in pairs: chosen, rejected, chosen,
//! rejected, ... ([`kto`] alone takes them one by one.)
//!
//! `weights` is 1 on the tokens of the answer and 0 on those of the prompt, which take no part.
//! With `S = Σ w·l` of a sequence, `R` the same of the reference, and h = (S - R) of the chosen
//! minus (S - R) of the rejected sequence, the losses are functions of `h`; P is the number of
//! pairs. Their gradients on the rejected sequence have the opposite sign. With label smoothing e,
//! the share of labels that are taken to be wrong, each becomes `(1 - e) f(h) + e f(-h)`.

mod bradley_terry;
mod dpo;
mod hinge;
mod ipo;
mod kto;
mod metrics;
mod orpo;
mod pairs;
mod simpo;

pub use bradley_terry::{BradleyTerryConfig, bradley_terry};
pub use dpo::{DpoConfig, dpo};
pub use hinge::{HingeConfig, hinge};
pub use ipo::{IpoConfig, ipo};
pub use kto::{KtoConfig, kto, kto_kl};
pub use metrics::{PreferenceMetrics, preference_metrics};
pub use orpo::{OrpoConfig, orpo, orpo_log_odds_ratio};
pub use simpo::{SimpoConfig, simpo};
