//! Supervised fine-tuning with the server's own cross entropy: the model learns to write the
//! sentences of a book.
//!
//! `cargo run --release --example sft`. Curves: `target/sft.svg`, `target/sft.jsonl`.

mod common;

use anyhow::Result;
use common::{Curves, Progress, Rng, Service, Split, Table, datum, logprobs, mean};
use tinsmith_client::{AdamParams, Datum, LossFn, TrainingClient};

const STEPS: usize = 100;
const SENTENCES_PER_STEP: usize = 16;

fn main() -> Result<()> {
    let split = Split::load();
    let train: Vec<Datum> = split.train.iter().map(|sentence| datum(sentence)).collect();
    let held_out: Vec<Datum> = split.held_out.iter().map(|sentence| datum(sentence)).collect();
    println!("{} sentences to train on, {} held out\n", train.len(), held_out.len());

    let service = Service::connect()?;
    let training = &service.training;
    let before = nll_per_byte(training, &held_out)?;

    let mut curves = Curves::create("sft", &["nll per byte"])?;
    let progress = Progress::new("sft", STEPS);
    let mut rng = Rng::new(0);
    let adam = AdamParams::default().learning_rate(5e-3);
    for _ in 0..STEPS {
        let batch: Vec<Datum> =
            (0..SENTENCES_PER_STEP).map(|_| train[rng.below(train.len())].clone()).collect();
        let bytes: usize = batch.iter().filter_map(|datum| datum.model_input.len()).sum();

        let step = training.forward_backward(&batch, LossFn::CrossEntropy, None)?;
        let optim = training.optim_step(&adam)?;
        let nll = step.result()?.metrics["loss:sum"] / bytes as f64;
        optim.result()?;

        curves.push(&[nll])?;
        progress.step(&[("nll per byte", nll)]);
    }
    progress.finish();

    let after = nll_per_byte(training, &held_out)?;
    let table = Table::default().row("nll per byte, nats", before, after).row(
        "perplexity per byte",
        before.exp(),
        after.exp(),
    );
    println!("\nheld out, {} sentences\n{table}", held_out.len());
    println!("curves: {}", curves.finish()?.display());
    println!("held-out nll per byte: {before:.2} -> {after:.2}");
    Ok(())
}

fn nll_per_byte(training: &TrainingClient, data: &[Datum]) -> Result<f64> {
    let logprobs = logprobs(training, data)?;
    Ok(-mean(logprobs.into_iter().flatten().map(f64::from)))
}
