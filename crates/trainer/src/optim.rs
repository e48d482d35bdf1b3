//! AdamW with decoupled weight decay and clipping by the global norm.
//!
//! Source: Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>, with PyTorch's order of
//! operations.

use candle_core::{Device, Tensor};
use tinsmith_wire::{AdamParams, Metrics};

use crate::{Error, Result};

/// Moments of every weight and the number of steps taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct AdamW {
    pub(crate) steps: u64,
    /// First and second moment of each weight, flat; empty before the first step.
    pub(crate) moments: Vec<[Vec<f32>; 2]>,
}

impl AdamW {
    /// The weights after one step along `grads`, and what is worth telling about it.
    pub(crate) fn step(
        &mut self,
        params: &[Tensor],
        grads: &[Tensor],
        adam: &AdamParams,
    ) -> Result<(Vec<Tensor>, Metrics)> {
        let grads = grads.iter().map(flat).collect::<Result<Vec<_>>>()?;
        let norm = grads.iter().flatten().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let clip = match adam.grad_clip_norm {
            limit if limit > 0.0 && norm > limit => limit / norm,
            _ => 1.0,
        };
        if self.moments.is_empty() {
            self.moments = grads.iter().map(|g| [vec![0.0; g.len()], vec![0.0; g.len()]]).collect();
        }
        self.steps += 1;
        let rule = Rule::new(adam, clip, self.steps);
        let updated = params
            .iter()
            .zip(&grads)
            .zip(&mut self.moments)
            .map(|((param, grad), [first, second])| {
                let mut weights = flat(param)?;
                for (((w, &g), m), v) in weights.iter_mut().zip(grad).zip(first).zip(second) {
                    rule.update(w, g, m, v);
                }
                Ok(Tensor::from_vec(weights, param.shape(), &Device::Cpu)?)
            })
            .collect::<Result<_>>()?;
        let metrics = [
            ("grad_norm", norm),
            ("grad_norm_post_clip", norm * clip),
            ("learning_rate", adam.learning_rate),
            ("step", self.steps as f64),
        ];
        Ok((updated, metrics.into_iter().collect()))
    }
}

/// Refuses settings that no step can be taken with.
pub(crate) fn check(adam: &AdamParams) -> Result<()> {
    let unbounded = 0.0..f64::INFINITY;
    let ranges = [
        ("adam_params.learning_rate", adam.learning_rate, unbounded.clone()),
        ("adam_params.beta1", adam.beta1, 0.0..1.0),
        ("adam_params.beta2", adam.beta2, 0.0..1.0),
        ("adam_params.eps", adam.eps, unbounded.clone()),
        ("adam_params.weight_decay", adam.weight_decay, unbounded.clone()),
        ("adam_params.grad_clip_norm", adam.grad_clip_norm, unbounded),
    ];
    match ranges.into_iter().find(|(_, value, range)| !range.contains(value)) {
        None => Ok(()),
        Some((field, value, range)) => {
            Err(Error::field(field, format!("{value} is not in [{}, {})", range.start, range.end)))
        }
    }
}

/// One step's constants.
struct Rule {
    clip: f32,
    decay: f32,
    beta1: f32,
    beta2: f32,
    step_size: f32,
    root_correction: f32,
    eps: f32,
}

impl Rule {
    fn new(adam: &AdamParams, clip: f64, step: u64) -> Self {
        let corrected = |beta: f64| 1.0 - beta.powf(step as f64);
        Self {
            clip: clip as f32,
            decay: (1.0 - adam.learning_rate * adam.weight_decay) as f32,
            beta1: adam.beta1 as f32,
            beta2: adam.beta2 as f32,
            step_size: (adam.learning_rate / corrected(adam.beta1)) as f32,
            root_correction: corrected(adam.beta2).sqrt() as f32,
            eps: adam.eps as f32,
        }
    }

    fn update(&self, w: &mut f32, g: f32, m: &mut f32, v: &mut f32) {
        let g = g * self.clip;
        *m = self.beta1 * *m + (1.0 - self.beta1) * g;
        *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
        let root = v.sqrt() / self.root_correction + self.eps;
        *w = *w * self.decay - self.step_size * *m / root;
    }
}

fn flat(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(data: &[f32]) -> Tensor {
        Tensor::new(data, &Device::Cpu).unwrap()
    }

    /// AdamW as its paper writes it, on one weight, in f64.
    fn by_the_paper(mut w: f64, grads: &[f64], adam: &AdamParams) -> f64 {
        let (mut m, mut v) = (0.0, 0.0);
        for (i, g) in grads.iter().enumerate() {
            let t = i as i32 + 1;
            w -= adam.learning_rate * adam.weight_decay * w;
            m = adam.beta1 * m + (1.0 - adam.beta1) * g;
            v = adam.beta2 * v + (1.0 - adam.beta2) * g * g;
            let (m_hat, v_hat) = (m / (1.0 - adam.beta1.powi(t)), v / (1.0 - adam.beta2.powi(t)));
            w -= adam.learning_rate * m_hat / (v_hat.sqrt() + adam.eps);
        }
        w
    }

    #[test]
    fn steps_follow_the_paper() {
        let adam = AdamParams::default().learning_rate(0.1).weight_decay(0.3).eps(1e-3);
        let mut state = AdamW::default();
        let mut params = vec![vector(&[0.5, -2.0])];
        for g in [[0.2, -0.1], [0.4, 0.3], [-0.1, 0.05]] {
            (params, _) = state.step(&params, &[vector(&g)], &adam).unwrap();
        }
        let got = flat(&params[0]).unwrap();
        let want = [
            by_the_paper(0.5, &[0.2, 0.4, -0.1], &adam),
            by_the_paper(-2.0, &[-0.1, 0.3, 0.05], &adam),
        ];
        for (got, want) in got.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-6, "{got} {want}");
        }
    }

    #[test]
    fn clipping_scales_all_gradients_by_the_global_norm() {
        // The norm of (3) and (4) is 5; clipped to 1 the gradients are 0.6 and 0.8. eps dwarfs
        // sqrt(v), so the step shows the gradient itself: lr * g / eps.
        let adam = AdamParams::default().learning_rate(1.0).eps(1e4).grad_clip_norm(1.0);
        let params = [vector(&[0.0]), vector(&[0.0])];
        let grads = [vector(&[3.0]), vector(&[4.0])];
        let (updated, metrics) = AdamW::default().step(&params, &grads, &adam).unwrap();
        assert_eq!(metrics["grad_norm"], 5.0);
        assert_eq!(metrics["grad_norm_post_clip"], 1.0);
        for (got, want) in updated.iter().zip([-0.6e-4, -0.8e-4]) {
            assert!((flat(got).unwrap()[0] - want).abs() < 1e-7);
        }
    }
}
