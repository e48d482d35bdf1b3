//! The same losses on candle's own `Var` and `backward`.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};

use crate::batch::Batch;
use crate::check::Outcome;
use crate::{CLIP, DPO_BETA, Form, KL_BETA, Loss};

/// A leaf for the whole batch, and one for each sequence: differentiating slices of one leaf would
/// cost candle a gradient of the whole batch for each slice.
pub struct Leaves {
    whole: Whole,
    seqs: Vec<Seq>,
}

/// One value per token, all sequences one after another.
struct Whole {
    logprobs: Var,
    old: Tensor,
    reference: Tensor,
    weights: Tensor,
    /// Of the sequence that a token belongs to.
    advantages: Tensor,
    /// The index of that sequence.
    segments: Tensor,
    /// Zeros, `[sequences]`.
    zeros: Tensor,
    /// The indices of the sequences that are chosen, and of those rejected.
    pairs: [Tensor; 2],
}

struct Seq {
    logprobs: Var,
    old: Tensor,
    reference: Tensor,
    weights: Tensor,
    advantage: f64,
}

/// A loss and what its backward pass left.
pub type Found = (Tensor, GradStore);

impl Leaves {
    pub fn new(batch: &Batch) -> Result<Leaves> {
        let of_seqs = batch.seqs(&batch.logprobs).zip(batch.seqs(&batch.old));
        let of_seqs = of_seqs.zip(batch.seqs(&batch.reference)).zip(batch.seqs(&batch.weights));
        let seqs = of_seqs.zip(&batch.advantages).map(|((((lp, old), reference), weights), &a)| {
            Ok(Seq {
                logprobs: Var::from_tensor(&tensor(lp)?)?,
                old: tensor(old)?,
                reference: tensor(reference)?,
                weights: tensor(weights)?,
                advantage: a.into(),
            })
        });
        Ok(Leaves { seqs: seqs.collect::<Result<_>>()?, whole: Whole::new(batch)? })
    }

    /// What is timed.
    pub fn step(&self, loss: Loss, form: Form) -> Result<Found> {
        let loss = match form {
            Form::Ragged => self.whole.loss(loss)?,
            Form::Loop => by_sequence(loss, &self.seqs)?,
        };
        let gradients = loss.backward()?;
        Ok((loss, gradients))
    }

    pub fn outcome(&self, form: Form, (loss, gradients): &Found) -> Result<Outcome> {
        let leaves = match form {
            Form::Ragged => vec![&self.whole.logprobs],
            Form::Loop => self.seqs.iter().map(|seq| &seq.logprobs).collect(),
        };
        let mut gradient = Vec::new();
        for leaf in leaves {
            let found = gradients.get(leaf).expect("every loss reaches every token");
            gradient.extend(found.to_vec1::<f32>()?);
        }
        Ok(Outcome { loss: loss.to_scalar::<f32>()?.into(), gradient })
    }
}

impl Whole {
    fn new(batch: &Batch) -> Result<Whole> {
        let n = batch.lengths.len();
        let of_tokens = batch.lengths.iter().enumerate();
        let segments = of_tokens.flat_map(|(i, &length)| std::iter::repeat_n(i as u32, length));
        let segments = Tensor::from_iter(segments, &Device::Cpu)?;
        let every_other = |first| Tensor::from_iter((first..n as u32).step_by(2), &Device::Cpu);
        Ok(Whole {
            logprobs: Var::from_tensor(&tensor(&batch.logprobs)?)?,
            old: tensor(&batch.old)?,
            reference: tensor(&batch.reference)?,
            weights: tensor(&batch.weights)?,
            advantages: tensor(&batch.advantages)?.index_select(&segments, 0)?,
            segments,
            zeros: Tensor::zeros(n, DType::F32, &Device::Cpu)?,
            pairs: [every_other(0)?, every_other(1)?],
        })
    }

    fn loss(&self, loss: Loss) -> Result<Tensor> {
        let Whole { logprobs: lp, old, reference, weights, advantages, .. } = self;
        match loss {
            Loss::CrossEntropy => dot(lp, weights)?.neg(),
            Loss::Grpo => {
                let reward = dot(&(advantages * lp.as_tensor())?, weights)?;
                let kl = dot(&lp.sub(reference)?, weights)?;
                ((kl * KL_BETA)? - reward)? / self.zeros.elem_count() as f64
            }
            Loss::Ppo => {
                let ratio = lp.sub(old)?.exp()?;
                let clipped = (ratio.clamp(CLIP.0, CLIP.1)? * advantages)?;
                dot(&(ratio * advantages)?.minimum(&clipped)?, weights)?.neg()
            }
            Loss::Dpo => {
                let log_ratio = lp.sub(reference)?.mul(weights)?;
                let rewards = self.zeros.index_add(&self.segments, &log_ratio, 0)?;
                let [chosen, rejected] = &self.pairs;
                let margins =
                    (rewards.index_select(chosen, 0)? - rewards.index_select(rejected, 0)?)?;
                minus_log_sigmoid(&(margins * DPO_BETA)?)?.mean_all()
            }
            Loss::Variance => variance(lp),
        }
    }
}

fn by_sequence(loss: Loss, seqs: &[Seq]) -> Result<Tensor> {
    let n = seqs.len() as f64;
    let mut total = Tensor::zeros((), DType::F32, &Device::Cpu)?;
    match loss {
        Loss::CrossEntropy => {
            for seq in seqs {
                total = (total - dot(&seq.logprobs, &seq.weights)?)?;
            }
            Ok(total)
        }
        Loss::Grpo => {
            for Seq { logprobs: lp, reference, weights, advantage, .. } in seqs {
                let kl = dot(&lp.sub(reference)?, weights)?;
                total = ((total - (dot(lp, weights)? * *advantage)?)? + (kl * KL_BETA)?)?;
            }
            total / n
        }
        Loss::Ppo => {
            for Seq { logprobs: lp, old, weights, advantage, .. } in seqs {
                let ratio = lp.sub(old)?.exp()?;
                let clipped = (ratio.clamp(CLIP.0, CLIP.1)? * *advantage)?;
                total = (total - dot(&(ratio * *advantage)?.minimum(&clipped)?, weights)?)?;
            }
            Ok(total)
        }
        Loss::Dpo => {
            let reward =
                |seq: &Seq| dot(&seq.logprobs, &seq.weights)? - dot(&seq.reference, &seq.weights)?;
            let pairs = seqs.chunks_exact(2);
            let losses = pairs.map(|pair| {
                minus_log_sigmoid(&((reward(&pair[0])? - reward(&pair[1])?)? * DPO_BETA)?)
            });
            Tensor::stack(&losses.collect::<Result<Vec<_>>>()?, 0)?.mean_all()
        }
        Loss::Variance => {
            let lps: Vec<&Tensor> = seqs.iter().map(|seq| seq.logprobs.as_tensor()).collect();
            variance(&Tensor::cat(&lps, 0)?)
        }
    }
}

fn tensor(values: &[f32]) -> Result<Tensor> {
    Tensor::from_slice(values, values.len(), &Device::Cpu)
}

fn dot(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.mul(b)?.sum_all()
}

/// `max(-z, 0) + ln(1 + e^-|z|)`
fn minus_log_sigmoid(z: &Tensor) -> Result<Tensor> {
    z.neg()?.relu()? + (z.abs()?.neg()?.exp()? + 1.0)?.log()?
}

fn variance(x: &Tensor) -> Result<Tensor> {
    x.broadcast_sub(&x.mean_all()?)?.sqr()?.sum_all()? / (x.elem_count() as f64 - 1.0)
}
