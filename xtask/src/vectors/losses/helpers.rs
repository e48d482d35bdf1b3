//! The helpers file: pure functions, no gradients.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};
use tinsmith_grad::{DType, Device, Ragged, Var};
use tinsmith_losses::client::{self, Rollout, TisConfig, TisLevel};
use tinsmith_losses::*;

use super::{field, flag};
use crate::vectors::compare;
use crate::vectors::file::Number;

/// Runs one case of the helpers file and compares; the error tells what differed.
pub fn helper(case: &Value) -> Result<()> {
    let case = case.as_object().context("not an object")?;
    match field::<String>(case, "helper")?.as_str() {
        "group_advantages" => {
            let rewards: Vec<f64> = field(case, "rewards")?;
            let config = advantages::NormalizeConfig::default()
                .floor(false)
                .eps(field::<f64>(case, "eps")?);
            let config = config.correction(field::<f64>(case, "std_correction")?);
            same(case, "centered", &advantages::centered(&rewards))?;
            same(
                case,
                "normalized",
                &advantages::normalized(&rewards, &config),
            )
        }
        "group_advantages_floor" => {
            let config = advantages::NormalizeConfig::default().eps(field::<f64>(case, "eps")?);
            same(
                case,
                "normalized",
                &advantages::normalized(&field::<Vec<f64>>(case, "rewards")?, &config),
            )
        }
        "lr_multiplier" => {
            let schedule = match field::<String>(case, "schedule")?.as_str() {
                "constant" => LrSchedule::Constant,
                "linear" => LrSchedule::Linear,
                "cosine" => LrSchedule::Cosine,
                other => bail!("unknown schedule `{other}`"),
            };
            same(
                case,
                "out",
                &[schedule.multiplier(field(case, "step")?, field(case, "total_steps")?)],
            )
        }
        "discounted_future_sum" => {
            let x: Vec<f64> = field(case, "x")?;
            same(
                case,
                "out",
                &advantages::discounted_future_sum(&x, field(case, "gamma")?),
            )
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
        other => bail!("no helper is known as `{other}`"),
    }
}

fn kl_penalty_advantages(case: &Map<String, Value>) -> Result<()> {
    let names = ["advantages", "sampled_logprobs", "base_logprobs", "mask"];
    let [given, sampled, base, mask] = ragged(case, names)?;
    let shape = if flag(case, "centered") {
        advantages::kl_penalized
    } else {
        advantages::distilled
    };
    let shaped = shape(&given, &sampled, &base, &mask, field(case, "coef")?);
    same(case, "out", &shaped.values().to_vec::<f64>()?)?;
    let kl = kl_penalty(
        &sampled,
        &base,
        &mask,
        KlEstimator::K1,
        Aggregation::TokenMean,
    );
    same(case, "kl_policy_base", &[kl.item()?])
}

fn tis_weight(case: &Map<String, Value>) -> Result<()> {
    let row = |name| {
        Ok::<_, anyhow::Error>(Ragged::from_vecs(
            &[field::<Vec<f64>>(case, name)?],
            &Device::Cpu,
        ))
    };
    let rollout = Rollout::new(
        &row("old_logprobs")?,
        &Var::ones(&[1], DType::F64, &Device::Cpu),
    );
    let config = TisConfig::default()
        .cap(field::<f64>(case, "cap")?)
        .level(if field::<String>(case, "level")? == "sequence" {
            TisLevel::Sequence
        } else {
            TisLevel::Token
        })
        .icepop(field::<Option<f64>>(case, "icepop")?);
    let weight = client::tis_weight(&rollout.sampled(&row("rollout_logprobs")?), &config);
    same(case, "out", &weight.values().to_vec::<f64>()?)
}

fn grad_normalization(case: &Map<String, Value>) -> Result<()> {
    let mode = match field::<Option<String>>(case, "mode")?.as_deref() {
        None | Some("none") => GradNormalization::None,
        Some("num_loss_tokens") => GradNormalization::NumLossTokens,
        Some("num_sequences") => GradNormalization::NumSequences,
        Some(other) => bail!("unknown mode `{other}`"),
    };
    let batches: Vec<Vec<Vec<f32>>> = field(case, "micro_batches")?;
    let sequences = || batches.iter().flatten().map(Vec::as_slice);
    same(case, "count", &[mode.count(sequences()) as f64])?;
    let factor = mode.factor(sequences());
    same(
        case,
        "out",
        &sequences()
            .flatten()
            .map(|&g| f64::from(g) * factor)
            .collect::<Vec<_>>(),
    )
}

fn ragged<const N: usize>(case: &Map<String, Value>, names: [&str; N]) -> Result<[Ragged; N]> {
    let read = |name| {
        Ok(Ragged::from_vecs(
            &field::<Vec<Vec<f64>>>(case, name)?,
            &Device::Cpu,
        ))
    };
    let all = names.into_iter().map(read).collect::<Result<Vec<_>>>()?;
    Ok(all.try_into().expect("one for each name"))
}

/// Compares with the numbers of field `name`, however nested.
fn same(case: &Map<String, Value>, name: &str, got: &[f64]) -> Result<()> {
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
    flatten(
        case.get(name).with_context(|| format!("no `{name}`"))?,
        &mut want,
    )?;
    compare::values(name, got, &want, 1e-11)
}
