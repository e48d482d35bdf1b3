//! Distillation as a custom loss: a student learns, at every position, a teacher's probabilities of
//! its likeliest tokens.
//!
//! The teacher is an adapter that this example first trains on the book; the student starts anew
//! and never sees which byte the book has, only what the teacher expects.
//! `cargo run --release --example distill`. Curves: `target/distill.svg`, `target/distill.jsonl`.

mod common;

use anyhow::{Context, Result};
use common::{Curves, Progress, Rng, Service, Split, Table, datum, logprobs, mean, start_of_text};
use tinsmith_client::losses::{target_cross_entropy, target_forward_kl};
use tinsmith_client::{
    AdamParams, Datum, Loss, LossFn, ModelInput, SampleOptions, SampleResponse, SamplingClient,
    SamplingParams, TensorData, TrainingClient,
};
use tinsmith_trainer::tokenizer::encode;

const TEACHER_STEPS: usize = 60;
const STEPS: usize = 60;
const SENTENCES_PER_STEP: usize = 12;
const TOP_K: usize = 8;
const HELD_OUT: usize = 48;

fn main() -> Result<()> {
    let split = Split::load();
    let (train, held_out) = (&split.train, &split.held_out[..HELD_OUT]);
    println!(
        "{} sentences to train on, {} held out; the teacher's {TOP_K} likeliest tokens each\n",
        train.len(),
        held_out.len()
    );

    let service = Service::connect()?;
    let student = service.another()?;
    let mut rng = Rng::new(0);
    let teacher = teach(&service.training, train, &mut rng)?;
    let held_out_targets = targets(&teacher, held_out)?;
    let before = (kl(&student, &held_out_targets)?, nll_per_byte(&student, held_out)?);

    let mut curves = Curves::create("distill", &["kl", "cross entropy"])?;
    let progress = Progress::new("distill", STEPS);
    let adam = AdamParams::default().learning_rate(5e-3);
    for _ in 0..STEPS {
        let batch = targets(&teacher, &some(train, &mut rng))?;
        let step = student.forward_backward_custom(&batch, |batch| {
            let (lp, p) = (batch.logprobs(), batch.input("teacher")?);
            let loss = target_cross_entropy(&lp, &p).mean();
            Ok(Loss::new(loss).metric("kl", target_forward_kl(&lp, &p).mean()))
        })?;
        let optim = student.optim_step(&adam)?;
        let metrics = step.result()?.output.metrics;
        optim.result()?;

        let shown = [metrics["kl"], metrics["loss:sum"]];
        curves.push(&shown)?;
        progress.step(&[("kl", shown[0]), ("cross entropy", shown[1])]);
    }
    progress.finish();

    let after = (kl(&student, &held_out_targets)?, nll_per_byte(&student, held_out)?);
    let table = Table::default().row("KL to the teacher, nats", before.0, after.0).row(
        "nll per byte, nats",
        before.1,
        after.1,
    );
    println!("\nheld out, {} sentences\n{table}", held_out.len());
    println!("the teacher's nll per byte: {:.3}", nll_per_byte(&service.training, held_out)?);
    println!("curves: {}", curves.finish()?.display());
    println!("held-out KL to the teacher: {:.2} -> {:.2}", before.0, after.0);
    Ok(())
}

/// Makes a teacher: plain cross entropy on the book.
fn teach(training: &TrainingClient, train: &[String], rng: &mut Rng) -> Result<SamplingClient> {
    let progress = Progress::new("teach", TEACHER_STEPS);
    for _ in 0..TEACHER_STEPS {
        let batch: Vec<Datum> = some(train, rng).iter().map(|text| datum(text)).collect();
        let step = training.forward_backward(&batch, LossFn::CrossEntropy, None)?;
        let optim = training.optim_step(&AdamParams::default().learning_rate(5e-3))?;
        let loss = step.result()?.metrics["loss:sum"];
        optim.result()?;
        progress.step(&[("loss", loss)]);
    }
    progress.finish();
    Ok(training.save_weights_for_sampler(None)?.result()?)
}

fn some(texts: &[String], rng: &mut Rng) -> Vec<String> {
    (0..SENTENCES_PER_STEP).map(|_| texts[rng.below(texts.len())].clone()).collect()
}

/// For each text the teacher's likeliest tokens at each position, and their probabilities, which
/// add up to 1.
fn targets(teacher: &SamplingClient, texts: &[String]) -> Result<Vec<Datum>> {
    let options =
        SampleOptions::new(SamplingParams::max_tokens(1)).topk_prompt_logprobs(TOP_K as u32);
    let ask = |text: &String| {
        let tokens = [start_of_text(), encode(text)].concat();
        let asked = teacher.sample_with(&ModelInput::from_tokens(tokens.as_slice()), &options)?;
        Ok((tokens, asked))
    };
    let asked = texts.iter().map(ask).collect::<Result<Vec<_>>>()?;
    asked.into_iter().map(|(tokens, asked)| from_teacher(&tokens, asked.result()?)).collect()
}

fn from_teacher(tokens: &[u32], answer: SampleResponse) -> Result<Datum> {
    let rows = answer
        .topk_prompt_logprobs
        .context("the server does not tell the likeliest tokens of a prompt")?;
    let (mut ids, mut p) = (Vec::new(), Vec::new());
    for row in rows.into_iter().skip(1) {
        let row = row.context("the server left out a position")?;
        let sum: f32 = row.iter().map(|(_, logprob)| logprob.exp()).sum();
        ids.push(row.iter().map(|&(id, _)| i64::from(id)).collect::<Vec<_>>());
        p.push(row.iter().map(|(_, logprob)| logprob.exp() / sum).collect::<Vec<_>>());
    }
    Ok(Datum::new(ModelInput::from_tokens(&tokens[..tokens.len() - 1]))
        .with("target_tokens", TensorData::from_rows(&ids)?)
        .with("teacher", TensorData::from_rows(&p)?))
}

/// The mean over positions of `Σ p (ln p - l)`.
fn kl(student: &TrainingClient, targets: &[Datum]) -> Result<f64> {
    let student = logprobs(student, targets)?;
    let teacher = targets.iter().map(|datum| datum.input("teacher")?.as_f32());
    let teacher: Option<Vec<&[f32]>> = teacher.collect();
    let teacher = teacher.context("the targets have the teacher's probabilities")?;
    let rows = student.iter().zip(teacher).flat_map(|(l, p)| {
        let rows = l.chunks(TOP_K).zip(p.chunks(TOP_K));
        rows.map(|(l, p)| l.iter().zip(p).map(|(l, p)| f64::from(p * (p.ln() - l))).sum())
    });
    Ok(mean(rows))
}

fn nll_per_byte(training: &TrainingClient, texts: &[String]) -> Result<f64> {
    let data: Vec<Datum> = texts.iter().map(|text| datum(text)).collect();
    let logprobs = logprobs(training, &data)?;
    Ok(-mean(logprobs.into_iter().flatten().map(f64::from)))
}
