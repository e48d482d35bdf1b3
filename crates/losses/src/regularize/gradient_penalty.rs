use tinsmith_grad::{Ragged, Var, grad};

use crate::at_caller;
use crate::inputs::coefficients;

/// Keeps the slope of a function of the logprobs near a target: `(‖∇f(x)‖ - target)²`, the norm
/// over all elements of x.
///
/// `f` is recorded once, at `x`: the logprobs themselves, or an interpolation such as
/// `&lp * 0.25 + &reference * 0.75`. `f` must depend on its argument. The penalty's own gradient
/// takes f's second derivatives, which the engine has. Gulrajani et al., 2017 (arXiv:1704.00028),
/// where the target is 1.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-3.0], vec![-4.0]]);
/// let penalty = tinsmith_losses::regularize::gradient_penalty(&lp, 1.0, |x| x.square().sum() * 0.5);
/// assert_eq!(penalty.item()?, 16.0); // the gradient is x, of norm 5
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn gradient_penalty(x: &Ragged, target_norm: f64, f: impl FnOnce(&Ragged) -> Var) -> Var {
    at_caller! {
        coefficients!("gradient_penalty", x; target_norm);
        match grad(&f(x), &[x.values()]) {
            Ok(slopes) => (slopes[0].norm() - target_norm).square(),
            Err(error) => Var::from(error),
        }
    }
}
