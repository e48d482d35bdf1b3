//! One pass of a batch through the model: logprobs, the loss, and its gradient.

use tinsmith_grad::{Backward, DType, Ragged, Tensor, Var, eval};
use tinsmith_wire::Pass;

use crate::batch::{Example, micro_batches};
use crate::loss::Loss;
use crate::model::{Adapter, Layout, Lora, Model, logprobs};
use crate::{Error, Result};

/// What a pass found.
#[derive(Debug)]
pub(crate) struct Found {
    /// The logprob of every target, flat, an entry for each example.
    pub(crate) logprobs: Vec<Vec<f32>>,
    /// The loss, summed over the batch.
    pub(crate) loss: f64,
    /// Its gradient for each weight of the adapter; empty without a backward pass.
    pub(crate) grads: Vec<Tensor>,
}

/// Runs `examples` through the model under `adapter`, differentiating when `pass` says so.
///
/// Micro-batches follow one another in a fixed order, so equal batches give bit-equal sums.
/// `keep_going` is asked before each.
pub(crate) fn run(
    model: &Model,
    adapter: &Adapter,
    examples: &[Example],
    loss: &Loss,
    pass: Pass,
    keep_going: impl Fn() -> Result<()>,
) -> Result<Found> {
    let mut found =
        Found { logprobs: vec![Vec::new(); examples.len()], loss: 0.0, grads: Vec::new() };
    let vars = adapter.vars();
    let wrt: Vec<&Var> = vars.iter().collect();
    for places in micro_batches(examples, model.config()) {
        keep_going()?;
        let batch: Vec<&Example> = places.iter().map(|&i| &examples[i]).collect();
        let (lp, value) = record(model, adapter.with_vars(&vars), &batch, loss);
        let lp = match pass {
            Pass::ForwardBackward => {
                let grads = Backward::new(&value).aux(&[lp.values()]).run(&wrt)?;
                found.loss += grads.value();
                let lp = grads.aux()[0].clone();
                found.grads = add(found.grads, grads.into_vec())?;
                lp
            }
            Pass::Forward => {
                let tensors = eval(&[lp.values(), &value])?;
                found.loss += tensors[1].to_dtype(DType::F64)?.to_scalar::<f64>()?;
                tensors[0].clone()
            }
        };
        let mut flat = lp.to_dtype(DType::F32)?.to_vec1::<f32>()?.into_iter();
        for (&place, example) in places.iter().zip(batch) {
            found.logprobs[place] = flat.by_ref().take(example.targets.len()).collect();
        }
    }
    match found.loss.is_finite() {
        true => Ok(found),
        false => Err(Error::field(
            "loss",
            format!(
                "the loss is {}; look for extreme weights, advantages or sampling logprobs",
                found.loss
            ),
        )),
    }
}

/// The graph of one micro-batch: the logprob of every target, and the loss.
fn record(model: &Model, lora: Lora, batch: &[&Example], loss: &Loss) -> (Ragged, Var) {
    let lengths: Vec<usize> = batch.iter().map(|e| e.tokens.len()).collect();
    let tokens: Vec<u32> = batch.iter().flat_map(|e| &e.tokens).copied().collect();
    let targets: Vec<u32> = batch.iter().flat_map(|e| &e.targets).copied().collect();
    let layout = Layout::whole(&lengths, model.config(), model.dtype());
    let hidden = model.hidden(lora, &tokens, &layout, None);
    let lp = logprobs(&model.logits(lora, &hidden), &targets).reshape(&[targets.len()]);

    // The losses work token by token, so the K targets of a token may stand in a row.
    let counts: Vec<usize> = batch.iter().map(|e| e.targets.len()).collect();
    let input = |i: usize| {
        let values: Vec<f32> = batch.iter().flat_map(|e| &e.inputs[i]).copied().collect();
        let values = Var::from_vec(values, &[targets.len()], lp.device()).to_dtype(model.dtype());
        Ragged::new(values, &counts)
    };
    let inputs: Vec<Ragged> = (0..loss.inputs().len()).map(input).collect();
    let lp = Ragged::new(lp, &counts);
    let value = loss.apply(&lp, &inputs);
    (lp, value)
}

/// Sums gradients; an empty list stands for zeros.
pub(crate) fn add(sums: Vec<Tensor>, more: Vec<Tensor>) -> Result<Vec<Tensor>> {
    match (sums.is_empty(), more.is_empty()) {
        (true, _) => Ok(more),
        (_, true) => Ok(sums),
        _ => sums.iter().zip(&more).map(|(a, b)| Ok((a + b)?)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::{tiny, trained_adapter};
    use tinsmith_grad::gradcheck;

    fn example(tokens: &[u32], targets: &[u32], weights: &[f32]) -> Example {
        let width = targets.len() / tokens.len();
        Example {
            tokens: tokens.to_vec(),
            targets: targets.to_vec(),
            shape: if width == 1 { vec![tokens.len()] } else { vec![tokens.len(), width] },
            inputs: vec![weights.to_vec()],
        }
    }

    fn batch() -> Vec<Example> {
        vec![
            example(&[1, 2, 3, 4, 5], &[2, 3, 4, 5, 6], &[0.5, -1.0, 2.0, 0.0, 1.0]),
            example(&[7, 8], &[8, 9], &[1.0, 0.25]),
            example(&[3, 1, 4], &[1, 4, 1], &[-0.5, 1.0, 1.0]),
            example(&[9, 10], &[1, 2, 3, 4, 5, 6], &[0.1, 0.2, 0.3, -0.4, 0.5, 0.6]),
        ]
    }

    #[test]
    fn the_gradient_of_the_whole_model_passes_gradcheck() {
        // One layer has every kind of op; the full Jacobian of three takes its time.
        let config = crate::model::ModelConfig { num_hidden_layers: 1, ..tiny() };
        let model = Model::random(config, 5, DType::F64).unwrap();
        let adapter = trained_adapter(model.config());
        let examples = batch();
        let examples: Vec<&Example> = examples[..3].iter().collect();
        let inputs: Vec<Var> =
            adapter.params().iter().map(|p| Var::new(p.to_dtype(DType::F64).unwrap())).collect();
        let loss = |vars: &[Var]| {
            record(&model, adapter.with_vars(vars), &examples, &Loss::CrossEntropy).1
        };
        gradcheck(loss, &inputs).unwrap();
    }

    fn flat(tensors: &[Tensor]) -> Vec<f32> {
        tensors.iter().flat_map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
    }

    #[test]
    fn a_batch_is_the_sum_of_its_examples() {
        let model = Model::random(tiny(), 5, DType::F32).unwrap();
        let adapter = trained_adapter(model.config());
        let run = |examples: &[Example], pass| {
            super::run(&model, &adapter, examples, &Loss::CrossEntropy, pass, || Ok(())).unwrap()
        };
        let whole = run(&batch(), Pass::ForwardBackward);
        let mut loss = 0.0;
        let mut grads = vec![0.0; flat(&whole.grads).len()];
        for (example, logprobs) in batch().iter().zip(&whole.logprobs) {
            let alone = run(std::slice::from_ref(example), Pass::ForwardBackward);
            loss += alone.loss;
            grads.iter_mut().zip(flat(&alone.grads)).for_each(|(sum, g)| *sum += g);
            for (a, b) in alone.logprobs[0].iter().zip(logprobs) {
                assert!((a - b).abs() < 1e-5);
            }
            let by_hand: f32 = example.inputs[0].iter().zip(logprobs).map(|(w, lp)| -w * lp).sum();
            assert!((f64::from(by_hand) - alone.loss).abs() < 1e-4);
        }
        assert!((whole.loss - loss).abs() < 1e-4);
        for (got, want) in flat(&whole.grads).iter().zip(grads) {
            assert!((got - want).abs() < 1e-3, "{got} {want}");
        }

        let forward = run(&batch(), Pass::Forward);
        assert_eq!((forward.logprobs, forward.loss), (whole.logprobs, whole.loss));
        assert!(forward.grads.is_empty());
    }

    #[test]
    fn an_infinite_loss_is_an_error() {
        let model = Model::random(tiny(), 5, DType::F32).unwrap();
        let adapter = trained_adapter(model.config());
        let extreme = example(&[1, 2], &[2, 3], &[f32::MAX, f32::MAX]);
        let error = super::run(
            &model,
            &adapter,
            &[extreme],
            &Loss::CrossEntropy,
            Pass::ForwardBackward,
            || Ok(()),
        )
        .unwrap_err();
        assert!(error.to_string().contains("the loss is inf"), "{error}");
    }
}
