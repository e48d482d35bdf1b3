//! Learning a teacher's distribution over K tokens per position: logprobs and targets are
//! `[tokens, K]` per sequence.

use tinsmith_grad::{Ragged, Var};

use crate::at_caller;
use crate::inputs::slots;
use crate::masked::{masked, only, or_one};

/// Cross-entropy to a target distribution, per position: `-Σ_k p·l`.
///
/// `lp` and `target` are `[tokens, K]`; the result is `[tokens]`, to be summed or averaged with
/// [`aggregate`](crate::aggregate). Gradient: `-p`. `target` is usually the teacher's probabilities
/// of its K likeliest tokens, normalized over them; its rows need not sum to 1. With the sum over
/// all positions this is the trainers' own cross entropy with K targets. Hinton et al., 2015
/// (arXiv:1503.02531); the top-k distillation of tinker-cookbook.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// let lp = Ragged::new(Var::from_vec(vec![-0.5, -1.0], &[1, 2], &Device::Cpu), &[1]);
/// let target = Ragged::new(Var::from_vec(vec![0.25, 0.75], &[1, 2], &Device::Cpu), &[1]);
/// assert_eq!(tinsmith_losses::target_cross_entropy(&lp, &target).sum().item()?, 0.875);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn target_cross_entropy(lp: &Ragged, target: &Ragged) -> Ragged {
    at_caller! {
        slots!("target_cross_entropy"; lp, target);
        over_targets(&-masked(lp, target))
    }
}

/// KL from a target distribution, per position: `Σ_k p·(ln p - l)`, the "forward" KL that covers
/// all of the teacher.
///
/// Shapes and gradient as in [`target_cross_entropy`]; it differs by the target's own entropy, a
/// constant, so that equal distributions give 0. A target of 0 contributes 0.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// let lp = Ragged::new(Var::from_vec(vec![-0.5, -9.0], &[1, 2], &Device::Cpu), &[1]);
/// let target = Ragged::new(Var::from_vec(vec![1.0, 0.0], &[1, 2], &Device::Cpu), &[1]);
/// assert_eq!(tinsmith_losses::target_forward_kl(&lp, &target).sum().item()?, 0.5);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn target_forward_kl(lp: &Ragged, target: &Ragged) -> Ragged {
    at_caller! {
        slots!("target_forward_kl"; lp, target);
        let log_target = target.ne(0.0).where_(target, 1.0).log();
        over_targets(&masked(&(log_target - lp), target))
    }
}

/// KL to a target distribution, per position: `Σ_k P·(ln P - ln p)` with `P = softmax(l)`, which
/// seeks the teacher's modes.
///
/// Shapes as in [`target_cross_entropy`]. P is normalized over the K targets, the target is taken
/// as given and must be positive. Gradient: `P_j (a_j - Σ_k P_k a_k)` with `a = ln P - ln p`.
/// On-policy distillation: Agarwal et al., 2023 (arXiv:2306.13649).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// let lp = Ragged::new(Var::from_vec(vec![-3.0, -3.0], &[1, 2], &Device::Cpu), &[1]);
/// let target = Ragged::new(Var::from_vec(vec![0.25, 0.25], &[1, 2], &Device::Cpu), &[1]);
/// let kl = tinsmith_losses::target_reverse_kl(&lp, &target).sum().item()?; // ln 0.5 - ln 0.25
/// assert!((kl - 2f64.ln()).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn target_reverse_kl(lp: &Ragged, target: &Ragged) -> Ragged {
    at_caller! {
        slots!("target_reverse_kl"; lp, target);
        let log_p = lp.map(|lp| lp.log_softmax(-1));
        let p = log_p.exp();
        over_targets(&(only(&p.ne(0.0), &(log_p - target.log())) * p))
    }
}

/// Reverse KL over the teacher's likeliest tokens, summed over positions: `Σ P·sg(ln P - ln w)`.
///
/// `lp` and `weights` are `[tokens, K]`; `weights` holds the teacher's probabilities, 0 in slots
/// that are not used. P is the softmax of `lp` over a position's used slots; a position without any
/// counts 0. Gradient: as [`target_reverse_kl`]'s, 0 in unused slots, whatever they hold. A custom
/// loss of tinker-cookbook; see [`reverse_kl_topk_metrics`].
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// let lp = Ragged::new(Var::from_vec(vec![-3.0, -3.0, -0.1], &[1, 3], &Device::Cpu), &[1]);
/// let weights = Ragged::new(Var::from_vec(vec![0.25, 0.25, 0.0], &[1, 3], &Device::Cpu), &[1]);
/// let loss = tinsmith_losses::reverse_kl_topk(&lp, &weights);
/// assert!((loss.item()? - 2f64.ln()).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn reverse_kl_topk(lp: &Ragged, weights: &Ragged) -> Var {
    at_caller! {
        slots!("reverse_kl_topk"; lp, weights);
        Topk::new(lp, weights).reverse_kl().sum()
    }
}

/// What [`reverse_kl_topk`] is watched by; each a scalar. Made by [`reverse_kl_topk_metrics`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopkMetrics {
    /// The number of positions with at least one used slot.
    pub positions: Var,
    /// The loss per such position.
    pub reverse_kl_mean: Var,
    /// The entropy of P per such position.
    pub student_entropy_mean: Var,
}

/// Positions, loss and student's entropy of [`reverse_kl_topk`], the latter two per position and 0
/// if there is none.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// let lp = Ragged::new(Var::from_vec(vec![-3.0, -3.0, -1.0, -1.0], &[2, 2], &Device::Cpu), &[2]);
/// let weights = Ragged::new(Var::from_vec(vec![0.5, 0.5, 0.0, 0.0], &[2, 2], &Device::Cpu), &[2]);
/// let metrics = tinsmith_losses::reverse_kl_topk_metrics(&lp, &weights);
/// assert_eq!(metrics.positions.item()?, 1.0);
/// assert!((metrics.student_entropy_mean.item()? - 2f64.ln()).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn reverse_kl_topk_metrics(lp: &Ragged, weights: &Ragged) -> TopkMetrics {
    at_caller! {
        slots!("reverse_kl_topk_metrics"; lp, weights);
        let topk = Topk::new(lp, weights);
        let used = topk.used.to_dtype(lp.values().dtype());
        let positions = used.map(|used| used.max_dims(&[-1])).sum();
        let entropy = -(&topk.p * &topk.log_p).sum();
        TopkMetrics {
            reverse_kl_mean: topk.reverse_kl().sum() / or_one(&positions),
            student_entropy_mean: entropy / or_one(&positions),
            positions,
        }
    }
}

/// The student's distribution over the used slots of each position; 0 in the others, its logarithm
/// too.
struct Topk<'a> {
    weights: &'a Ragged,
    used: Ragged,
    log_p: Ragged,
    p: Ragged,
}

impl<'a> Topk<'a> {
    #[track_caller]
    fn new(lp: &Ragged, weights: &'a Ragged) -> Topk<'a> {
        // Finite, so that a position without used slots gives a harmless softmax and not NaN.
        const EXCLUDED: f64 = -1e30;
        let used = weights.gt(0.0);
        let log_p = used.where_(lp, EXCLUDED).map(|lp| lp.log_softmax(-1));
        let p = only(&used, &log_p.exp());
        // A slot of probability 0 counts 0, though its logarithm is infinite.
        let log_p = only(&p.ne(0.0), &log_p);
        Topk { weights, used, log_p, p }
    }

    #[track_caller]
    fn reverse_kl(&self) -> Ragged {
        let log_weights = self.used.where_(self.weights, 1.0).log();
        &self.p * (&self.log_p - log_weights).detach()
    }
}

#[track_caller]
fn over_targets(x: &Ragged) -> Ragged {
    x.map(|x| x.sum_dims(&[-1]))
}
