//! A small model and a few lines to train it on.

use tinsmith_client::{
    AdamParams, Datum, Dialect, LoraConfig, ModelInput, Result, SampledSequence, ServiceClient,
    TrainingClient,
};
use tinsmith_trainer::{Trainer, tokenizer};

use crate::StillClock;

/// The base model of the tests.
pub const BASE_MODEL: &str = "tiny-qwen3";

/// A session with the trainer at `url`, whose waits take no time.
///
/// # Errors
/// As `ServiceClientBuilder::connect`.
pub fn connect(url: &str) -> Result<ServiceClient> {
    ServiceClient::builder().base_url(url).clock(StillClock::default()).connect()
}

/// A session and an adapter that is the same each time: rank 4, seed 7.
///
/// # Errors
/// As `ServiceClient::create_lora_training_client`.
pub fn train(url: &str) -> Result<TrainingClient> {
    connect(url)?.create_lora_training_client(BASE_MODEL, &LoraConfig::rank(4).seed(7))
}

/// As [`train`], with requests that a test can read.
///
/// # Errors
/// As [`train`].
pub fn train_in_json(url: &str) -> Result<TrainingClient> {
    let service = ServiceClient::builder().base_url(url).clock(StillClock::default());
    let service = service.dialect(Dialect::Json).connect()?;
    service.create_lora_training_client(BASE_MODEL, &LoraConfig::rank(4).seed(7))
}

/// Next-token prediction of `text`, one token a byte. The weights are fractions, and 0 on the first
/// two tokens.
pub fn datum(text: &str) -> Datum {
    let tokens = tokenizer::encode(text);
    let targets: Vec<i64> = tokens[1..].iter().map(|&token| token.into()).collect();
    let weight = |i: usize| if i < 2 { 0.0 } else { 1.0 / (i % 4 + 1) as f32 };
    let weights: Vec<f32> = (0..targets.len()).map(weight).collect();
    Datum::new(ModelInput::from_tokens(&tokens[..tokens.len() - 1]))
        .with("target_tokens", targets)
        .with("weights", weights)
}

/// Four lines of different lengths.
pub fn data() -> Vec<Datum> {
    ["a tin whistle", "the smith", "solder and flux hold", "tin"].map(datum).into()
}

/// A step large enough for ten of them to change the model visibly.
pub fn adam() -> AdamParams {
    AdamParams::default().learning_rate(1e-2)
}

/// The adapter's weights on the trainer, all in one row.
///
/// # Errors
/// As `Trainer::weights`.
pub fn weights(trainer: &Trainer, model_id: &str) -> tinsmith_trainer::Result<Vec<f32>> {
    let mut all = Vec::new();
    for (_, tensor) in trainer.weights(model_id)? {
        all.extend(tensor.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(all)
}

/// The sequences without the names that a server gives them, which are others each time.
pub fn unnamed(mut sequences: Vec<SampledSequence>) -> Vec<SampledSequence> {
    for sequence in &mut sequences {
        sequence.sequence_id = None;
    }
    sequences
}
