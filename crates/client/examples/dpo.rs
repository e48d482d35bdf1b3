//! Direct preference optimization as a custom loss: the model learns to prefer a true sentence to
//! the same words in another order.
//!
//! `cargo run --release --example dpo`. Curves: `target/dpo.svg`, `target/dpo.jsonl`.

mod common;

use anyhow::Result;
use common::{Curves, Progress, Rng, Service, Split, Table, datum, logprobs, mean, shuffle_words};
use tinsmith_client::losses::{DpoConfig, dpo, implicit_reward, preference_metrics};
use tinsmith_client::{AdamParams, Datum, Loss, TrainingClient};

const STEPS: usize = 120;
const PAIRS_PER_STEP: usize = 12;
const BETA: f64 = 0.1;
const LEARNING_RATE: f64 = 3e-3;

fn main() -> Result<()> {
    let split = Split::load();
    let mut rng = Rng::new(0);
    let train = pairs(&split.train, &mut rng);
    let held_out = pairs(&split.held_out, &mut rng);
    println!("{} pairs to train on, {} held out; the first held out:", train.len(), held_out.len());
    println!("  chosen    {}\n  rejected  {}\n", held_out[0].0, held_out[0].1);

    let service = Service::connect()?;
    let training = &service.training;
    let train = with_reference(training, data(&train))?;
    let held_out = data(&held_out);
    let before = evaluate(training, &held_out)?;

    let mut curves = Curves::create("dpo", &["loss", "accuracy", "margin"])?;
    let progress = Progress::new("dpo", STEPS);
    let mut order: Vec<&[Datum]> = Vec::new();
    let mut last = None;
    for step in 0..STEPS {
        let left = 1.0 - step as f64 / STEPS as f64;
        let adam = AdamParams::default().learning_rate(LEARNING_RATE * left);
        if order.len() < PAIRS_PER_STEP {
            order = train.chunks(2).collect();
            rng.shuffle(&mut order);
        }
        let batch = order.split_off(order.len() - PAIRS_PER_STEP).concat();

        let step = training.forward_backward_custom(&batch, |batch| {
            let (logprobs, reference) = (batch.logprobs(), batch.input("ref_logprobs")?);
            let weights = batch.input("weights")?;
            let loss = dpo(&logprobs, &reference, &weights, &DpoConfig::default().beta(BETA));
            let watch = preference_metrics(&implicit_reward(&logprobs, &reference, &weights, BETA));
            Ok(Loss::new(loss)
                .metric("accuracy", watch.accuracy)
                .metric("margin", watch.margin)
                .metric("chosen reward", watch.chosen_reward))
        })?;
        let optim = training.optim_step(&adam)?;
        let report = step.result()?.report;
        optim.result()?;

        let metrics = &report.metrics;
        let shown = [report.loss, metrics["accuracy"], metrics["margin"]];
        curves.push(&shown)?;
        progress.step(&[("loss", shown[0]), ("accuracy", shown[1]), ("margin", shown[2])]);
        last = Some(report);
    }
    progress.finish();
    if let Some(report) = last {
        println!("\nthe last step\n{report}");
    }

    let after = evaluate(training, &held_out)?;
    let table = Table::default().row("pair accuracy", before.accuracy, after.accuracy).row(
        "margin, nats per token",
        before.margin,
        after.margin,
    );
    println!("\nheld out, {} pairs\n{table}", held_out.len() / 2);
    println!("curves: {}", curves.finish()?.display());
    println!("held-out pair accuracy: {:.2} -> {:.2}", before.accuracy, after.accuracy);
    Ok(())
}

/// Each sentence, and its words in another order.
fn pairs(sentences: &[String], rng: &mut Rng) -> Vec<(String, String)> {
    sentences.iter().map(|sentence| (sentence.clone(), shuffle_words(sentence, rng))).collect()
}

/// Chosen, rejected, chosen, rejected, ...
fn data(pairs: &[(String, String)]) -> Vec<Datum> {
    pairs.iter().flat_map(|(chosen, rejected)| [datum(chosen), datum(rejected)]).collect()
}

/// Adds what the model gives each token before training.
fn with_reference(training: &TrainingClient, data: Vec<Datum>) -> Result<Vec<Datum>> {
    let reference = logprobs(training, &data)?;
    Ok(data
        .into_iter()
        .zip(reference)
        .map(|(datum, reference)| datum.with("ref_logprobs", reference))
        .collect())
}

struct Evaluation {
    /// Share of pairs whose true sentence has the higher logprob per token.
    accuracy: f64,
    /// Mean difference of those logprobs.
    margin: f64,
}

fn evaluate(training: &TrainingClient, data: &[Datum]) -> Result<Evaluation> {
    let logprobs = logprobs(training, data)?;
    let per_token: Vec<f64> =
        logprobs.iter().map(|row| mean(row.iter().map(|&x| x.into()))).collect();
    let margins = || per_token.chunks(2).map(|pair| pair[0] - pair[1]);
    Ok(Evaluation {
        accuracy: mean(margins().map(|margin| f64::from(margin > 0.0))),
        margin: mean(margins()),
    })
}
