//! A run that may be interrupted: on Ctrl-C it saves the model, and goes on from there when it is
//! started again.
//!
//! `cargo run --release --example resume`, Ctrl-C, and the same again. `--interrupt-at STEP`
//! presses Ctrl-C by itself. The state is kept in `target/resume`.

mod common;

use std::{fs, path::Path};

use anyhow::{Context, Result};
use common::{Split, datum};
use serde::{Deserialize, Serialize};
use tinsmith_client::{
    AdamParams, CancelToken, Datum, Error, LoraConfig, LossFn, SaveOptions, ServiceClient,
    StderrProgress, TrainingClient,
};
use tinsmith_trainer::Trainer;

const STEPS: usize = 200;
const SENTENCES_PER_STEP: usize = 16;
const FOLDER: &str = "target/resume";

/// Where a run goes on.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    path: String,
    steps: usize,
}

fn main() -> Result<()> {
    let interrupt_at = interrupt_at()?;
    let cancel = CancelToken::new();
    let pressed = cancel.clone();
    ctrlc::set_handler(move || pressed.cancel())?;

    let folder = Path::new(FOLDER);
    fs::create_dir_all(folder)?;
    let trainer = Trainer::builder().state_dir(folder.join("state")).spawn()?;
    let builder = ServiceClient::builder().base_url(trainer.url()).progress(StderrProgress);
    let service = builder.cancel_token(&cancel).connect()?;

    let notes = folder.join("checkpoint.json");
    let (training, first) = match fs::read(&notes) {
        Ok(bytes) => {
            let Checkpoint { path, steps } = serde_json::from_slice(&bytes)?;
            println!("going on from {path}, after {steps} steps");
            (service.create_training_client_from_state_with_optimizer(&path)?, steps)
        }
        Err(_) => {
            (service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8).seed(0))?, 0)
        }
    };

    let data: Vec<Datum> = Split::load().train.iter().map(|sentence| datum(sentence)).collect();
    for steps in first..STEPS {
        if interrupt_at == Some(steps) {
            cancel.cancel();
        }
        let batch: Vec<Datum> = (0..SENTENCES_PER_STEP)
            .map(|i| data[(steps * SENTENCES_PER_STEP + i) % data.len()].clone())
            .collect();
        match step(&training, &batch) {
            Ok(nll) if steps % 20 == 0 => println!("step {steps}: nll per byte {nll:.3}"),
            Ok(_) => {}
            Err(error) if matches!(*error.error, Error::Cancelled { .. }) => {
                cancel.reset();
                let steps = steps + usize::from(error.is_step_taken);
                let name = format!("after-{steps}");
                let options = SaveOptions::default().overwrite();
                let path = training.save_state_with(&name, &options)?.result()?.path;
                fs::write(&notes, serde_json::to_vec(&Checkpoint { path, steps })?)?;
                println!("interrupted after {steps} steps; saved, start it again to go on");
                return Ok(());
            }
            Err(error) => return Err((*error.error).into()),
        }
    }
    if notes.exists() {
        fs::remove_file(&notes)?;
    }
    println!("done after {STEPS} steps");
    Ok(())
}

struct Failed {
    error: Box<Error>,
    /// Whether the optimizer's step was accepted all the same: what is saved later has it.
    is_step_taken: bool,
}

fn step(training: &TrainingClient, batch: &[Datum]) -> Result<f64, Failed> {
    let before = |error| Failed { error: Box::new(error), is_step_taken: false };
    let after = |error| Failed { error: Box::new(error), is_step_taken: true };
    let pass = training.forward_backward(batch, LossFn::CrossEntropy, None).map_err(before)?;
    let adam = AdamParams::default().learning_rate(5e-3);
    let optim = training.optim_step(&adam).map_err(before)?;
    let bytes: usize = batch.iter().filter_map(|datum| datum.model_input.len()).sum();
    let loss = pass.result().map_err(after)?.metrics["loss:sum"];
    optim.result().map_err(after)?;
    Ok(loss / bytes as f64)
}

fn interrupt_at() -> Result<Option<usize>> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        None => Ok(None),
        Some("--interrupt-at") => {
            let step = arguments.next().context("--interrupt-at needs a step")?;
            Ok(Some(step.parse()?))
        }
        Some(other) => anyhow::bail!("`{other}` is not --interrupt-at"),
    }
}
