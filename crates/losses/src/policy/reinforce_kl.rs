use tinsmith_grad::{Ragged, Var};

use crate::at_caller;
use crate::inputs::{coefficients, per_seq, tokens};
use crate::masked::{masked, only};

/// Policy gradient with a KL penalty, in one step of sampling:
/// `(1/N) Σ_i [-A_i Σ w·l + β Σ w·(l - ref)]`.
///
/// `lp`, `reference` and `weights` are `[tokens]` per sequence, `advantages` is `[n]`; there is no
/// ratio and no clipping, so it is right only for the first update after sampling. Gradient:
/// `w (β - A_i)/N`. A token of weight 0 takes no part, whatever its logprobs. The KL is
/// [`kl_k1`](crate::kl_k1), whose gradient is a constant push down on the sampled tokens and not a
/// pull towards the reference; [`grpo`](crate::grpo) has the better one. The GRPO example of
/// Fireworks' documentation, where β is 0.001.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-1.0, -0.5], vec![-2.0]]);
/// let reference = ragged(&[vec![-1.0, -1.5], vec![-2.0]]);
/// let weights = ragged(&[vec![0.0, 1.0], vec![1.0]]);
/// let advantages = Var::from_vec(vec![1.0, -0.5], &[2], &Device::Cpu);
/// let loss = tinsmith_losses::reinforce_kl(&lp, &reference, &advantages, &weights, 0.25);
/// assert_eq!(loss.item()?, -0.125); // (0.5 - 1 + 0.25 · (1 + 0)) / 2
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn reinforce_kl(
    lp: &Ragged,
    reference: &Ragged,
    advantages: &Var,
    weights: &Ragged,
    beta: f64,
) -> Var {
    at_caller! {
        coefficients!("reinforce_kl", lp; beta);
        tokens!("reinforce_kl"; lp, reference, weights);
        let n = lp.num_seqs();
        let advantages = lp.expand(&per_seq("reinforce_kl", "advantages", advantages, n));
        // The gradient of a masked token is 0 times its slope.
        let slope = only(&weights.ne(0.0), &(beta - advantages));
        masked(&(lp * slope - reference * beta), weights).sum() / n.max(1) as f64
    }
}
