use tinsmith_grad::{Ragged, Var};

use super::pairs::score_beside;
use crate::aggregate::Reduction;
use crate::at_caller;
use crate::config::config;
use crate::inputs::{coefficients, per_seq, scalar};

config! {
    /// Options of [`kto`].
    pub struct KtoConfig {
        /// How much a unit of log ratio is worth.
        beta: f64 = 0.1,
        /// The weight of desirable sequences.
        desirable_weight: f64 = 1.0,
        /// The weight of undesirable sequences. Weights times counts of the two kinds should be
        /// within 1 to 4/3 of each other.
        undesirable_weight: f64 = 1.0,
        /// The mean or the sum over sequences.
        reduction: Reduction = Reduction::Mean,
    }
}

/// Kahneman-Tversky optimization: learns from single sequences that are marked desirable or not; no
/// pairs.
///
/// With `x = Σ w·(l - ref)` of a sequence: `λ_D (1 - σ(β (x - kl)))` if it is desirable, else
/// `λ_U (1 - σ(β (kl - x)))`; the mean over the N sequences. `lp`, `reference` and `weights` are
/// `[tokens]` per sequence; `desirable` is `[N]`, of any dtype, not 0 where desirable; `kl` is one
/// number, `[]`, of any float dtype, usually [`kto_kl`], and gets no gradient. Gradient on a
/// desirable sequence: `-λ_D β σ(z) σ(-z)·w/N`. Ethayarajh et al., 2024 (arXiv:2402.01306).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{KtoConfig, kto};
///
/// let lp = ragged(&[vec![-1.0], vec![-1.0]]);
/// let reference = ragged(&[vec![-1.0 - 3f64.ln()], vec![-1.0 - 3f64.ln()]]); // x = ln 3 for both
/// let weights = ragged(&[vec![1.0], vec![1.0]]);
/// let desirable = Var::from_vec(vec![1u8, 0], &[2], &Device::Cpu);
/// let config = KtoConfig::default().beta(1.0).undesirable_weight(0.5);
/// let loss = kto(&lp, &reference, &weights, &desirable, &Var::scalar(0.0), &config);
/// // σ(ln 3) = 3/4, σ(-ln 3) = 1/4: (1/4 + 0.5 · 3/4) / 2
/// assert!((loss.item()? - 0.3125).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn kto(
    lp: &Ragged,
    reference: &Ragged,
    weights: &Ragged,
    desirable: &Var,
    kl: &Var,
    config: &KtoConfig,
) -> Var {
    at_caller! {
        coefficients!("kto", lp; config.beta, config.desirable_weight, config.undesirable_weight);
        let score = score_beside("kto", lp, reference, weights, false);
        let kl = scalar("kto", "kl", kl).detach().to_dtype(score.dtype());
        let z = (score - kl) * config.beta;
        let desirable = per_seq("kto", "desirable", desirable, lp.num_seqs()).ne(0.0);
        let loss = desirable.select(
            (-&z).sigmoid() * config.desirable_weight,
            z.sigmoid() * config.undesirable_weight,
        );
        config.reduction.apply(&loss)
    }
}

/// KTO's estimate of the policy's KL to the reference, a scalar without gradient:
/// `max(0, mean of log ratios)`, 0 of none.
///
/// `log_ratios` `[n]` are those of mismatched sequences: prompts with the answers of other prompts.
///
/// ```
/// # use tinsmith_grad::{Device, Var};
/// let log_ratios = Var::from_vec(vec![0.5, 0.25], &[2], &Device::Cpu);
/// assert_eq!(tinsmith_losses::kto_kl(&log_ratios).item()?, 0.375);
/// assert_eq!(tinsmith_losses::kto_kl(&-log_ratios).item()?, 0.0);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn kto_kl(log_ratios: &Var) -> Var {
    at_caller! {
        let log_ratios = per_seq("kto_kl", "log_ratios", log_ratios, log_ratios.elem_count());
        Reduction::Mean.apply(&log_ratios).clamp_min(0.0).detach()
    }
}
