use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use tinsmith_grad::{Device, Ragged, Var, grad};
use tinsmith_losses::*;

use super::{Inputs, Recorded, field, flag, reduction};

pub(super) fn regularizer(params: &Map<String, Value>, inputs: &Inputs) -> Result<Var> {
    let lp = &inputs.lp;
    let reference = || inputs.ragged("reference_logprobs");
    let text = |name: &str| params.get(name).and_then(Value::as_str);
    let number = |name: &str| params.get(name).and_then(Value::as_f64);
    let (sum, mean) = (
        reduction(params, Reduction::Sum)?,
        reduction(params, Reduction::Mean)?,
    );
    let lambda = number("lambda").unwrap_or(1.0);
    Ok(match text("kind").context("no `kind`")? {
        "l1" => {
            let of_probs = text("target") == Some("probs");
            let target = if of_probs {
                MagnitudeTarget::Probs
            } else {
                MagnitudeTarget::Logprobs
            };
            l1_with(
                lp,
                &L1Config::default()
                    .lambda(lambda)
                    .target(target)
                    .reduction(sum),
            )
        }
        "l2" => {
            let center = match params.get("center") {
                None => Center::Zero,
                Some(Value::String(_)) => Center::Mean,
                Some(at) => Center::At(
                    at.as_f64()
                        .context("`center` is neither a number nor `mean`")?,
                ),
            };
            l2_with(
                lp,
                &L2Config::default()
                    .lambda(lambda)
                    .center(center)
                    .clip(number("clip"))
                    .reduction(sum),
            )
        }
        "elastic_net" => {
            let l1_ratio = number("l1_ratio").unwrap_or(0.5);
            elastic_net(
                lp,
                &ElasticNetConfig::default()
                    .lambda(lambda)
                    .l1_ratio(l1_ratio)
                    .reduction(sum),
            )
        }
        "entropy" => {
            let mode = if text("mode") == Some("maximize") {
                EntropyMode::Maximize
            } else {
                EntropyMode::Minimize
            };
            let config = EntropyConfig::default()
                .mode(mode)
                .normalize(flag(params, "normalize"));
            entropy(
                lp,
                &config.temperature(number("temperature")).reduction(mean),
            )
        }
        "kl_divergence" => {
            let direction = match text("direction") {
                _ if flag(params, "symmetric") => KlDirection::Symmetric,
                Some("reverse") => KlDirection::Reverse,
                _ => KlDirection::Forward,
            };
            kl_divergence(
                lp,
                &reference()?,
                &KlDivergenceConfig::default()
                    .direction(direction)
                    .reduction(mean),
            )
        }
        "consistency" => {
            let metric = match text("metric") {
                Some("l1") => ConsistencyMetric::L1,
                Some("cosine") => ConsistencyMetric::Cosine,
                Some("kl") => ConsistencyMetric::Kl,
                _ => ConsistencyMetric::Mse,
            };
            consistency(
                lp,
                &reference()?,
                &ConsistencyConfig::default().metric(metric).reduction(mean),
            )
        }
        "output_magnitude" => {
            let target = number("target").unwrap_or(1.0);
            output_magnitude(
                lp,
                &OutputMagnitudeConfig::default()
                    .target(target)
                    .reduction(mean),
            )
        }
        "orthogonality" => {
            let mode = match text("mode") {
                Some("hard") => GramMode::Hard,
                Some("spectral") => GramMode::Spectral,
                _ => GramMode::Soft,
            };
            let axis = if text("axis") == Some("vocabulary") {
                GramAxis::Vocabulary
            } else {
                GramAxis::Rows
            };
            let normalize = params
                .get("normalize")
                .and_then(Value::as_bool)
                .unwrap_or(true);
            orthogonality(
                lp,
                &OrthogonalityConfig::default()
                    .mode(mode)
                    .axis(axis)
                    .normalize(normalize),
            )
        }
        "gradient_penalty" => {
            let at = match number("epsilon") {
                Some(epsilon) => lp * epsilon + reference()? * (1.0 - epsilon),
                None => lp.clone(),
            };
            let inner: fn(&Ragged) -> Var = match text("inner").context("no `inner`")? {
                "sum_sq" => |x| x.square().sum(),
                "sum_exp" => |x| x.exp().sum(),
                "cubic" => |x| x.powf(3.0).sum() / 3.0,
                other => bail!("unknown inner function `{other}`"),
            };
            gradient_penalty(&at, number("target_norm").unwrap_or(1.0), inner)
        }
        other => bail!("no regularizer is known as `{other}`"),
    })
}

pub(super) fn composite(inputs: &Inputs) -> Result<Recorded> {
    let weights = inputs.ragged("weights")?;
    let base = match inputs.text("base")? {
        "cross_entropy" => cross_entropy(&inputs.lp, &weights),
        "mean_ce" => mean_cross_entropy(&inputs.lp, &weights),
        other => bail!("unknown base loss `{other}`"),
    };
    let leaves: Vec<&Var> = inputs.leaves.iter().collect();
    let grad_norm = |loss: &Var| -> Result<Var> {
        let squares = grad(loss, &leaves)?
            .iter()
            .map(|g| g.square().sum())
            .reduce(|a, b| a + b);
        Ok(squares.context("no sequences")?.sqrt())
    };
    let mut metrics = vec![
        ("base_loss.value".into(), base.clone()),
        ("base_loss.grad_norm".into(), grad_norm(&base)?),
    ];
    let mut total = Var::zeros(&[], inputs.dtype, &Device::Cpu);
    for params in field::<Vec<Map<String, Value>>>(&inputs.case.params, "regularizers")? {
        let (name, weight): (String, f64) = (field(&params, "name")?, field(&params, "weight")?);
        let value = regularizer(&params, inputs)?;
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
