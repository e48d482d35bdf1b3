//! The same custom losses on TuFT, a trainer that computes with PyTorch, and on ours, from the same
//! checkpoint and adapter, both by our client: the logprobs of every step must agree.

mod transplant;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tinsmith_client::losses::{DpoConfig, dpo};
use tinsmith_client::{AdamParams, Batch, Datum, LoraConfig, Loss, ServiceClient, TrainingClient};

use self::transplant::transplant;
use super::checks::{self, Check, guarded};
use super::client::{Logprobs, apart, custom_step, datum, logprobs, squared_nll};
use super::environment::{self, Packages, emptied};
use super::server::{Server, free_port};
use super::tiny_model;
use super::trainer::Trainer;
use crate::repository;

/// Furthest that a logprob may be from TuFT's.
const TOLERANCE: f32 = 1e-3;

const STEPS: usize = 10;

const API_KEY: &str = "tml-local-test";

pub fn run() -> Result<()> {
    let folder = environment::folder("tuft")?;
    let packages = Packages {
        // TuFT itself asks for vllm and for another PyTorch.
        alone: &["tuft==0.2.2", "peft==0.20.0", "accelerate"],
        ..Packages::listed(include_str!("tuft/requirements.txt"))
    };
    let python = environment::python(&folder, &packages)?;
    let model = tiny_model::write(&python, &folder)?;
    let state = emptied(&folder.join("state"))?;
    let named = format!("{}={}", tiny_model::NAME, model.display());
    let ours = Trainer::start(&state, &["--model", &named])?;
    let theirs = start(&folder, &python, &model)?;
    let pair = Pair {
        theirs: connect(&theirs.url)?,
        ours: connect(&ours.url)?,
        their_checkpoints: folder.join("run/checkpoints"),
        our_state: state,
    };

    let mut all = Vec::new();
    for (name, objective) in [("dpo", Objective::Dpo), ("squared-nll", Objective::SquaredNll)] {
        let checks = guarded(name, || pair.compare(name, objective));
        checks::print(&format!("TuFT 0.2.2 and the local trainer, {name}"), &checks);
        all.extend(checks);
    }
    checks::settle(&all)
}

fn start(folder: &Path, python: &Path, model: &Path) -> Result<Server> {
    let run = emptied(&folder.join("run"))?;
    let checkpoints = emptied(&run.join("checkpoints"))?;
    let config = run.join("tuft.yaml");
    let yaml = format!(
        "checkpoint_dir: {}\n\
         supported_models:\n\
         - model_name: {}\n  \
           model_path: {}\n  \
           max_model_len: 512\n  \
           max_lora_rank: 16\n  \
           max_loras: 8\n  \
           micro_batch_size: 8\n  \
           capabilities: [training]\n\
         authorized_users:\n  \
           {API_KEY}: default\n",
        checkpoints.display(),
        tiny_model::NAME,
        model.display(),
    );
    fs::write(&config, yaml).with_context(|| format!("writing {}", config.display()))?;
    let port = free_port()?;
    let assets = repository().join("tools/src/interop/tuft");
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

fn connect(url: &str) -> Result<ServiceClient> {
    let service = ServiceClient::builder().base_url(url).api_key(API_KEY);
    service.connect().with_context(|| format!("connecting to {url}"))
}

#[derive(Clone, Copy)]
enum Objective {
    Dpo,
    SquaredNll,
}

/// What a loop of ten steps saw.
struct Run {
    /// By step, of the first pass.
    logprobs: Vec<Logprobs>,
    losses: Vec<f64>,
    /// Steps in which the server's own loss was that of the weights sent.
    agreeing: usize,
}

/// Both servers.
struct Pair {
    theirs: ServiceClient,
    ours: ServiceClient,
    their_checkpoints: PathBuf,
    our_state: PathBuf,
}

impl Pair {
    /// Trains on both, from TuFT's fresh adapter.
    fn compare(&self, name: &str, objective: Objective) -> Result<Vec<Check>> {
        let (theirs, start) = fresh(&self.theirs, name).context("TuFT")?;
        let (ours, place) = fresh(&self.ours, name).context("the local trainer")?;
        transplant(
            &transplant::of_tuft(&self.their_checkpoints, &start)?,
            &transplant::of_ours(&self.our_state, &place)?,
        )?;
        ours.load_state(&place)?.result()?;
        let theirs = train(&theirs, objective).context("TuFT")?;
        let ours = train(&ours, objective).context("the local trainer")?;
        Ok(compare(&theirs, &ours))
    }
}

/// A new model, and the checkpoint of it as it is.
fn fresh(service: &ServiceClient, name: &str) -> Result<(TrainingClient, String)> {
    let lora = LoraConfig { train_unembed: false, ..LoraConfig::rank(16).seed(3) };
    let training = service.create_lora_training_client(tiny_model::NAME, &lora)?;
    let path = training.save_state(&format!("start-{name}"))?.result()?.path;
    Ok((training, path))
}

fn train(training: &TrainingClient, objective: Objective) -> Result<Run> {
    let texts = [" uno", " two", " un", " three"].map(|answer| format!("Q: one\nA:{answer}"));
    let data = texts.iter().map(|text| datum(text)).collect::<Result<Vec<_>>>()?;
    let reference = logprobs(training, &data)?;
    let data: Vec<Datum> = data
        .into_iter()
        .zip(reference)
        .map(|(datum, reference)| datum.with("ref_logprobs", reference))
        .collect();
    let adam = AdamParams { eps: 1e-8, ..AdamParams::default().learning_rate(1e-3) };
    let mut run = Run { logprobs: Vec::new(), losses: Vec::new(), agreeing: 0 };
    for _ in 0..STEPS {
        let report = custom_step(training, &data, &adam, |batch| {
            let seqs = batch.logprobs().seqs();
            let logprobs = seqs.iter().map(|seq| Ok(seq.to_vec::<f32>()?));
            run.logprobs.push(logprobs.collect::<Result<_>>()?);
            objective.loss(batch)
        })?;
        run.losses.push(report.loss);
        run.agreeing += usize::from(report.surrogate.is_some_and(|it| it.agrees));
    }
    Ok(run)
}

impl Objective {
    fn loss(self, batch: &Batch) -> Result<Loss> {
        match self {
            Objective::Dpo => {
                let (reference, weights) = (batch.input("ref_logprobs")?, batch.input("weights")?);
                let config = DpoConfig::default().beta(0.1);
                Ok(Loss::new(dpo(&batch.logprobs(), &reference, &weights, &config)))
            }
            Objective::SquaredNll => squared_nll(batch),
        }
    }
}

fn compare(theirs: &Run, ours: &Run) -> Vec<Check> {
    let steps = theirs.logprobs.iter().zip(&ours.logprobs).enumerate();
    let mut checks: Vec<Check> = steps
        .map(|(step, (their_logprobs, our_logprobs))| {
            let apart = apart(their_logprobs, our_logprobs);
            let losses = [theirs, ours].map(|run| run.losses[step]);
            Check::new(
                format!("step {step}: logprobs agree to {TOLERANCE}"),
                apart <= TOLERANCE,
                format!("apart {apart:.1e}, losses {losses:.5?}"),
            )
        })
        .collect();
    let moved = match theirs.logprobs.as_slice() {
        [first, .., last] => apart(first, last),
        _ => 0.0,
    };
    checks.push(Check::new(
        "ten steps, TuFT's loss falls in each, and its logprobs move by far more than the tolerance",
        checks.len() == STEPS
            && theirs.losses.is_sorted_by(|a, b| a > b)
            && moved > 100.0 * TOLERANCE,
        format!("{} steps, moved {moved:.3}", checks.len()),
    ));
    for (name, run) in [("TuFT", theirs), ("the local trainer", ours)] {
        checks.push(Check::new(
            format!("{name}: its own loss is that of the weights sent"),
            run.agreeing == STEPS,
            format!("in {} of {STEPS} steps", run.agreeing),
        ));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logprobs from `start` on, losses down from 0.
    fn run(start: f32, steps: usize) -> Run {
        Run {
            logprobs: (0..steps).map(|step| vec![vec![start - step as f32]]).collect(),
            losses: (0..steps).map(|step| -(step as f64)).collect(),
            agreeing: steps,
        }
    }

    #[test]
    fn runs_are_compared_step_by_step() {
        let ok = |theirs, ours| compare(&theirs, &ours).iter().all(|check| check.ok);
        assert!(ok(run(-1.0, 10), run(-1.0009, 10)));
        assert!(!ok(run(-1.0, 10), run(-1.0011, 10)));
        assert!(!ok(run(-1.0, 10), run(-1.0, 9)));
        assert!(!ok(run(-1.0, 0), run(-1.0, 0)));
        let standing = || Run { losses: vec![0.0; 10], ..run(-1.0, 10) };
        assert!(!ok(standing(), standing()));
    }
}
