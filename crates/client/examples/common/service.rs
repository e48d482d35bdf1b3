//! Where the examples train, and how text becomes data.

use anyhow::{Context, Result};
use tinsmith_client::{
    Datum, LoraConfig, LossFn, ModelInput, ServiceClient, StderrProgress, TrainingClient,
};
use tinsmith_trainer::Trainer;
use tinsmith_trainer::tokenizer::{END_OF_TEXT, encode};

/// A model in training on the server that `TINKER_BASE_URL` names, or without one on a trainer in
/// this process.
///
/// The built-in models read bytes. On another server the same bytes are token ids like any others:
/// the examples run there too, but what they train is of no use.
pub struct Service {
    pub training: TrainingClient,
    client: ServiceClient,
    model: String,
    /// Dropped after the clients, whose session it serves.
    _embedded: Option<Trainer>,
}

impl Service {
    pub fn connect() -> Result<Service> {
        let (client, model, embedded) = if std::env::var_os("TINKER_BASE_URL").is_some() {
            let client = ServiceClient::builder().progress(StderrProgress).connect()?;
            let models = client.server_capabilities()?.supported_models;
            let model = models.first().context("the server offers no model")?;
            (client, model.model_name.clone(), None)
        } else {
            let trainer = Trainer::spawn()?;
            let client = ServiceClient::builder()
                .base_url(trainer.url())
                .api_key("tml-embedded")
                .progress(StderrProgress)
                .connect()?;
            (client, "tiny-qwen3".to_owned(), Some(trainer))
        };
        Ok(Service {
            training: client.create_lora_training_client(&model, &LoraConfig::rank(8).seed(0))?,
            client,
            model,
            _embedded: embedded,
        })
    }

    /// Another adapter on the same base model, untrained.
    pub fn another(&self) -> Result<TrainingClient> {
        let lora = LoraConfig::rank(8).seed(1);
        Ok(self.client.create_lora_training_client(&self.model, &lora)?)
    }
}

/// The prompt that every text begins after.
pub fn start_of_text() -> Vec<u32> {
    vec![END_OF_TEXT]
}

/// Each byte of `text`, to be predicted from those before it.
pub fn datum(text: &str) -> Datum {
    continuation(&start_of_text(), &encode(text))
}

/// Each token of `answer`, to be predicted from those before it and from `prompt`, which must not
/// be empty.
pub fn continuation(prompt: &[u32], answer: &[u32]) -> Datum {
    let tokens = [prompt, answer].concat();
    let targets: Vec<i64> = tokens[1..].iter().map(|&token| token.into()).collect();
    let mut weights = vec![0.0f32; prompt.len() - 1];
    weights.resize(targets.len(), 1.0);
    Datum::new(ModelInput::from_tokens(&tokens[..tokens.len() - 1]))
        .with("target_tokens", targets)
        .with("weights", weights)
}

/// The model's logprob of every target token, one list a datum.
pub fn logprobs(training: &TrainingClient, data: &[Datum]) -> Result<Vec<Vec<f32>>> {
    let output = training.forward(data, LossFn::CrossEntropy, None)?.result()?;
    let of_datum = output
        .loss_fn_outputs
        .iter()
        .map(|outputs| outputs.get("logprobs")?.as_f32().map(<[f32]>::to_vec));
    of_datum.collect::<Option<_>>().context("the server gave no logprobs")
}

/// The mean of `values`.
pub fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for value in values {
        sum += value;
        count += 1.0;
    }
    sum / count
}
