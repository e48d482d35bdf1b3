//! The losses on `tinsmith_grad`.

use tinsmith_grad::{Backward, Device, Ragged, Result, Values, Var};
use tinsmith_losses as losses;

use crate::batch::Batch;
use crate::{CLIP, DPO_BETA, Form, KL_BETA, Loss};

/// The inputs as a training step has them: the logprobs' vector taken over, constants made before
/// the loss.
pub struct Leaves {
    logprobs: Ragged,
    old: Ragged,
    reference: Ragged,
    weights: Ragged,
    token_advantages: Ragged,
    /// `[sequences]`
    advantages: Var,
    seqs: Vec<Constants>,
}

/// What a loop over sequences reads beside the logprobs.
struct Constants {
    old: Var,
    reference: Var,
    weights: Var,
    advantage: f64,
}

impl Leaves {
    pub fn new(batch: &Batch) -> Leaves {
        let var = |values: Vec<f32>| {
            let shape = [values.len()];
            Var::from_vec(values, &shape, &Device::Cpu)
        };
        let ragged = |values: &[f32]| Ragged::new(var(values.to_vec()), &batch.lengths);
        let (old, reference) = (ragged(&batch.old), ragged(&batch.reference));
        let weights = ragged(&batch.weights);
        let of_seqs = old.seqs().into_iter().zip(reference.seqs()).zip(weights.seqs());
        let seqs =
            of_seqs.zip(&batch.advantages).map(|(((old, reference), weights), &advantage)| {
                Constants { old, reference, weights, advantage: advantage.into() }
            });
        Leaves {
            logprobs: ragged(&batch.logprobs),
            seqs: seqs.collect(),
            old,
            reference,
            weights,
            token_advantages: ragged(&batch.token_advantages()),
            advantages: var(batch.advantages.clone()),
        }
    }

    /// What is timed: records the loss, differentiates it and evaluates both.
    pub fn step(&self, loss: Loss, form: Form, gradient: &mut [f32]) -> Result<Values> {
        let loss = match form {
            Form::Ragged => self.ragged(loss),
            Form::Loop => self.by_sequence(loss),
        };
        Backward::new(&loss).run_into(&[self.logprobs.values()], &mut [gradient])
    }

    fn ragged(&self, loss: Loss) -> Var {
        let Leaves { logprobs: lp, old, reference, weights, .. } = self;
        match loss {
            Loss::CrossEntropy => losses::cross_entropy(lp, weights),
            Loss::Grpo => losses::reinforce_kl(lp, reference, &self.advantages, weights, KL_BETA),
            Loss::Ppo => losses::ppo(lp, old, &self.token_advantages, &Default::default()),
            Loss::Dpo => losses::dpo(lp, reference, weights, &Default::default()),
            Loss::Variance => losses::variance(lp, 1.0),
        }
    }

    fn by_sequence(&self, loss: Loss) -> Var {
        let lps = self.logprobs.seqs();
        let n = lps.len() as f64;
        let seqs = lps.iter().zip(&self.seqs);
        let mut total = Var::scalar(0.0);
        match loss {
            Loss::CrossEntropy => {
                for (lp, seq) in seqs {
                    total = total - lp.dot(&seq.weights);
                }
                total
            }
            Loss::Grpo => {
                for (lp, seq) in seqs {
                    let kl = (lp - &seq.reference).dot(&seq.weights);
                    total = total - lp.dot(&seq.weights) * seq.advantage + kl * KL_BETA;
                }
                total / n
            }
            Loss::Ppo => {
                let (low, high) = (CLIP.0.into(), CLIP.1.into());
                for (lp, seq) in seqs {
                    let ratio = (lp - &seq.old).exp();
                    let clipped = ratio.clamp(low, high) * seq.advantage;
                    total = total - ((ratio * seq.advantage).minimum(clipped) * &seq.weights).sum();
                }
                total
            }
            Loss::Dpo => {
                let reward = |(lp, seq): (&Var, &Constants)| {
                    lp.dot(&seq.weights) - seq.reference.dot(&seq.weights)
                };
                let rewards: Vec<Var> = seqs.map(reward).collect();
                let pairs = rewards.chunks_exact(2);
                let losses = pairs.map(|pair| -((&pair[0] - &pair[1]) * DPO_BETA).log_sigmoid());
                Var::stack(&losses.collect::<Vec<_>>(), 0).mean()
            }
            Loss::Variance => Var::cat(&lps, 0).var_dims(&[0], 1.0),
        }
    }
}
