//! The small programs that the op files name but do not spell out. Each was inferred from its
//! values and gradients.

use anyhow::Result;
use tinsmith_grad::{Var, grad};

/// The programs of the composite and mask files; none if `name` is not among them.
pub fn composite(name: &str, args: &[Var]) -> Option<Result<Var>> {
    Some(Ok(match (name, args) {
        ("diamond", [x]) => (x.exp() + x.square()) * x.sum(),
        ("nll_from_logits", [logits]) => {
            let targets = Var::from_vec(vec![2i64, 0], &[2, 1], logits.device());
            -logits.log_softmax(-1).gather(&targets, 1).sum()
        }
        ("entropy_from_logits", [logits]) => {
            let log_p = logits.log_softmax(-1);
            -(log_p.exp() * &log_p).sum_dims(&[-1])
        }
        ("kl_from_logits", [p, q]) => {
            let (log_p, log_q) = (p.log_softmax(-1), q.log_softmax(-1));
            (log_p.exp() * (&log_p - log_q)).sum()
        }
        ("ppo_term", [logprobs, old, advantages]) => {
            let ratio = (logprobs - old).exp();
            -(&ratio * advantages).minimum(&(ratio.clamp(0.8, 1.2) * advantages)).sum()
        }
        ("layer", [x, weight, bias]) => (x.matmul(weight) + bias).tanh().mean(),
        ("normalise_rows", [x]) => x / x.square().sum_keepdim(&[-1]).sqrt(),
        ("reuse_many", [x]) => (1..=5)
            .fold(Var::zeros(x.shape(), x.dtype(), x.device()), |sum, k| sum + x * f64::from(k))
            .sum(),
        ("unused_input", [x, _]) => (x * 2.0).sum(),
        ("long_chain", [x]) => (0..64).fold(x.clone(), |y, _| y.tanh() * 1.03125).sum(),
        ("where_mask_nonfinite", [x]) => x.gt(0.0).select(x.log(), 0.0),
        _ => return None,
    }))
}

/// The gradient of a scalar function, itself to be differentiated; none if `name` is not known.
pub fn second_order(name: &str, x: &Var) -> Option<Result<Var>> {
    let y = match name {
        "sum_sq" => x.square().sum(),
        "sum_exp" => x.exp().sum(),
        "cubic" => x.powf(3.0).sum(),
        "lse" => x.logsumexp(0),
        "logsig" => x.sum().log_sigmoid(),
        "norm" => x.square().sum().sqrt(),
        "tanh_prod" => {
            let factors = x.tanh();
            (0..x.elem_count())
                .map(|i| factors.narrow(0, i, 1))
                .fold(one(x), |product, factor| product * factor)
                .sum()
        }
        _ => return None,
    };
    Some(grad(&y, &[x]).map(|mut grads| grads.remove(0)).map_err(Into::into))
}

fn one(x: &Var) -> Var {
    Var::ones(&[1], x.dtype(), x.device())
}
