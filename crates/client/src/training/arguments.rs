//! Arguments that no server takes, found before a request is numbered.

use std::time::Duration;

use tinsmith_wire::{AdamParams, DimuonParams, LoraConfig, OptimizerParams};

use crate::{CheckpointPath, Error, Result};

/// Longest name of a checkpoint.
const MAX_NAME: usize = 255;
/// The time for which servers keep a checkpoint, from an hour to ten years.
const MIN_TTL: Duration = Duration::from_secs(3600);
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

fn bad<T>(what: &'static str, reason: String) -> Result<T> {
    Err(Error::Config { what, reason })
}

/// A checkpoint's name: letters, digits, `-` and `_`; some servers take `.` within it, too.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || !name.chars().all(fits)
    {
        let reason =
            format!("{name:?} is not made of 1 to {MAX_NAME} letters, digits, `-` and `_`");
        return bad("checkpoint name", reason);
    }
    Ok(())
}

/// How long a checkpoint is to be kept.
pub(crate) fn check_ttl(ttl: Option<Duration>) -> Result<()> {
    match ttl {
        Some(ttl) if !(MIN_TTL..=MAX_TTL).contains(&ttl) => bad(
            "checkpoint ttl",
            format!("{ttl:?} is not between an hour and ten years, as servers want it"),
        ),
        _ => Ok(()),
    }
}

/// A checkpoint's path.
pub(crate) fn check_path(path: &str) -> Result<()> {
    path.parse::<CheckpointPath>().map(drop)
}

/// An adapter that can be trained.
pub(crate) fn check_lora(config: &LoraConfig) -> Result<()> {
    if config.rank == 0 {
        return bad("LoraConfig", "the rank must be at least 1".into());
    }
    if !(config.train_attn || config.train_mlp || config.train_unembed) {
        let reason = "at least one of train_attn, train_mlp and train_unembed must be set";
        return bad("LoraConfig", reason.into());
    }
    Ok(())
}

/// Settings of an optimizer, as the f32 that trainers compute with.
pub(crate) fn check_optimizer(params: &OptimizerParams) -> Result<()> {
    match params {
        OptimizerParams::AdamW(params) => {
            let AdamParams { learning_rate, beta1, beta2, eps, weight_decay, .. } = *params;
            at_least_zero("learning_rate", learning_rate)?;
            below_one("beta1", beta1)?;
            below_one("beta2", beta2)?;
            at_least_zero("eps", eps)?;
            at_least_zero("weight_decay", weight_decay)?;
            at_least_zero("grad_clip_norm", params.grad_clip_norm)
        }
        OptimizerParams::Dimuon(DimuonParams { learning_rate, grad_clip_norm, beta1, .. }) => {
            at_least_zero("learning_rate", *learning_rate)?;
            at_least_zero("grad_clip_norm", *grad_clip_norm)?;
            below_one("beta1", *beta1)
        }
        _ => bad("optimizer", format!("{params:?} is unknown to this version of the client")),
    }
}

fn at_least_zero(what: &'static str, x: f64) -> Result<()> {
    match (x as f32).is_finite() && x >= 0.0 {
        true => Ok(()),
        false => bad(what, format!("{x:e} is not a finite f32 of at least 0")),
    }
}

fn below_one(what: &'static str, x: f64) -> Result<()> {
    match x >= 0.0 && (x as f32) < 1.0 {
        true => Ok(()),
        false => bad(what, format!("{x:e} is not, as f32, at least 0 and below 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_judged_as_the_f32_that_a_trainer_uses() {
        type Change = fn(&mut AdamParams);
        let with = |change: Change| {
            let mut params = AdamParams::default();
            change(&mut params);
            check_optimizer(&params.into()).map_err(|error| error.to_string())
        };
        let good: [Change; 4] = [
            |_| {},
            |p| p.learning_rate = 0.0,
            |p| p.beta1 = 0.0,
            |p| (p.eps, p.weight_decay, p.grad_clip_norm) = (0.0, 0.0, 1e30),
        ];
        for change in good {
            assert_eq!(with(change), Ok(()));
        }
        let bad: [(Change, &str); 8] = [
            (|p| p.learning_rate = -1e-20, "learning_rate: -1e-20"),
            (|p| p.learning_rate = f64::NAN, "learning_rate: NaN"),
            (|p| p.learning_rate = 1e39, "learning_rate: 1e39"),
            (|p| p.beta1 = 1.0, "beta1: 1e0"),
            // Rounds to 1 in f32.
            (|p| p.beta2 = 0.999_999_999_99, "beta2: 9.9999999999e-1"),
            (|p| p.beta2 = -0.1, "beta2: -1e-1"),
            (|p| p.eps = f64::INFINITY, "eps: inf"),
            (|p| p.weight_decay = -1.0, "weight_decay: -1e0"),
        ];
        for (change, part) in bad {
            let error = with(change).unwrap_err();
            assert!(error.starts_with(part), "{error}");
        }
    }

    #[test]
    fn names_and_times_are_those_that_servers_take() {
        for name in ["a", "step-10", "Step_1.5", &"x".repeat(255)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "epoch 1", "a/b", "..", ".a", "\u{e4}", &"x".repeat(256)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        for (seconds, is_good) in
            [(3599, false), (3600, true), (315_360_000, true), (315_360_001, false)]
        {
            assert_eq!(check_ttl(Some(Duration::from_secs(seconds))).is_ok(), is_good, "{seconds}");
        }
        assert!(check_ttl(None).is_ok());
    }
}
