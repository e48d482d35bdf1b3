use anyhow::Result;
use tinsmith_grad::Var;
use tinsmith_losses::*;

use super::{Inputs, Recorded, with};

pub(super) fn preference(name: &str, inputs: &Inputs) -> Result<Recorded> {
    let (lp, params, weights) = (&inputs.lp, &inputs.params, inputs.ragged("weights")?);
    let smoothing = params.number_or("label_smoothing", 0.0)?;
    let default = match name {
        "orpo" => Reduction::Sum,
        _ => Reduction::Mean,
    };
    let reduction = inputs.reduction(default)?;
    if name == "orpo" {
        let config = OrpoConfig::default().label_smoothing(smoothing);
        let config = config.lambda(params.number_or("lambda", config.lambda)?);
        let odds = orpo_log_odds_ratio(lp, &weights);
        let mean = orpo(lp, &weights, &config.reduction(Reduction::Mean));
        let metrics = [
            ("orpo_loss", &mean),
            ("accuracy", &odds.gt(0.0).to_dtype(inputs.dtype).mean()),
            ("log_odds_ratio", &odds.mean()),
        ];
        return Ok(with(orpo(lp, &weights, &config.reduction(reduction)), metrics));
    }

    let reference = match name {
        "simpo" | "bradley_terry" => lp * 0.0,
        _ => inputs.ragged("ref_logprobs")?,
    };
    let beta = params.number_or("beta", 1.0)?;
    let length_average = name == "simpo" || params.flag_or("length_average", false)?;
    let gamma = match name {
        "simpo" => params.required("gamma")?,
        _ => 0.0,
    };
    // The settings that all have in common.
    macro_rules! configured {
        ($config:ident, $reduction:expr) => {
            $config::default().beta(beta).label_smoothing(smoothing).reduction($reduction)
        };
    }
    let record = |reduction: Reduction| -> Var {
        match name {
            "dpo" => {
                let config = configured!(DpoConfig, reduction).length_average(length_average);
                dpo(lp, &reference, &weights, &config)
            }
            "ipo" => {
                let config = configured!(IpoConfig, reduction).length_average(length_average);
                ipo(lp, &reference, &weights, &config)
            }
            "hinge" => {
                let config = configured!(HingeConfig, reduction).length_average(length_average);
                hinge(lp, &reference, &weights, &config)
            }
            "simpo" => simpo(lp, &weights, &configured!(SimpoConfig, reduction).gamma(gamma)),
            _ => {
                let config = configured!(BradleyTerryConfig, reduction);
                bradley_terry(lp, &weights, &config.length_average(length_average))
            }
        }
    };
    let score = match length_average {
        true => mean_logprob,
        false => sequence_logprob,
    };
    let of = preference_metrics(&(score(&(lp - &reference), &weights) * beta));
    let metrics = vec![
        (format!("{name}_loss"), record(Reduction::Mean)),
        ("accuracy".into(), of.accuracy),
        ("margin".into(), of.margin),
        ("chosen_reward".into(), of.chosen_reward),
        ("rejected_reward".into(), of.rejected_reward),
    ];
    Ok((record(reduction), metrics))
}

pub(super) fn unpaired(inputs: &Inputs) -> Result<Recorded> {
    let (params, config) = (&inputs.params, KtoConfig::default());
    let config = config
        .beta(params.number_or("beta", config.beta)?)
        .desirable_weight(params.number_or("desirable_weight", config.desirable_weight)?)
        .undesirable_weight(params.number_or("undesirable_weight", config.undesirable_weight)?)
        .reduction(inputs.reduction(config.reduction)?);
    let kl = kto_kl(&inputs.tensor("kl_logratios")?);
    let (reference, weights) = (inputs.ragged("ref_logprobs")?, inputs.ragged("weights")?);
    let desirable = inputs.tensor("desirable")?;
    let record =
        |config: KtoConfig| kto(&inputs.lp, &reference, &weights, &desirable, &kl, &config);
    let mean = record(config.reduction(Reduction::Mean));
    Ok(with(record(config), [("kto_loss", &mean), ("kl", &kl)]))
}
