use anyhow::{Result, bail};
use tinsmith_grad::Var;
use tinsmith_losses::client::{self, Rollout, TisConfig, TisLevel};
use tinsmith_losses::*;

use super::{Inputs, Recorded, alone, field, with};

pub(super) fn built_in(name: &str, inputs: &Inputs) -> Result<Recorded> {
    let (lp, old, advantages) = (
        &inputs.lp,
        inputs.ragged("logprobs")?,
        inputs.ragged("advantages")?,
    );
    let clip = || {
        Ok::<_, anyhow::Error>((
            inputs.number("clip_low_threshold")?,
            inputs.number("clip_high_threshold")?,
        ))
    };
    let loss = match name {
        "importance_sampling" => importance_sampling(lp, &old, &advantages),
        "ppo" => {
            let (low, high) = clip()?;
            let loss = ppo(
                lp,
                &old,
                &advantages,
                &PpoConfig::default().clip_low(low).clip_high(high),
            );
            let clip_fraction = clipped(lp, &old, low, high).mean();
            return Ok(with(
                loss.clone(),
                [("loss:sum", &loss), ("clip_frac", &clip_fraction)],
            ));
        }
        "cispo" => {
            let (low, high) = clip()?;
            cispo(
                lp,
                &old,
                &advantages,
                &CispoConfig::default().clip_low(low).clip_high(high),
            )
        }
        "dro" => dro(
            lp,
            &old,
            &advantages,
            &DroConfig::default().beta(inputs.number("beta")?),
        ),
        _ => {
            let (low, high) = clip()?;
            let config = GspoConfig::default().clip_low(low).clip_high(high);
            gspo(
                lp,
                &old,
                &advantages,
                &inputs.ragged("sequence_ratio_mask")?,
                &config,
            )
        }
    };
    Ok(alone("loss:sum", loss))
}

pub(super) fn grpo_example(inputs: &Inputs) -> Result<Recorded> {
    let (reference, weights) = (inputs.ragged("ref_logprobs")?, inputs.ragged("weights")?);
    let (advantages, beta) = (inputs.per_seq("advantages")?, inputs.number("kl_beta")?);
    let loss = reinforce_kl(&inputs.lp, &reference, &advantages, &weights, beta);
    let pg_loss = reinforce_kl(&inputs.lp, &reference, &advantages, &weights, 0.0);
    let kl = sequence_logprob(&kl_k1(&inputs.lp, &reference), &weights).mean();
    Ok(with(
        loss.clone(),
        [("loss", &loss), ("pg_loss", &pg_loss), ("kl", &kl)],
    ))
}

pub(super) fn rft_table(inputs: &Inputs) -> Result<Var> {
    let ratio = match inputs.text("ratio")? {
        "token" => RatioLevel::Token,
        "sequence" => RatioLevel::Sequence,
        other => bail!("unknown ratio `{other}`"),
    };
    let config = GrpoConfig::default()
        .ratio(ratio)
        .clip_low(inputs.number("clip_low_threshold")?)
        .clip_high(inputs.number("clip_high_threshold")?)
        .kl_beta(inputs.number_or("kl_beta", 0.0))
        .aggregation(inputs.aggregation()?);
    let (old, reference) = (
        inputs.ragged("old_logprobs")?,
        inputs.optional("ref_logprobs")?,
    );
    let (advantages, weights) = (inputs.per_seq("advantages")?, inputs.ragged("weights")?);
    Ok(grpo(
        &inputs.lp,
        &old,
        reference.as_ref(),
        &advantages,
        &weights,
        &config,
    ))
}

pub(super) fn client_loss(name: &str, inputs: &Inputs) -> Result<Recorded> {
    let lp = &inputs.lp;
    let prompt_lens: Vec<usize> = field(&inputs.case.params, "prompt_lens")?;
    let mut rollout = Rollout::new(
        &inputs.ragged("old_logprobs")?,
        &inputs.per_seq("advantages")?,
    )
    .sampled(&inputs.ragged("rollout_logprobs")?)
    .weights(&inputs.ragged("weights")?)
    .prompt_lens(&prompt_lens);
    if let Some(reference) = inputs.optional("ref_logprobs")? {
        rollout = rollout.reference(&reference);
    }
    let tis = TisConfig::default()
        .cap(inputs.number_or("tis_cap", 5.0))
        .level(
            if inputs
                .text("tis_level")
                .is_ok_and(|level| level == "sequence")
            {
                TisLevel::Sequence
            } else {
                TisLevel::Token
            },
        )
        .icepop(inputs.number("icepop").ok());
    let (eps_low, eps_high) = (
        inputs.number_or("eps_low", 0.0),
        inputs.number_or("eps_high", f64::INFINITY),
    );
    let log_ratio = client::log_ratio(lp, &rollout);
    let (active, response) = (rollout.active(), rollout.response());

    // What the cookbook averages the ratio of each loss over.
    let (loss, ratio) = match name {
        "grpo" => {
            let config = client::GrpoConfig::default()
                .eps_low(eps_low)
                .eps_high(eps_high)
                .tis(tis);
            let config = config.kl_beta(inputs.number_or("kl_beta", 0.0));
            (
                client::grpo(lp, &rollout, &config),
                Some((log_ratio, active)),
            )
        }
        "dapo" => {
            let config = client::DapoConfig::default()
                .eps_low(eps_low)
                .eps_high(eps_high)
                .tis(tis);
            let config = config.dual_clip(inputs.number("dual_clip").ok());
            (
                client::dapo(lp, &rollout, &config),
                Some((log_ratio, response)),
            )
        }
        "is" => {
            let config = client::ImportanceSamplingConfig::default().tis(tis);
            let config = config.ratio_log_cap(inputs.number("ratio_log_cap")?);
            (
                client::importance_sampling(lp, &rollout, &config),
                Some((log_ratio, response)),
            )
        }
        "cispo" => {
            let config = client::CispoConfig::default()
                .eps_low(eps_low)
                .eps_high(eps_high)
                .tis(tis);
            (
                client::cispo(lp, &rollout, &config),
                Some((log_ratio, response)),
            )
        }
        "dro" => {
            let config = client::DroConfig::default()
                .beta(inputs.number("beta")?)
                .tis(tis);
            (client::dro(lp, &rollout, &config), None)
        }
        "gspo" => {
            let config = client::GspoConfig::default()
                .eps_low(eps_low)
                .eps_high(eps_high)
                .tis(tis);
            let config = config.seq_ratio_log_cap(inputs.number("seq_ratio_log_cap")?);
            let log_ratio = client::gspo_log_ratio(lp, &rollout, &config);
            (
                client::gspo(lp, &rollout, &config),
                Some((log_ratio, active)),
            )
        }
        "reinforce" => {
            let sampled = Rollout::new(
                &inputs.ragged("rollout_logprobs")?,
                &inputs.per_seq("advantages")?,
            );
            let log_ratio = client::log_ratio(lp, &sampled);
            (
                client::reinforce(lp, &rollout, inputs.number_or("kl_beta", 0.0)),
                Some((log_ratio, active)),
            )
        }
        other => bail!("no client loss is known as `{other}`"),
    };

    let metrics = client::rollout_metrics(lp, &rollout);
    let mut named = vec![
        ("active_tokens".into(), metrics.active_tokens),
        ("ppo_kl".into(), metrics.ppo_kl),
    ];
    named.extend(metrics.mean_kl.map(|kl| ("mean_kl".into(), kl)));
    named.extend(metrics.ref_kl.map(|kl| ("ref_kl".into(), kl)));
    if let Some((log_ratio, mask)) = ratio {
        let metrics = client::ratio_metrics(&log_ratio, &mask, 1.0 - eps_low, 1.0 + eps_high);
        named.push(("ratio_mean".into(), metrics.ratio_mean));
        named.push(("clip_frac".into(), metrics.clip_fraction));
    }
    Ok((loss, named))
}
