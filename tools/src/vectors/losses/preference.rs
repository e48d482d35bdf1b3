use anyhow::Result;
use tinsmith_grad::Var;
use tinsmith_losses::*;

use super::{Inputs, Recorded, reduction, with};

pub(super) fn preference(name: &str, inputs: &Inputs) -> Result<Recorded> {
    let (lp, weights) = (&inputs.lp, inputs.ragged("weights")?);
    let reference = inputs.optional("ref_logprobs")?.unwrap_or_else(|| lp * 0.0);
    let beta = inputs.number_or("beta", 1.0);
    let length_average = inputs.flag("length_average") || name == "simpo";
    let record = |reduction: Reduction| -> Result<Var> {
        Ok(match name {
            "dpo" => {
                let config = DpoConfig::default().beta(beta).reduction(reduction);
                let config = config.label_smoothing(inputs.number_or("label_smoothing", 0.0));
                dpo(lp, &reference, &weights, &config)
            }
            "ipo" => {
                let config = IpoConfig::default().beta(beta).reduction(reduction);
                ipo(
                    lp,
                    &reference,
                    &weights,
                    &config.length_average(length_average),
                )
            }
            "hinge" => hinge(
                lp,
                &reference,
                &weights,
                &HingeConfig::default().beta(beta).reduction(reduction),
            ),
            "simpo" => {
                let config = SimpoConfig::default().beta(beta).reduction(reduction);
                simpo(lp, &weights, &config.gamma(inputs.number("gamma")?))
            }
            "bradley_terry" => {
                let config = BradleyTerryConfig::default()
                    .beta(beta)
                    .reduction(reduction);
                bradley_terry(lp, &weights, &config.length_average(length_average))
            }
            _ => orpo(
                lp,
                &weights,
                &OrpoConfig::default()
                    .lambda(inputs.number("lambda")?)
                    .reduction(reduction),
            ),
        })
    };
    let default = if name == "orpo" {
        Reduction::Sum
    } else {
        Reduction::Mean
    };
    let loss = record(reduction(&inputs.case.params, default)?)?;
    let mut metrics = vec![(format!("{name}_loss"), record(Reduction::Mean)?)];
    if name == "orpo" {
        let odds = orpo_log_odds_ratio(lp, &weights);
        metrics.push((
            "accuracy".into(),
            odds.gt(0.0).to_dtype(inputs.dtype).mean(),
        ));
        metrics.push(("log_odds_ratio".into(), odds.mean()));
    } else {
        let score = if length_average {
            mean_logprob
        } else {
            sequence_logprob
        };
        let of = preference_metrics(&(score(&(lp - reference), &weights) * beta));
        let named = [
            ("accuracy", of.accuracy),
            ("margin", of.margin),
            ("chosen_reward", of.chosen_reward),
            ("rejected_reward", of.rejected_reward),
        ];
        metrics.extend(named.map(|(name, metric)| (name.to_string(), metric)));
    }
    Ok((loss, metrics))
}

pub(super) fn unpaired(inputs: &Inputs) -> Result<Recorded> {
    let config = KtoConfig::default()
        .beta(inputs.number("beta")?)
        .desirable_weight(inputs.number("desirable_weight")?)
        .undesirable_weight(inputs.number("undesirable_weight")?);
    let kl = kto_kl(&inputs.case.tensor("kl_logratios", inputs.dtype)?);
    let (reference, weights) = (inputs.ragged("ref_logprobs")?, inputs.ragged("weights")?);
    let desirable = inputs.case.tensor("desirable", inputs.dtype)?;
    let loss = kto(&inputs.lp, &reference, &weights, &desirable, &kl, &config);
    Ok(with(loss.clone(), [("kto_loss", &loss), ("kl", &kl)]))
}
