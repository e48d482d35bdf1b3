//! The same loop on TuFT, a trainer that computes with PyTorch, and on ours, from the same checkpoint and adapter: the
//! logprobs of every step must agree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::checks::{self, Check};
use super::environment::{self, Packages};
use super::server::{Server, free_port};
use super::trainer::Trainer;
use crate::repository;

const BASE_MODEL: &str = "tiny-qwen3";

/// Furthest that a logprob may be from TuFT's.
const TOLERANCE: f64 = 1e-3;

/// What `tuft/loop.py` prints.
#[derive(Deserialize)]
struct Run {
    checkpoint: String,
    /// `[step][sequence][token]`
    logprobs: Vec<Vec<Vec<f64>>>,
    losses: Vec<f64>,
}

pub fn run() -> Result<()> {
    let folder = environment::folder("tuft")?;
    let assets = repository().join("xtask/src/interop");
    let requirements = fs::read_to_string(assets.join("tuft/requirements.txt"))?;
    let packages = Packages {
        // TuFT itself asks for vllm and for another PyTorch.
        alone: &["tuft==0.2.2", "peft==0.20.0", "accelerate"],
        ..Packages::listed(&requirements)
    };
    let python = environment::python(&folder, &packages)?;
    let model = folder.join(BASE_MODEL);
    output(
        Command::new(&python)
            .arg(assets.join("tiny_model.py"))
            .arg(&model),
    )?;

    let state = folder.join("state");
    let ours = Trainer::start(&state, Some((BASE_MODEL, &model)))?;
    let theirs = start(&folder, &python, &model)?;
    let mut all = Vec::new();
    for loss in ["dpo", "squared-nll"] {
        let script = assets.join("tuft/loop.py");
        let train = |url: &str, start: Option<&str>| -> Result<Run> {
            let arguments = [url, BASE_MODEL, loss].into_iter().chain(start);
            let printed = output(Command::new(&python).arg(&script).args(arguments))?;
            serde_json::from_str(&printed).with_context(|| format!("the loop said {printed:?}"))
        };
        let reference = train(&theirs.url, None)?;
        let place = train(&ours.url, None)?.checkpoint;
        let transplant = Command::new(&python)
            .arg(assets.join("tuft/transplant.py"))
            .arg(adapter(&folder, &reference.checkpoint)?)
            .arg(checkpoint(&state, &place)?)
            .status()?;
        ensure!(transplant.success(), "transplant.py: {transplant}");
        let checks = compare(&reference, &train(&ours.url, Some(&place))?);
        checks::print(&format!("TuFT 0.2.2, {loss}"), &checks);
        all.extend(checks);
    }
    checks::settle(&all)
}

fn start(folder: &Path, python: &Path, model: &Path) -> Result<Server> {
    let run = folder.join("run");
    if run.exists() {
        fs::remove_dir_all(&run).with_context(|| format!("clearing {}", run.display()))?;
    }
    fs::create_dir_all(run.join("checkpoints"))?;
    let config = run.join("tuft.yaml");
    let yaml = format!(
        "checkpoint_dir: {}\n\
         supported_models:\n\
         - model_name: {BASE_MODEL}\n  \
           model_path: {}\n  \
           max_model_len: 512\n  \
           max_lora_rank: 16\n  \
           max_loras: 8\n  \
           micro_batch_size: 8\n  \
           capabilities: [training]\n\
         authorized_users:\n  \
           tml-local-test: default\n",
        run.join("checkpoints").display(),
        model.display(),
    );
    fs::write(&config, yaml)?;
    let port = free_port()?;
    let assets = repository().join("xtask/src/interop/tuft");
    let mut command = Command::new(python);
    command
        .arg(assets.join("launch.py"))
        .arg(port.to_string())
        .arg(&config)
        .current_dir(&run)
        .env("HOME", &run)
        .env("TUFT_HOME", run.join("home"))
        .env("PYTHONPATH", assets.join("site"))
        .env("OMP_NUM_THREADS", "1")
        .env("RAY_USAGE_STATS_ENABLED", "0")
        .env("HF_HUB_OFFLINE", "1");
    Server::start(&mut command, port, run.join("server.log"))
}

/// Where TuFT keeps the adapter of `tinker://RUN/weights/NAME`.
fn adapter(folder: &Path, checkpoint: &str) -> Result<PathBuf> {
    let (run, name) = parts(checkpoint)?;
    let saved = folder.join("run/checkpoints").join(run).join(name);
    Ok(saved.join("adapter/adapter_model.safetensors"))
}

/// Where our trainer keeps it.
fn checkpoint(state: &Path, checkpoint: &str) -> Result<PathBuf> {
    let (run, name) = parts(checkpoint)?;
    let folder = state.join(run.replace(':', "-")).join("weights");
    Ok(folder.join(format!("{name}.safetensors")))
}

fn parts(checkpoint: &str) -> Result<(&str, &str)> {
    checkpoint
        .strip_prefix("tinker://")
        .and_then(|rest| rest.split_once("/weights/"))
        .with_context(|| format!("`{checkpoint}` is no checkpoint"))
}

fn compare(reference: &Run, ours: &Run) -> Vec<Check> {
    let steps = reference.logprobs.iter().zip(&ours.logprobs).enumerate();
    let mut checks: Vec<Check> = steps
        .map(|(step, (want, got))| {
            let pairs = want.iter().flatten().zip(got.iter().flatten());
            let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            let same_shape = want.iter().map(Vec::len).eq(got.iter().map(Vec::len));
            Check::new(
                format!("step {step}: logprobs agree to {TOLERANCE}"),
                same_shape && apart <= TOLERANCE,
                format!(
                    "apart {apart:.1e}, loss {:.5} and {:.5}",
                    reference.losses[step], ours.losses[step]
                ),
            )
        })
        .collect();
    let (first, last) = (reference.losses.first(), reference.losses.last());
    checks.push(Check::new(
        "ten steps, and the loss falls",
        checks.len() == 10 && ours.losses.len() == 10 && last < first,
        format!("{first:?} -> {last:?}"),
    ));
    checks
}

/// What `command` prints.
fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(logprobs: f64, steps: usize) -> Run {
        Run {
            checkpoint: String::new(),
            logprobs: vec![vec![vec![logprobs]]; steps],
            losses: (0..steps).map(|step| -(step as f64)).collect(),
        }
    }

    #[test]
    fn runs_are_compared_step_by_step() {
        let ok = |ours: &Run| compare(&run(-1.0, 10), ours).iter().all(|check| check.ok);
        assert!(ok(&run(-1.0009, 10)));
        assert!(!ok(&run(-1.0011, 10)));
        assert!(!ok(&run(-1.0, 9)));
    }

    #[test]
    fn checkpoints_are_found_on_disk() {
        let path = checkpoint(Path::new("state"), "tinker://s:train:0/weights/start").unwrap();
        assert_eq!(path, Path::new("state/s-train-0/weights/start.safetensors"));
        assert!(parts("tinker://s/sampler_weights/start").is_err());
    }
}
