//! Losses on the decision between K answers, taken from the K target logprobs at a sequence's last
//! position.

use tinsmith_grad::{Ragged, Var};

use crate::aggregate::Reduction;
use crate::at_caller;
use crate::inputs::{alike, out_of_range, slots};

/// The log-probabilities of the K choices, `[n, K]`: the log-softmax of each sequence's last row of
/// `lp`, `[tokens, K]`.
///
/// The start of any loss on choices, such as [`brier`] and [`choice_cross_entropy`] below; rows
/// before the last have no gradient. From tinker-cookbook's decisions recipe.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// let lp = Var::from_vec(vec![-9.0, -9.0, 3f64.ln() - 5.0, -5.0], &[2, 2], &Device::Cpu);
/// let p = tinsmith_losses::choice_logprobs(&Ragged::new(lp, &[2])).exp().to_vec::<f64>()?;
/// assert!((p[0] - 0.75).abs() < 1e-12); // of the last row: 3 : 1
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn choice_logprobs(lp: &Ragged) -> Var {
    at_caller! {
        slots!("choice_logprobs"; lp);
        last_rows(lp).log_softmax(-1)
    }
}

/// Brier score of the choice: `Σ_k (P - t)²`, the mean over sequences, with P from
/// [`choice_logprobs`].
///
/// `target` is `[tokens, K]` as `lp`; its last row t is the distribution to match. Between 0 and 2,
/// and bounded where [`choice_cross_entropy`] is not. Gradient at the last row:
/// `2 P_j ((P - t)_j - Σ_k P_k (P - t)_k)/N`. Brier, 1950.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// let lp = Ragged::new(Var::from_vec(vec![-5.0, -5.0], &[1, 2], &Device::Cpu), &[1]);
/// let target = Ragged::new(Var::from_vec(vec![1.0, 0.0], &[1, 2], &Device::Cpu), &[1]);
/// assert_eq!(tinsmith_losses::brier(&lp, &target).item()?, 0.5); // (1/2)² twice
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn brier(lp: &Ragged, target: &Ragged) -> Var {
    at_caller! {
        alike!("brier"; lp, target);
        let error = choice_logprobs(lp).exp() - last_rows(target);
        Reduction::Mean.apply(&error.square().sum_dims(&[-1]))
    }
}

/// Cross-entropy of the choice: `-Σ_k t ln P`, the mean over sequences; arguments as in [`brier`].
///
/// Gradient at the last row, for a t that sums to 1: `(P - t)/N`.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// let lp = Ragged::new(Var::from_vec(vec![-5.0, -5.0], &[1, 2], &Device::Cpu), &[1]);
/// let target = Ragged::new(Var::from_vec(vec![1.0, 0.0], &[1, 2], &Device::Cpu), &[1]);
/// let loss = tinsmith_losses::choice_cross_entropy(&lp, &target).item()?;
/// assert!((loss - 2f64.ln()).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn choice_cross_entropy(lp: &Ragged, target: &Ragged) -> Var {
    at_caller! {
        alike!("choice_cross_entropy"; lp, target);
        let target = last_rows(target);
        // A choice of target 0 takes no part, its probability may be 0.
        let log_p = target.ne(0.0).select(choice_logprobs(lp), 0.0);
        Reduction::Mean.apply(&-(target * log_p).sum_dims(&[-1]))
    }
}

/// What a decision is watched by; each a scalar. Made by [`choice_metrics`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChoiceMetrics {
    /// The mean of `Σ_k t·P`, for a target with one right choice its probability.
    pub target_prob: Var,
    /// The share of sequences whose likeliest choice is the target's. Ties count as a hit.
    pub accuracy: Var,
}

/// The target's probability and the accuracy of the choice; arguments as in [`brier`].
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// let lp = Ragged::new(Var::from_vec(vec![-5.0, -9.0, -2.0, -1.0], &[2, 2], &Device::Cpu), &[1, 1]);
/// let target = Ragged::new(Var::from_vec(vec![1.0, 0.0, 1.0, 0.0], &[2, 2], &Device::Cpu), &[1, 1]);
/// assert_eq!(tinsmith_losses::choice_metrics(&lp, &target).accuracy.item()?, 0.5);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn choice_metrics(lp: &Ragged, target: &Ragged) -> ChoiceMetrics {
    at_caller! {
        alike!("choice_metrics"; lp, target);
        let (log_p, target) = (choice_logprobs(lp), last_rows(target));
        let likeliest = |x: &Var| x.eq(x.max_keepdim(&[-1])).to_dtype(log_p.dtype());
        let hits = (likeliest(&log_p) * likeliest(&target)).max_dims(&[-1]);
        ChoiceMetrics {
            target_prob: Reduction::Mean.apply(&(log_p.exp() * target).sum_dims(&[-1])),
            accuracy: Reduction::Mean.apply(&hits),
        }
    }
}

/// The last row of each sequence, `[n, K]`.
#[track_caller]
fn last_rows(x: &Ragged) -> Var {
    if let Some(seq) = x.lengths().iter().position(|&length| length == 0) {
        let why = format!("sequence {seq} is empty, so it has no last position to choose at");
        return out_of_range("choice", why).into();
    }
    let last: Vec<i64> = x.offsets()[1..].iter().map(|&end| end as i64 - 1).collect();
    let n = last.len();
    x.values().index_select(&Var::from_vec(last, &[n], x.values().device()), 0)
}
