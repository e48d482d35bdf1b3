//! Losses that prefer one sequence to another. Sequences come in pairs: chosen, rejected, chosen, rejected, ...
//!
//! `weights` is 1 on the tokens of the answer and 0 on those of the prompt. With `S = Σ w·l` of a sequence, `R` the same
//! of the reference, and h = (S - R) of the chosen minus (S - R) of the rejected sequence, the losses are functions of
//! `h`; P is the number of pairs. Their gradients on the rejected sequence have the opposite sign.

use tinsmith_grad::{Error, Ragged, Var, here};

use crate::aggregate::Reduction;
use crate::at_caller;
use crate::config::config;
use crate::sequence::{implicit_reward, mean_logprob, sequence_logprob};

config! {
    /// Options of [`dpo`].
    pub struct DpoConfig {
        /// How much a unit of log ratio is worth; small values let the policy go far from the reference.
        beta: f64 = 0.1,
        /// The share of labels that are taken to be wrong (conservative DPO), in `0.0..0.5`.
        label_smoothing: f64 = 0.0,
        /// The mean over pairs, or their sum for a batch that is sent in parts.
        reduction: Reduction = Reduction::Mean,
    }
}

config! {
    /// Options of [`ipo`].
    pub struct IpoConfig {
        /// The margin that is aimed at is `1/(2β)`.
        beta: f64 = 0.1,
        /// Whether `S` and `R` are means over tokens, so that the margin does not depend on length.
        length_average: bool = true,
        /// The mean or the sum over pairs.
        reduction: Reduction = Reduction::Mean,
    }
}

config! {
    /// Options of [`hinge`].
    pub struct HingeConfig {
        /// The margin that is enough is `1/β`.
        beta: f64 = 0.1,
        /// The mean or the sum over pairs.
        reduction: Reduction = Reduction::Mean,
    }
}

config! {
    /// Options of [`simpo`].
    pub struct SimpoConfig {
        /// How much a unit of mean logprob is worth.
        beta: f64 = 2.0,
        /// The margin that is aimed at, after scaling by `beta`.
        gamma: f64 = 0.5,
        /// The mean or the sum over pairs.
        reduction: Reduction = Reduction::Mean,
    }
}

config! {
    /// Options of [`bradley_terry`].
    pub struct BradleyTerryConfig {
        /// How much a unit of score is worth.
        beta: f64 = 1.0,
        /// Whether the score is the mean over tokens instead of the sum.
        length_average: bool = false,
        /// The mean or the sum over pairs.
        reduction: Reduction = Reduction::Mean,
    }
}

/// Direct preference optimisation: `-ln σ(β h)` per pair; with label smoothing e, `-(1-e) ln σ(β h) - e ln σ(-β h)`.
///
/// `lp`, `reference` and `weights` are `[tokens]` per sequence. Gradient on the chosen sequence: `-β σ(-β h)·w/P`.
/// Computed with a `log_sigmoid` that neither overflows nor underflows. Rafailov et al., 2023 (arXiv:2305.18290);
/// label smoothing: Mitchell, 2023. Watch it by [`preference_metrics`] of the [`implicit_reward`].
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{DpoConfig, dpo};
///
/// let lp = ragged(&[vec![-1.0, -0.5], vec![-3.0]]); // one pair: chosen, rejected
/// let reference = ragged(&[vec![-1.0, -1.5], vec![-2.0]]);
/// let weights = ragged(&[vec![0.0, 1.0], vec![1.0]]);
/// let loss = dpo(&lp, &reference, &weights, &DpoConfig::default().beta(3f64.ln() / 2.0));
/// // h = 1 - (-1) = 2, so σ(β h) = σ(ln 3) = 3/4
/// assert!((loss.item()? - (4.0f64 / 3.0).ln()).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn dpo(lp: &Ragged, reference: &Ragged, weights: &Ragged, config: &DpoConfig) -> Var {
    at_caller! {
        let z = margins(&implicit_reward(lp, reference, weights, config.beta));
        // (1-e) ln σ(z) + e ln σ(-z) = ln σ(z) - e z, as ln σ(-z) = ln σ(z) - z
        config.reduction.apply(&(&z * config.label_smoothing - z.log_sigmoid()))
    }
}

/// Identity preference optimisation: `(h - 1/(2β))²` per pair, which aims at a margin instead of at infinity.
///
/// Gradient on the chosen sequence: `2 (h - 1/(2β))·w/P`, over its length where lengths are averaged.
/// Azar et al., 2023 (arXiv:2310.12036).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{IpoConfig, ipo};
///
/// let lp = ragged(&[vec![-1.0, -0.5], vec![-3.0]]);
/// let reference = ragged(&[vec![-1.5, -1.0], vec![-2.0]]);
/// let weights = ragged(&[vec![1.0, 1.0], vec![1.0]]);
/// let loss = ipo(&lp, &reference, &weights, &IpoConfig::default().beta(0.5));
/// assert_eq!(loss.item()?, 0.25); // h = 0.5 - (-1) = 1.5, aimed at 1
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn ipo(lp: &Ragged, reference: &Ragged, weights: &Ragged, config: &IpoConfig) -> Var {
    at_caller! {
        let h = margins(&score(&(lp - reference), weights, config.length_average));
        config.reduction.apply(&(h - 0.5 / config.beta).square())
    }
}

/// Hinge loss on the margin: `max(0, 1 - β h)` per pair, which is content with a margin of `1/β`.
///
/// Gradient on the chosen sequence: `-β·w/P` where `β h < 1`, else 0. SLiC-HF, Zhao et al., 2023 (arXiv:2305.10425), with
/// a reference as DPO has it.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{HingeConfig, hinge};
///
/// let lp = ragged(&[vec![-0.5], vec![-3.0], vec![-1.0], vec![-1.0]]);
/// let reference = ragged(&[vec![-1.5], vec![-2.0], vec![-1.0], vec![-1.0]]);
/// let weights = ragged(&vec![vec![1.0]; 4]);
/// let loss = hinge(&lp, &reference, &weights, &HingeConfig::default().beta(0.25));
/// assert_eq!(loss.item()?, 0.75); // margins 2 and 0: (0.5 + 1) / 2
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn hinge(lp: &Ragged, reference: &Ragged, weights: &Ragged, config: &HingeConfig) -> Var {
    at_caller! {
        let z = margins(&implicit_reward(lp, reference, weights, config.beta));
        config.reduction.apply(&(1.0 - z).relu())
    }
}

/// Simple preference optimisation: `-ln σ(β (S_c/n_c - S_r/n_r) - γ)` per pair. It needs no reference.
///
/// n is the sum of a sequence's weights. Gradient on the chosen sequence: `-β σ(-z)·w/(n_c P)` with z the argument of σ.
/// Meng et al., 2024 (arXiv:2405.14734).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-1.0, -0.5], vec![-1.0]]);
/// let weights = ragged(&[vec![1.0, 1.0], vec![1.0]]);
/// // 2 · (-0.75 + 1) - 0.5 = 0, and σ(0) = 1/2
/// let loss = tinsmith_losses::simpo(&lp, &weights, &Default::default());
/// assert!((loss.item()? - 2f64.ln()).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn simpo(lp: &Ragged, weights: &Ragged, config: &SimpoConfig) -> Var {
    at_caller! {
        let z = margins(&mean_logprob(lp, weights)) * config.beta - config.gamma;
        config.reduction.apply(&-z.log_sigmoid())
    }
}

/// Bradley-Terry likelihood of the preferences: `-ln σ(β (S_c - S_r))` per pair, on the sequences' own logprobs.
///
/// Gradient on the chosen sequence: `-β σ(β (S_r - S_c))·w/P`. Bradley and Terry, 1952; the pairwise custom loss of
/// Fireworks' documentation.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-1.0, -0.5], vec![-1.5 - 3f64.ln()]]);
/// let weights = ragged(&[vec![1.0, 1.0], vec![1.0]]);
/// let loss = tinsmith_losses::bradley_terry(&lp, &weights, &Default::default());
/// assert!((loss.item()? - (4.0f64 / 3.0).ln()).abs() < 1e-12); // σ(ln 3) = 3/4
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn bradley_terry(lp: &Ragged, weights: &Ragged, config: &BradleyTerryConfig) -> Var {
    at_caller! {
        let z = margins(&score(lp, weights, config.length_average)) * config.beta;
        config.reduction.apply(&-z.log_sigmoid())
    }
}

/// What a preference run is watched by; each a scalar. Made by [`preference_metrics`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PreferenceMetrics {
    /// The share of pairs whose chosen sequence has the higher reward. A tie is a miss.
    pub accuracy: Var,
    /// The mean reward of the chosen minus that of the rejected sequences, in the unit of the rewards.
    pub margin: Var,
    /// The mean reward of the chosen sequences.
    pub chosen_reward: Var,
    /// The mean reward of the rejected sequences.
    pub rejected_reward: Var,
}

/// Accuracy, margin and means of interleaved rewards `[2P]`.
///
/// The rewards are [`implicit_reward`] for [`dpo`], [`ipo`] and [`hinge`]; `β` times [`mean_logprob`] for [`simpo`]; `β` times
/// [`sequence_logprob`] for [`bradley_terry`]. tinker-cookbook reports DPO's margin in that unit, β included; Fireworks'
/// cookbook without β.
///
/// ```
/// # use tinsmith_grad::{Device, Var};
/// let rewards = Var::from_vec(vec![2.0, 1.0, 0.5, 0.5], &[4], &Device::Cpu);
/// let metrics = tinsmith_losses::preference_metrics(&rewards);
/// assert_eq!(metrics.accuracy.item()?, 0.5);
/// assert_eq!(metrics.margin.item()?, 0.5);
/// assert_eq!(metrics.chosen_reward.item()?, 1.25);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn preference_metrics(rewards: &Var) -> PreferenceMetrics {
    at_caller! {
        let (chosen, rejected) = pairs(rewards);
        PreferenceMetrics {
            accuracy: chosen.gt(&rejected).to_dtype(rewards.dtype()).mean(),
            margin: (&chosen - &rejected).mean(),
            chosen_reward: chosen.mean(),
            rejected_reward: rejected.mean(),
        }
    }
}

/// Splits interleaved values `[2P]` into those of the chosen and of the rejected sequences, each `[P]`.
#[track_caller]
pub(crate) fn pairs(values: &Var) -> (Var, Var) {
    let n = values.elem_count();
    if values.error().is_none() && n % 2 == 1 {
        let why = format!(
            "{n} sequences do not make pairs; they come interleaved: chosen, rejected, chosen, ..."
        );
        let unpaired = Var::from(Error::Argument {
            op: "pairs",
            why,
            at: here(),
        });
        return (unpaired.clone(), unpaired);
    }
    (values.slice_step(0, 0, n, 2), values.slice_step(0, 1, n, 2))
}

/// Chosen minus rejected, `[P]`.
#[track_caller]
fn margins(values: &Var) -> Var {
    let (chosen, rejected) = pairs(values);
    chosen - rejected
}

#[track_caller]
fn score(lp: &Ragged, weights: &Ragged, length_average: bool) -> Var {
    match length_average {
        true => mean_logprob(lp, weights),
        false => sequence_logprob(lp, weights),
    }
}
