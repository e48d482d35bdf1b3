//! The helpers file: pure functions, no gradients.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};
use tinsmith_client::{LrSchedule, combine_outputs};
use tinsmith_grad::{DType, Device, Ragged, Var};
use tinsmith_losses::recipes::{self, Rollout};
use tinsmith_losses::*;
use tinsmith_wire::{
    Datum, ForwardBackwardOutput, GradAccumulationNormalization, ModelInput, ShiftConfig,
    TensorData, WeightReduction,
};

use super::{Params, policy};
use crate::vectors::number::Number;
use crate::vectors::{compare, wire};

/// Runs one case of the helpers file and compares; the error tells what differed.
pub fn helper(case: &Value) -> Result<()> {
    let case = &Params::new(case.as_object().context("not an object")?);
    case.ignore(&["id", "note", "tags"]);
    run(case)?;
    case.finish()
}

fn run(case: &Params) -> Result<()> {
    match case.required::<String>("helper")?.as_str() {
        "group_advantages" => {
            let rewards: Vec<f64> = case.required("rewards")?;
            let config = advantages::NormalizeConfig::default()
                .floor(false)
                .eps(case.required::<f64>("eps")?);
            let config = config.correction(case.required::<f64>("std_correction")?);
            same(case, "centered", &advantages::centered(&rewards))?;
            same(case, "normalized", &advantages::normalized(&rewards, &config))
        }
        "group_advantages_floor" => {
            let config = advantages::NormalizeConfig::default().eps(case.required::<f64>("eps")?);
            same(
                case,
                "normalized",
                &advantages::normalized(&case.required::<Vec<f64>>("rewards")?, &config),
            )
        }
        "lr_multiplier" => {
            let schedules = [
                ("constant", LrSchedule::Constant),
                ("linear", LrSchedule::Linear),
                ("cosine", LrSchedule::Cosine),
            ];
            let schedule = case.choice("schedule", &schedules, LrSchedule::Linear)?;
            same(
                case,
                "out",
                &[schedule.multiplier(case.required("step")?, case.required("total_steps")?)],
            )
        }
        "discounted_future_sum" => {
            let x: Vec<f64> = case.required("x")?;
            same(case, "out", &advantages::discounted_future_sum(&x, case.required("gamma")?))
        }
        "kl_penalty_advantages" => kl_penalty_advantages(case),
        "kl_sample_train" => {
            let [sampled, trained, mask] =
                ragged(case, ["sampling_logprobs", "training_logprobs", "mask"])?;
            let kl = |estimator| {
                kl_penalty(&sampled, &trained, &mask, estimator, Aggregation::TokenMean).item()
            };
            same(case, "kl_sample_train_v1", &[kl(KlEstimator::K1)?])?;
            same(case, "kl_sample_train_v2", &[kl(KlEstimator::K2)?])?;
            same(case, "entropy", &[sample_entropy(&sampled, &mask).item()?])
        }
        "tis_weight" => tis_weight(case),
        "grad_accumulation_normalization" => grad_normalization(case),
        "mean_nll" => {
            let [lp, weights] = ragged(case, ["logprobs", "weights"])?;
            same(case, "out", &[mean_nll(&lp, &weights).item()?])
        }
        "surrogate_weights" => {
            let [grads] = ragged(case, ["grads"])?;
            let x = Var::zeros(grads.values().shape(), DType::F64, &Device::Cpu);
            let x = Ragged::new(x, grads.lengths());
            // A server that is sent the weights -g in a linear loss has the gradient g.
            let sent = (&grads * -1.0).values().to_vec::<f64>()?;
            let surrogate = cross_entropy(&x, &-&grads).backward(&[x.values()])?;
            ensure!(
                surrogate[0].to_vec1::<f64>()? == grads.values().to_vec::<f64>()?,
                "the surrogate's gradient differs"
            );
            same(case, "weights", &sent)
        }
        "datum_from_model_input_weights" => datum_builder(case),
        "csr" => csr(case),
        "combine_chunk_metrics" => chunk_metrics(case),
        other => bail!("no helper is known as `{other}`"),
    }
}

fn kl_penalty_advantages(case: &Params) -> Result<()> {
    let names = ["advantages", "sampled_logprobs", "base_logprobs", "mask"];
    let [given, sampled, base, mask] = ragged(case, names)?;
    let shape = if case.flag_or("centered", false)? {
        advantages::kl_penalized
    } else {
        advantages::distilled
    };
    let shaped = shape(&given, &sampled, &base, &mask, case.required("coef")?);
    same(case, "out", &shaped.values().to_vec::<f64>()?)?;
    let kl = kl_penalty(&sampled, &base, &mask, KlEstimator::K1, Aggregation::TokenMean);
    same(case, "kl_policy_base", &[kl.item()?])
}

fn tis_weight(case: &Params) -> Result<()> {
    let row = |name| {
        Ok::<_, anyhow::Error>(Ragged::from_vecs(&[case.required::<Vec<f64>>(name)?], &Device::Cpu))
    };
    let rollout = Rollout::new(&row("old_logprobs")?, &Var::ones(&[1], DType::F64, &Device::Cpu));
    let tis = policy::tis(case, ["cap", "level", "log_clamp"])?;
    let weight = recipes::tis_weight(&rollout.sampled(&row("rollout_logprobs")?).tis(tis));
    same(case, "out", &weight.values().to_vec::<f64>()?)
}

fn grad_normalization(case: &Params) -> Result<()> {
    let mode = case
        .get::<GradAccumulationNormalization>("mode")?
        .unwrap_or(GradAccumulationNormalization::None);
    let batches: Vec<Vec<Vec<f32>>> = case.required("micro_batches")?;
    let sequences = || batches.iter().flatten().map(Vec::as_slice);
    same(case, "count", &[mode.count(sequences()) as f64])?;
    let factor = mode.factor(sequences());
    same(case, "out", &sequences().flatten().map(|&g| f64::from(g) * factor).collect::<Vec<_>>())
}

fn datum_builder(case: &Params) -> Result<()> {
    let tokens: Vec<u32> = case.required("tokens")?;
    let reductions = [("none", WeightReduction::None), ("mean", WeightReduction::Mean)];
    let config = ShiftConfig {
        max_length: case.get("max_length")?,
        reduction: case.choice("reduction", &reductions, WeightReduction::None)?,
    };
    let weights: Vec<f32> = case.required("weights")?;
    let input = ModelInput::from_tokens(tokens);
    let built = Datum::from_input_and_weights(&input, &weights, &config);
    if let Some(words) = case.get::<String>("error")? {
        let found = built.map_or_else(|error| error.to_string(), |datum| format!("{datum:?}"));
        ensure!(found.contains(&words), "got {found}, want {words}");
        return Ok(());
    }
    let (datum, want) = (built?, case.required::<Map<String, Value>>("out")?);
    let want = Params::new(&want);
    let inputs: Vec<u32> = want.required("model_input")?;
    ensure!(datum.model_input.tokens() == Some(inputs), "model_input: {:?}", datum.model_input);
    let targets: Vec<i64> = want.required("target_tokens")?;
    ensure!(
        datum.input("target_tokens") == Some(&targets.into()),
        "target_tokens: {:?}",
        datum.input("target_tokens")
    );
    let weights = datum.input("weights").and_then(TensorData::as_f32).context("no weights")?;
    let weights: Vec<f64> = weights.iter().map(|&x| f64::from(x)).collect();
    compare::values("weights", &weights, &want.required::<Vec<Number>>("weights")?, 1e-6)
}

fn csr(case: &Params) -> Result<()> {
    let dense = TensorData::from_rows(&case.required::<Vec<Vec<f32>>>("dense")?)?;
    let smaller = dense.clone().into_smaller();
    let Some(want) = case.get::<Map<String, Value>>("sparse")? else {
        ensure!(smaller == dense, "it is to stay dense, got {smaller:?}");
        return Ok(());
    };
    let want = Params::new(&want);
    let indices = |name| want.required::<Vec<i64>>(name);
    let want = TensorData::csr(
        want.required::<Vec<f32>>("data")?,
        indices("sparse_crow_indices")?,
        indices("sparse_col_indices")?,
        want.required("shape")?,
    )?;
    ensure!(smaller == want, "got {smaller:?}, want {want:?}");
    ensure!(smaller.to_dense()? == dense, "made dense again it is {:?}", smaller.to_dense()?);
    Ok(())
}

fn chunk_metrics(case: &Params) -> Result<()> {
    let counts: Vec<usize> = case.required("outputs_per_chunk")?;
    let metrics: Vec<BTreeMap<String, Number>> = case.required("metrics")?;
    ensure!(counts.len() == metrics.len(), "{} counts for {} parts", counts.len(), metrics.len());
    let parts = counts.iter().zip(&metrics).map(|(&n, metrics)| ForwardBackwardOutput {
        loss_fn_outputs: vec![BTreeMap::new(); n],
        metrics: metrics.iter().map(|(name, x)| (name.clone(), x.0)).collect(),
        ..Default::default()
    });
    let combined = combine_outputs(parts.collect());
    wire::same_metrics(&combined.metrics, &case.required("out")?)
}

fn ragged<const N: usize>(case: &Params, names: [&str; N]) -> Result<[Ragged; N]> {
    let read = |name| Ok(Ragged::from_vecs(&case.required::<Vec<Vec<f64>>>(name)?, &Device::Cpu));
    let all = names.into_iter().map(read).collect::<Result<Vec<_>>>()?;
    Ok(all.try_into().expect("one for each name"))
}

/// Compares with the numbers of field `name`, however nested.
fn same(case: &Params, name: &str, got: &[f64]) -> Result<()> {
    fn flatten(value: &Value, into: &mut Vec<Number>) -> Result<()> {
        match value {
            Value::Array(values) => values.iter().try_for_each(|value| flatten(value, into)),
            value => {
                into.push(Number::deserialize(value)?);
                Ok(())
            }
        }
    }
    let mut want = Vec::new();
    flatten(&case.required(name)?, &mut want)?;
    compare::values(name, got, &want, 1e-11)
}
