//! What the long tests train on: data by seed and step, and a loss.

use std::time::Duration;

use anyhow::Result;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tinsmith_client::{Batch, Datum, Loss, RetryConfig, TrainingClient};
use tinsmith_trainer::tokenizer;

use crate::{adam, datum};

/// Chance of one step of a run.
pub fn dice(seed: u64, step: usize) -> ChaCha8Rng {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    dice.set_stream(step as u64);
    dice
}

/// A line of letters, each with the same advantage.
pub fn line(dice: &mut impl Rng) -> Datum {
    let length = dice.random_range(4..12);
    let text: String = (0..length).map(|_| dice.random_range('a'..='z')).collect();
    let advantage = dice.random_range(-1.0f32..1.0);
    datum(&text).with("advantages", vec![advantage; tokenizer::encode(&text).len() - 1])
}

/// A policy gradient with a curb, so that long runs stay finite.
pub fn loss(batch: &Batch) -> Result<Loss> {
    let logprobs = batch.logprobs();
    let advantages = batch.input("advantages")?;
    Ok(Loss::new(-(&logprobs * advantages).mean() + logprobs.square().mean() * 0.1))
}

/// A custom loss on a few lines and an optimizer step; gives the loss.
pub fn step(training: &TrainingClient, seed: u64, step: usize) -> Result<f64> {
    let mut dice = dice(seed, step);
    let rows = dice.random_range(1..=3);
    let data: Vec<Datum> = (0..rows).map(|_| line(&mut dice)).collect();
    let custom = training.forward_backward_custom(&data, loss)?;
    let optim = training.optim_step(&adam())?;
    let loss = custom.report().loss;
    custom.result()?;
    optim.result()?;
    Ok(loss)
}

/// Limits that no fault reaches: time is the still clock's, and threads share it.
pub fn endless() -> RetryConfig {
    let forever = Duration::from_secs(1_000_000_000);
    RetryConfig::default()
        .start_timeout(forever)
        .submit_timeout(forever)
        .result_timeout(forever)
        .heartbeat_warning(forever)
        .billing_pause(forever)
        .submit_attempts(u32::MAX)
        .heartbeat_period(Duration::from_millis(500))
}
