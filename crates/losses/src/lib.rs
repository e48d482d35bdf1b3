//! The losses that language models are fine-tuned with, as pure functions of per-token logprobs.
//!
//! ```
//! use tinsmith_grad::{Device, Ragged};
//! use tinsmith_losses as losses;
//!
//! # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
//! let ln2 = 2f64.ln();
//! let lp = ragged(&[vec![-0.5, -0.25], vec![-1.0]]); // the policy's logprobs of two sequences
//! let old = ragged(&[vec![-0.5 - ln2, -0.25], vec![-1.0 - ln2]]); // the same, when they were sampled
//! let advantages = ragged(&[vec![1.0, 1.0], vec![-1.0]]);
//!
//! // ratios 2, 1, 2: the first is clipped to 1.2, the last is not, since its advantage is negative
//! let loss = losses::ppo(&lp, &old, &advantages, &Default::default()) + 0.01 * losses::regularize::l2(&lp);
//! let expected = -(1.2 + 1.0 - 2.0) + 0.01 * (0.25 + 0.0625 + 1.0);
//! assert!((loss.item()? - expected).abs() < 1e-12);
//!
//! let gradient = loss.backward(&[lp.values()])?; // d loss / d logprob, one per token
//! assert_eq!(gradient[0].dims(), [3]);
//! # anyhow::Ok(())
//! ```
//!
//! # Conventions
//!
//! * `lp` holds the policy's logprobs of the target tokens, `[tokens]` per sequence, or
//!   `[tokens, K]` where a position has K targets. It is the only argument that a loss is meant to
//!   be differentiated by.
//! * A loss returns one number, a [`Var`](tinsmith_grad::Var). A function that keeps one value per
//!   token returns a [`Ragged`](tinsmith_grad::Ragged), to be summed, averaged or given to
//!   [`aggregate`]. What one watches beside a loss (accuracy, clip fraction, KL) is a function of
//!   its own: evaluated together with the loss it costs next to nothing.
//! * All inputs have `lp`'s dtype, f32 or f64, its number of sequences and its lengths. What has
//!   one value a sequence (a sequence's advantage) is a `Var` of shape `[n]`;
//!   [`Ragged::expand`](tinsmith_grad::Ragged::expand) spreads it over the tokens.
//! * Preference pairs are interleaved: chosen, rejected, chosen, rejected, ...
//! * Options are structs whose `Default` is what the source publishes:
//!   `DpoConfig::default().beta(0.2)`.
//! * Nothing here fails or computes. A length that does not match, an unpaired sequence, an option
//!   out of its range is an error inside of the returned value, with the line that called the loss;
//!   the evaluating call returns it.
//! * Losses are safe where their formula is not: an importance ratio that overflows gives no NaN on
//!   a token that clipping or a zero advantage takes out of the loss. Where the objective really is
//!   unbounded the result is infinite, and stays so.
//!
//! * What is masked takes no part, in value and gradient, whatever stands there: NaN, infinities,
//!   numbers that overflow. A token is masked by a weight of 0, an advantage of 0, a target of 0.
//!   NaN elsewhere makes the loss NaN.
//!
//! # Which loss
//!
//! | to do | use |
//! |---|---|
//! | imitate | [`cross_entropy`], [`mean_cross_entropy`], [`token_mean_cross_entropy`] |
//! | reinforce, the trainer's built-in forms | [`importance_sampling`], [`ppo`], [`cispo`], [`dro`], [`gspo`] |
//! | reinforce, the published methods | [`grpo`] (also DAPO and GSPO-token), [`sapo`], [`dppo`], [`reinforce_kl`] |
//! | reinforce, as services' recipes do | [`recipes`] |
//! | predict returns | [`value_loss`] |
//! | prefer one answer to another | [`dpo`], [`ipo`], [`hinge`], [`simpo`], [`orpo`], [`bradley_terry`] |
//! | learn from thumbs up and down | [`kto`] |
//! | distill a teacher | [`target_cross_entropy`], [`target_forward_kl`], [`target_reverse_kl`], [`reverse_kl_topk`] |
//! | decide between K answers | [`brier`], [`choice_cross_entropy`] |
//! | pick one of many candidates | [`info_nce`] |
//! | keep a policy near another | [`kl_k1`], [`kl_k2`], [`kl_k3`], [`kl_penalty`] |
//! | hold it back in other ways | [`regularize`] |
//!
//! Rewards become advantages in [`advantages`].

mod aggregate;
mod choice;
mod clip;
mod config;
mod contrast;
mod distill;
mod inputs;
mod kl;
mod masked;
mod policy;
mod preference;
mod sequence;
mod supervised;
mod variance;

pub mod advantages;
pub mod recipes;
pub mod regularize;

pub use aggregate::{Aggregation, Reduction, aggregate};
pub use choice::{ChoiceMetrics, brier, choice_cross_entropy, choice_logprobs, choice_metrics};
pub use clip::Clip;
pub use contrast::{InfoNceConfig, info_nce};
pub use distill::{
    TopkMetrics, reverse_kl_topk, reverse_kl_topk_metrics, target_cross_entropy, target_forward_kl,
    target_reverse_kl,
};
pub use kl::{KlEstimator, kl_abs, kl_k1, kl_k2, kl_k3, kl_penalty, sample_entropy};
pub use policy::{
    CispoConfig, Divergence, DppoConfig, DroConfig, GrpoConfig, GspoConfig,
    ImportanceSamplingConfig, PpoConfig, RatioLevel, SapoConfig, ValueConfig, cispo, clipped, dppo,
    dro, grpo, gspo, importance_sampling, ppo, reinforce_kl, sapo, value_loss,
};
pub use preference::{
    BradleyTerryConfig, DpoConfig, HingeConfig, IpoConfig, KtoConfig, OrpoConfig,
    PreferenceMetrics, SimpoConfig, bradley_terry, dpo, hinge, ipo, kto, kto_kl, orpo,
    orpo_log_odds_ratio, preference_metrics, simpo,
};
pub use sequence::{implicit_reward, mean_logprob, sequence_logprob};
pub use supervised::{
    cross_entropy, mean_cross_entropy, mean_nll, perplexity, token_mean_cross_entropy,
};
pub use variance::variance;

/// Records the body, attributing its ops to the line that called the loss.
macro_rules! at_caller {
    ($($body:tt)*) => {
        tinsmith_grad::located(std::panic::Location::caller(), || { $($body)* })
    };
}
pub(crate) use at_caller;
