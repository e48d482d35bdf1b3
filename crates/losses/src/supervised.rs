//! Imitation: the weighted negative log-likelihood and the ways to normalize it.

use tinsmith_grad::{DType, Ragged, Var};

use crate::at_caller;
use crate::inputs::alike;
use crate::masked::{masked, or_one, total, total_per_seq};

/// Weighted negative log-likelihood, summed: `-Σ w·l` over all tokens and sequences.
///
/// `weights` has the shape of `lp`, `[tokens]` or `[tokens, K]`; they may be fractional or
/// negative. Where the weight is 0 the logprob takes no part, whatever it is. Gradient: `-w`. As it
/// is linear, this is also the carrier of every custom loss: trained with `w = -∂loss/∂l` it takes
/// the very same step. The `cross_entropy` of Tinker, Fireworks and SkyRL.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-3.0, -0.5], vec![-2.0]]);
/// let weights = ragged(&[vec![0.0, 1.0], vec![0.5]]);
/// assert_eq!(tinsmith_losses::cross_entropy(&lp, &weights).item()?, 1.5); // 0.5 + 0.5 · 2
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn cross_entropy(lp: &Ragged, weights: &Ragged) -> Var {
    at_caller! {
        alike!("cross_entropy"; lp, weights);
        -masked(lp, weights).sum()
    }
}

/// Weighted negative log-likelihood per sequence: `-(1/N) Σ w·l` for N sequences, however long they
/// are.
///
/// Gradient: `-w/N`. The custom-loss example of Fireworks' documentation. It cuts logprobs and
/// weights of unequal length to the shorter of the two; here that is [`Ragged::truncate_to`], said
/// by the caller.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-3.0, -0.5], vec![-2.0]]);
/// let weights = ragged(&[vec![0.0, 1.0], vec![0.5]]);
/// assert_eq!(tinsmith_losses::mean_cross_entropy(&lp, &weights).item()?, 0.75); // 1.5 over 2 sequences
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn mean_cross_entropy(lp: &Ragged, weights: &Ragged) -> Var {
    at_caller! { cross_entropy(lp, weights) / lp.num_seqs().max(1) as f64 }
}

/// Weighted negative log-likelihood per unit of weight: `-Σ w·l / Σ w`, over sequences whose
/// weights sum to more than 0.
///
/// Gradient: `-w / Σ w`, and 0 in a sequence that is left out. If no sequence is left the loss
/// is 0. Its exponential is the [`perplexity`]. Fireworks' cookbook trains SFT with it.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-3.0, -0.5], vec![-2.0], vec![-9.0]]);
/// let weights = ragged(&[vec![0.0, 1.0], vec![0.5], vec![0.0]]);
/// let loss = tinsmith_losses::token_mean_cross_entropy(&lp, &weights);
/// assert_eq!(loss.item()?, 1.0); // 1.5 over a weight of 1.5
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn token_mean_cross_entropy(lp: &Ragged, weights: &Ragged) -> Var {
    at_caller! {
        alike!("token_mean_cross_entropy"; lp, weights);
        let flat = |x: &Ragged| x.map(|x| match x.rank() {
            0 | 1 => x.clone(),
            rank => x.sum_dims(&(1..rank as isize).collect::<Vec<_>>()),
        });
        let weight = total_per_seq(&flat(weights));
        let counts = weight.gt(0.0);
        let nll = counts.select(-flat(&masked(lp, weights)).sum_per_seq(), 0.0);
        nll.sum() / or_one(&counts.select(&weight, 0.0).sum())
    }
}

/// Weighted negative log-likelihood per unit of weight, as a figure to report: `-Σ w·l / Σ w`, NaN
/// if nothing counts.
///
/// Unlike [`token_mean_cross_entropy`] it leaves no sequence out and does not hide an empty batch.
/// `compute_mean_nll` of tinker-cookbook.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-3.0, -0.5], vec![-2.0]]);
/// let weights = ragged(&[vec![0.0, 1.0], vec![1.0]]);
/// assert_eq!(tinsmith_losses::mean_nll(&lp, &weights).item()?, 1.25);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn mean_nll(lp: &Ragged, weights: &Ragged) -> Var {
    at_caller! {
        let weight = total(weights);
        cross_entropy(lp, weights) / weight.eq(0.0).select(f64::NAN, weight)
    }
}

/// `e^nll` in f64: infinite where it overflows, as early as 709.8 nats.
///
/// ```
/// # use tinsmith_grad::Var;
/// let nll = Var::scalar(2f64.ln());
/// assert!((tinsmith_losses::perplexity(&nll).item()? - 2.0).abs() < 1e-15);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn perplexity(nll: &Var) -> Var {
    at_caller! { nll.to_dtype(DType::F64).exp() }
}
