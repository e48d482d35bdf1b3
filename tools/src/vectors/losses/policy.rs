use anyhow::{Result, bail};
use tinsmith_grad::Var;
use tinsmith_losses::recipes::{
    self, CispoRecipe, DapoRecipe, GrpoRecipe, GspoRecipe, Rollout, TisConfig, TisLevel,
};
use tinsmith_losses::*;

use super::{Inputs, Params, Recorded, alone, with};

pub(super) fn built_in(name: &str, inputs: &Inputs) -> Result<Recorded> {
    let (lp, params) = (&inputs.lp, &inputs.params);
    let (old, advantages) = (inputs.ragged("logprobs")?, inputs.ragged("advantages")?);
    let cap = params.number("ratio_log_cap");
    let dual_clip = || params.number("dual_clip");
    let loss = match name {
        "importance_sampling" => {
            let config = ImportanceSamplingConfig::default().ratio_log_cap(cap?);
            importance_sampling(lp, &old, &advantages, &config)
        }
        "ppo" => {
            let config = PpoConfig::default().ratio_log_cap(cap?).dual_clip(dual_clip()?);
            let clip = ratio_clip(params, config.clip)?;
            let loss = ppo(lp, &old, &advantages, &config.clip(clip));
            let clip_fraction = clipped(lp, &old, clip).mean();
            return Ok(with(loss.clone(), [("loss:sum", &loss), ("clip_frac", &clip_fraction)]));
        }
        "cispo" => {
            let config = CispoConfig::default().ratio_log_cap(cap?);
            let config = config.clip(ratio_clip(params, config.clip)?);
            cispo(lp, &old, &advantages, &config)
        }
        // It has no ratio that a cap could limit.
        "dro" => {
            let config = DroConfig::default();
            let config = config.beta(params.number_or("beta", config.beta)?);
            dro(lp, &old, &advantages, &config)
        }
        _ => {
            let config = GspoConfig::default().ratio_log_cap(cap?).dual_clip(dual_clip()?);
            let config = config.clip(ratio_clip(params, config.clip)?);
            let mask = inputs.ragged("sequence_ratio_mask")?;
            gspo(lp, &old, &advantages, &mask, &config)
        }
    };
    Ok(alone("loss:sum", loss))
}

/// Bounds that are given as ratios.
fn ratio_clip(params: &Params, default: Clip) -> Result<Clip> {
    let low = params.number_or("clip_low_threshold", default.low())?;
    Ok(Clip::ratio(low, params.number_or("clip_high_threshold", default.high())?))
}

/// Bounds that are given as distances from 1, the upper one the lower's unless told.
fn eps_clip(params: &Params, default: Clip) -> Result<Clip> {
    let (low, high) = (params.number("eps_low")?, params.number("eps_high")?);
    Ok(match (low, high) {
        (Some(low), high) => Clip::eps_low_high(low, high.unwrap_or(low)),
        (None, Some(high)) => Clip::ratio(default.low(), 1.0 + high),
        (None, None) => default,
    })
}

pub(super) fn grpo_example(inputs: &Inputs) -> Result<Recorded> {
    let (reference, weights) = (inputs.ragged("ref_logprobs")?, inputs.ragged("weights")?);
    let advantages = inputs.per_seq("advantages")?;
    let beta = inputs.params.required("kl_beta")?;
    let loss = reinforce_kl(&inputs.lp, &reference, &advantages, &weights, beta);
    let pg_loss = reinforce_kl(&inputs.lp, &reference, &advantages, &weights, 0.0);
    let kl = sequence_logprob(&kl_k1(&inputs.lp, &reference), &weights).mean();
    Ok(with(loss.clone(), [("loss", &loss), ("pg_loss", &pg_loss), ("kl", &kl)]))
}

pub(super) fn rft_table(inputs: &Inputs) -> Result<Var> {
    let (params, config) = (&inputs.params, GrpoConfig::default());
    let levels = [("token", RatioLevel::Token), ("sequence", RatioLevel::Sequence)];
    let config = config
        .ratio(params.choice("ratio", &levels, RatioLevel::Token)?)
        .clip(ratio_clip(params, config.clip)?)
        .dual_clip(params.number("dual_clip")?)
        .ratio_log_cap(params.number("ratio_log_cap")?)
        .kl_beta(params.number_or("kl_beta", 0.0)?)
        .aggregation(inputs.aggregation()?);
    let reference = inputs.optional("ref_logprobs")?;
    Ok(grpo(
        &inputs.lp,
        &inputs.ragged("old_logprobs")?,
        reference.as_ref(),
        &inputs.per_seq("advantages")?,
        &inputs.ragged("weights")?,
        &config,
    ))
}

/// The correction for the sampler.
pub(super) fn tis(params: &Params, [cap, level, log_cap]: [&str; 3]) -> Result<TisConfig> {
    let config = TisConfig::default();
    let levels = [("token", TisLevel::Token), ("sequence", TisLevel::Sequence)];
    Ok(config
        .cap(params.number_or(cap, config.cap)?)
        .level(params.choice(level, &levels, config.level)?)
        .log_cap(params.number_or(log_cap, config.log_cap)?)
        .icepop(params.number("icepop")?))
}

pub(super) fn recipe(name: &str, inputs: &Inputs) -> Result<Recorded> {
    let (lp, params) = (&inputs.lp, &inputs.params);
    let (old, advantages) = (inputs.ragged("old_logprobs")?, inputs.per_seq("advantages")?);
    let sampled = inputs.ragged("rollout_logprobs")?;
    // A setting that a recipe has no use for stays unread, and is refused.
    let cap = match name {
        "dro" | "gspo" => None,
        _ => params.number("ratio_log_cap")?,
    };
    let capped = |rollout: Rollout| match cap {
        Some(cap) => rollout.ratio_log_cap(cap),
        None => rollout,
    };
    let tis = match name {
        "reinforce" => TisConfig::default(),
        _ => tis(params, ["tis_cap", "tis_level", "tis_log_cap"])?,
    };
    let mut rollout = capped(Rollout::new(&old, &advantages))
        .sampled(&sampled)
        .weights(&inputs.ragged("weights")?)
        .tis(tis)
        .prompt_lens(&params.required::<Vec<usize>>("prompt_lens")?);
    if let Some(reference) = inputs.optional("ref_logprobs")? {
        rollout = rollout.reference(&reference);
    }
    let log_ratio = recipes::log_ratio(lp, &rollout);
    let (active, response) = (rollout.active(), rollout.response());

    // What the cookbook averages the ratio of each loss over.
    let (loss, ratio) = match name {
        "grpo" => {
            let config = GrpoRecipe::default().dual_clip(params.number("dual_clip")?);
            let config = config.kl_beta(params.number_or("kl_beta", 0.0)?);
            let clip = eps_clip(params, config.clip)?;
            let loss = recipes::grpo(lp, &rollout, &config.clip(clip));
            (loss, Some((log_ratio, active, clip)))
        }
        "dapo" => {
            let config = DapoRecipe::default().dual_clip(params.number("dual_clip")?);
            let clip = eps_clip(params, config.clip)?;
            let loss = recipes::dapo(lp, &rollout, &config.clip(clip));
            (loss, Some((log_ratio, response, clip)))
        }
        "is" => {
            let loss = recipes::importance_sampling(lp, &rollout);
            (loss, Some((log_ratio, response, Clip::NONE)))
        }
        "cispo" => {
            let config = CispoRecipe::default();
            let clip = eps_clip(params, config.clip)?;
            let loss = recipes::cispo(lp, &rollout, &config.clip(clip));
            (loss, Some((log_ratio, response, clip)))
        }
        "dro" => {
            let config = DroConfig::default();
            let config = config.beta(params.number_or("beta", config.beta)?);
            (recipes::dro(lp, &rollout, &config), None)
        }
        "gspo" => {
            let config = GspoRecipe::default().dual_clip(params.number("dual_clip")?);
            let cap = params.number_or("seq_ratio_log_cap", config.seq_ratio_log_cap)?;
            let clip = eps_clip(params, config.clip)?;
            let config = config.seq_ratio_log_cap(cap).clip(clip);
            let log_ratio = recipes::gspo_log_ratio(lp, &rollout, &config);
            let loss = recipes::gspo(lp, &rollout, &config);
            (loss, Some((log_ratio, active, clip)))
        }
        "reinforce" => {
            let kl_beta = params.number_or("kl_beta", 0.0)?;
            let to_sampler = capped(Rollout::new(&sampled, &advantages));
            let log_ratio = recipes::log_ratio(lp, &to_sampler);
            let loss = recipes::reinforce(lp, &rollout, kl_beta);
            (loss, Some((log_ratio, active, Clip::NONE)))
        }
        other => bail!("no recipe is known as `{other}`"),
    };

    let metrics = recipes::rollout_metrics(lp, &rollout);
    let mut named =
        vec![("active_tokens".into(), metrics.active_tokens), ("ppo_kl".into(), metrics.ppo_kl)];
    named.extend(metrics.mean_kl.map(|kl| ("mean_kl".into(), kl)));
    named.extend(metrics.ref_kl.map(|kl| ("ref_kl".into(), kl)));
    if let Some((log_ratio, mask, clip)) = ratio {
        let metrics = recipes::ratio_metrics(&log_ratio, &mask, clip);
        named.push(("ratio_mean".into(), metrics.ratio_mean));
        named.push(("clip_frac".into(), metrics.clip_fraction));
    }
    Ok((loss, named))
}
