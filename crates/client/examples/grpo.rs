//! Reinforcement learning with a custom GRPO loss: the model samples continuations of a book's
//! sentences, each is scored, and what scored better than the others of its group becomes likelier.
//!
//! `cargo run --release --example grpo`. Curves: `target/grpo.svg`, `target/grpo.jsonl`.

mod common;

use std::collections::HashSet;

use anyhow::{Context, Result};
use common::{Curves, Progress, Rng, Service, Split, Table, continuation, mean, start_of_text};
use tinsmith_client::losses::{
    Aggregation, Clip, GrpoConfig, advantages::centered, aggregate, clipped, grpo, sample_entropy,
};
use tinsmith_client::{
    AdamParams, Datum, Loss, ModelInput, SampledSequence, SamplingClient, SamplingParams,
};
use tinsmith_trainer::tokenizer::{decode, encode};

const STEPS: usize = 40;
const PROMPTS_PER_STEP: usize = 8;
const GROUP: u32 = 8;
const NEW_TOKENS: u32 = 24;
const HELD_OUT_PROMPTS: usize = 32;

fn main() -> Result<()> {
    let split = Split::load();
    let prompts = |sentences: &[String]| {
        sentences.iter().map(|sentence| prompt(sentence)).collect::<Vec<_>>()
    };
    let (train, held_out) = (prompts(&split.train), prompts(&split.held_out[..HELD_OUT_PROMPTS]));
    println!("{} prompts to train on, {} held out\n", train.len(), held_out.len());

    let book = pairs_of(&split.train);
    let service = Service::connect()?;
    let training = &service.training;
    let mut sampler = training.save_weights_for_sampler(None)?.result()?;
    let before = mean_reward(&sampler, &held_out, &book)?;
    println!("a sample before: {:?}\n", sample_text(&sampler, &held_out[0])?);

    let mut curves = Curves::create("grpo", &["reward", "entropy"])?;
    let progress = Progress::new("grpo", STEPS);
    let mut rng = Rng::new(0);
    let mut last = None;
    let adam = AdamParams::default().learning_rate(5e-3);
    for step in 0..STEPS {
        let chosen: Vec<&Vec<u32>> =
            (0..PROMPTS_PER_STEP).map(|_| &train[rng.below(train.len())]).collect();
        let groups = sample(&sampler, &chosen, GROUP, step as u64)?;

        let (mut batch, mut rewards) = (Vec::new(), Vec::new());
        for (prompt, group) in chosen.iter().zip(&groups) {
            let scores: Vec<f64> =
                group.iter().map(|sequence| reward(&sequence.tokens, &book)).collect();
            for (sequence, advantage) in group.iter().zip(centered(&scores)) {
                batch.push(rollout(prompt, sequence, advantage)?);
            }
            rewards.extend(scores);
        }

        let pass = training.forward_backward_custom(&batch, |batch| {
            let (logprobs, sampled) = (batch.logprobs(), batch.input("logprobs")?);
            let (advantages, weights) = (batch.values("advantage")?, batch.input("weights")?);
            let loss =
                grpo(&logprobs, &sampled, None, &advantages, &weights, &GrpoConfig::default());
            let outside = clipped(&logprobs, &sampled, Clip::eps(0.2));
            Ok(Loss::new(loss)
                .metric("entropy", sample_entropy(&logprobs, &weights))
                .metric("clipped", aggregate(&outside, &weights, Aggregation::TokenMean)))
        })?;
        let optim = training.optim_step(&adam)?;
        let report = pass.result()?.report;
        optim.result()?;
        sampler = training.save_weights_for_sampler(None)?.result()?;

        let shown = [mean(rewards), report.metrics["entropy"]];
        curves.push(&shown)?;
        progress.step(&[("reward", shown[0]), ("entropy", shown[1])]);
        last = Some(report);
    }
    progress.finish();
    if let Some(report) = last {
        println!("\nthe last step\n{report}");
    }

    let after = mean_reward(&sampler, &held_out, &book)?;
    println!("\na sample after: {:?}", sample_text(&sampler, &held_out[0])?);
    println!(
        "\nheld out, {} prompts\n{}",
        held_out.len(),
        Table::default().row("mean reward", before, after)
    );
    println!("curves: {}", curves.finish()?.display());
    println!("mean reward: {before:.2} -> {after:.2}");
    Ok(())
}

/// The first three words of a sentence.
fn prompt(sentence: &str) -> Vec<u32> {
    let words: Vec<&str> = sentence.split(' ').take(3).collect();
    [start_of_text(), encode(&(words.join(" ") + " "))].concat()
}

/// How much a continuation looks like the book: a quarter of it the share of its bytes that are
/// small letters or blanks, the rest the number of different pairs of such bytes that occur in the
/// book, over the number of all its pairs. So writing one good pair again and again does not pay.
fn reward(tokens: &[u32], book: &HashSet<[u32; 2]>) -> f64 {
    let plain = |token: &u32| matches!(u8::try_from(*token), Ok(b'a'..=b'z' | b' '));
    let pairs: HashSet<[u32; 2]> = tokens.windows(2).map(|pair| [pair[0], pair[1]]).collect();
    let known = pairs.iter().filter(|pair| pair.iter().all(plain) && book.contains(*pair)).count();
    let letters = tokens.iter().filter(|token| plain(token)).count();
    0.25 * letters as f64 / NEW_TOKENS as f64 + 0.75 * known as f64 / (NEW_TOKENS - 1) as f64
}

/// The pairs of bytes, one after the other, in the sentences trained on.
fn pairs_of(sentences: &[String]) -> HashSet<[u32; 2]> {
    let pairs = sentences.iter().flat_map(|sentence| sentence.as_bytes().windows(2));
    pairs.map(|pair| [pair[0].into(), pair[1].into()]).collect()
}

/// `count` continuations of each prompt.
fn sample(
    sampler: &SamplingClient,
    prompts: &[&Vec<u32>],
    count: u32,
    seed: u64,
) -> Result<Vec<Vec<SampledSequence>>> {
    let submit = |(index, prompt): (usize, &&Vec<u32>)| {
        let params = SamplingParams {
            seed: Some(seed * 1000 + index as u64),
            ..SamplingParams::max_tokens(NEW_TOKENS)
        };
        sampler.sample(&ModelInput::from_tokens(prompt.as_slice()), count, &params)
    };
    let submitted = prompts.iter().enumerate().map(submit).collect::<Result<Vec<_>, _>>()?;
    submitted.into_iter().map(|future| Ok(future.result()?.sequences)).collect()
}

fn mean_reward(
    sampler: &SamplingClient,
    prompts: &[Vec<u32>],
    book: &HashSet<[u32; 2]>,
) -> Result<f64> {
    let groups = sample(sampler, &prompts.iter().collect::<Vec<_>>(), 4, 1)?;
    Ok(mean(groups.iter().flatten().map(|sequence| reward(&sequence.tokens, book))))
}

fn sample_text(sampler: &SamplingClient, prompt: &Vec<u32>) -> Result<String> {
    let groups = sample(sampler, &[prompt], 1, 2)?;
    Ok(decode(&[prompt.as_slice(), &groups[0][0].tokens].concat()))
}

/// A sampled continuation, with the logprobs that it was sampled at and what it was better than its
/// group by.
fn rollout(prompt: &[u32], sequence: &SampledSequence, advantage: f64) -> Result<Datum> {
    let sampled =
        sequence.logprobs.as_ref().context("the server gave no logprobs of the sample")?;
    let logprobs = [vec![0.0; prompt.len() - 1], sampled.clone()].concat();
    Ok(continuation(prompt, &sequence.tokens)
        .with("logprobs", logprobs)
        .with("advantage", vec![advantage as f32]))
}
