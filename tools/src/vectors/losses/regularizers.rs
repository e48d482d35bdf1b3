use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use tinsmith_grad::{Device, Ragged, Var, grad};
use tinsmith_losses::regularize::*;
use tinsmith_losses::{Reduction, cross_entropy, mean_cross_entropy};

use super::{Inputs, Params, Recorded, reduction};

pub(super) fn regularizer(params: &Params, inputs: &Inputs) -> Result<Var> {
    let lp = &inputs.lp;
    let reference = || inputs.ragged("reference_logprobs");
    let sum = || reduction(params, Reduction::Sum);
    let mean = || reduction(params, Reduction::Mean);
    let lambda = || params.number_or("lambda", 1.0);
    Ok(match params.required::<String>("kind")?.as_str() {
        "l1" => {
            let targets =
                [("probs", MagnitudeTarget::Probs), ("logprobs", MagnitudeTarget::Logprobs)];
            let target = params.choice("target", &targets, MagnitudeTarget::Logprobs)?;
            let config = L1Config::default().lambda(lambda()?).target(target);
            l1_with(lp, &config.reduction(sum()?))
        }
        "l2" => {
            let center = match params.get::<Value>("center")? {
                None => Center::Zero,
                Some(Value::String(mean)) if mean == "mean" => Center::Mean,
                Some(at) => {
                    Center::At(at.as_f64().context("`center` is neither a number nor `mean`")?)
                }
            };
            let config = L2Config::default().lambda(lambda()?).center(center);
            l2_with(lp, &config.clip(params.number("clip")?).reduction(sum()?))
        }
        "elastic_net" => {
            let l1_ratio = params.number_or("l1_ratio", 0.5)?;
            let config = ElasticNetConfig::default().lambda(lambda()?).l1_ratio(l1_ratio);
            elastic_net(lp, &config.reduction(sum()?))
        }
        "entropy" => {
            let modes = [("maximize", EntropyMode::Maximize), ("minimize", EntropyMode::Minimize)];
            let config = EntropyConfig::default()
                .mode(params.choice("mode", &modes, EntropyMode::Minimize)?)
                .normalize(params.flag_or("normalize", false)?)
                .temperature(params.number("temperature")?);
            entropy(lp, &config.reduction(mean()?))
        }
        "kl_divergence" => {
            let directions = [("forward", KlDirection::Forward), ("reverse", KlDirection::Reverse)];
            let direction = params.choice("direction", &directions, KlDirection::Forward)?;
            let direction = match params.flag_or("symmetric", false)? {
                true => KlDirection::Symmetric,
                false => direction,
            };
            let config = KlDivergenceConfig::default().direction(direction);
            kl_divergence(lp, &reference()?, &config.reduction(mean()?))
        }
        "consistency" => {
            let metrics = [
                ("mse", ConsistencyMetric::Mse),
                ("l1", ConsistencyMetric::L1),
                ("cosine", ConsistencyMetric::Cosine),
                ("kl", ConsistencyMetric::Kl),
            ];
            let metric = params.choice("metric", &metrics, ConsistencyMetric::Mse)?;
            let config = ConsistencyConfig::default().metric(metric);
            consistency(lp, &reference()?, &config.reduction(mean()?))
        }
        "output_magnitude" => {
            let target = params.number_or("target", 1.0)?;
            let config = OutputMagnitudeConfig::default().target(target);
            output_magnitude(lp, &config.reduction(mean()?))
        }
        "orthogonality" => {
            let modes = [
                ("soft", GramMode::Soft),
                ("hard", GramMode::Hard),
                ("spectral", GramMode::Spectral),
            ];
            let axes = [("rows", GramAxis::Rows), ("vocabulary", GramAxis::Vocabulary)];
            let config = OrthogonalityConfig::default()
                .mode(params.choice("mode", &modes, GramMode::Soft)?)
                .axis(params.choice("axis", &axes, GramAxis::Rows)?)
                .normalize(params.flag_or("normalize", true)?);
            orthogonality(lp, &config)
        }
        "gradient_penalty" => {
            // Where the slope is taken: `epsilon` says it as well.
            let modes = [("output", false), ("interpolated", true)];
            let epsilon = params.number("epsilon")?;
            let interpolated = params.choice("mode", &modes, epsilon.is_some())?;
            let at = match epsilon {
                Some(epsilon) if interpolated => lp * epsilon + reference()? * (1.0 - epsilon),
                None if !interpolated => lp.clone(),
                _ => bail!("`mode` and `epsilon` contradict each other"),
            };
            type Function = fn(&Ragged) -> Var;
            let functions: [(&str, Function); 3] = [
                ("sum_sq", |x| x.square().sum()),
                ("sum_exp", |x| x.exp().sum()),
                ("cubic", |x| x.powf(3.0).sum() / 3.0),
            ];
            let inner = params.choice("inner", &functions, functions[0].1)?;
            gradient_penalty(&at, params.number_or("target_norm", 1.0)?, inner)
        }
        other => bail!("no regularizer is known as `{other}`"),
    })
}

pub(super) fn composite(inputs: &Inputs) -> Result<Recorded> {
    let weights = inputs.ragged("weights")?;
    let base = match inputs.params.required::<String>("base")?.as_str() {
        "cross_entropy" => cross_entropy(&inputs.lp, &weights),
        "mean_ce" => mean_cross_entropy(&inputs.lp, &weights),
        other => bail!("unknown base loss `{other}`"),
    };
    let leaves: Vec<&Var> = inputs.leaves.iter().collect();
    let grad_norm = |loss: &Var| -> Result<Var> {
        let squares = grad(loss, &leaves)?.iter().map(|g| g.square().sum()).reduce(|a, b| a + b);
        Ok(squares.context("no sequences")?.sqrt())
    };
    let mut metrics = vec![
        ("base_loss.value".into(), base.clone()),
        ("base_loss.grad_norm".into(), grad_norm(&base)?),
    ];
    let mut total = Var::zeros(&[], inputs.dtype, &Device::Cpu);
    for params in inputs.params.required::<Vec<Map<String, Value>>>("regularizers")? {
        let params = Params::new(&params);
        let name: String = params.required("name")?;
        let weight: f64 = params.required("weight")?;
        let value = regularizer(&params, inputs)?;
        params.finish()?;
        let norm = grad_norm(&value)?;
        metrics.extend([
            (format!("{name}.value"), value.clone()),
            (format!("{name}.contribution"), &value * weight),
            (format!("{name}.grad_norm"), norm.clone()),
            (format!("{name}.grad_norm_weighted"), norm * weight),
        ]);
        total = total + value * weight;
    }
    let loss = base + &total;
    metrics.push(("regularizer_total".into(), total));
    metrics.push(("loss_total".into(), loss.clone()));
    metrics.push(("total_grad_norm".into(), grad_norm(&loss)?));
    Ok((loss, metrics))
}
