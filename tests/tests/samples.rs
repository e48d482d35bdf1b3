//! Samples are the same, however they are waited for.

use tinsmith_client::{ModelInput, SampledSequence, SamplingParams, wire::ClientConfig};
use tinsmith_tests::{Action, BASE_MODEL, Proxy, connect, unnamed};
use tinsmith_trainer::{Trainer, tokenizer};

/// Eight samples, and how often the trainer was asked which of them have ended.
fn samples(config: ClientConfig) -> (Vec<Vec<SampledSequence>>, usize) {
    let trainer = Trainer::builder().client_config(config).spawn().unwrap();
    let proxy = Proxy::before(&trainer.url(), |_| Action::Pass).unwrap();
    let service = connect(proxy.url()).unwrap();
    let sampler = service.create_sampling_client(BASE_MODEL).unwrap();
    let prompt = ModelInput::from_tokens(tokenizer::encode("a tin whistle"));
    let futures: Vec<_> = (0..8)
        .map(|seed| {
            let params = SamplingParams { seed: Some(seed), ..SamplingParams::max_tokens(6) };
            sampler.sample(&prompt, 1, &params).unwrap()
        })
        .collect();
    let sequences =
        futures.into_iter().rev().map(|future| unnamed(future.result().unwrap().sequences));
    let sequences = sequences.collect();
    (sequences, proxy.requests("retrieve_futures").len())
}

#[test]
fn one_question_for_all_brings_what_a_question_for_each_brings() {
    let (each, asked) = samples(ClientConfig::default());
    assert_eq!(asked, 0);
    let (together, asked) =
        samples(ClientConfig { sample_use_retrieve_futures: true, ..ClientConfig::default() });
    assert_eq!(together, each);
    // One at least, and not one for each poll of each sample.
    assert!((1..=8).contains(&asked), "{asked}");
}
