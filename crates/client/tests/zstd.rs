//! Compressed requests, for servers that ask for them.
#![cfg(feature = "zstd")]

mod support;

use serde_json::json;
use support::{Fake, Request, datum, ok, status};
use tinsmith_client::{Dialect, LoraConfig, Loss, LossFn, TrainingClient};

/// A model on a server that may ask for compression, in a dialect.
fn training(fake: &Fake, is_asked_for: bool, dialect: Dialect) -> TrainingClient {
    let config = json!({"proto_compress_fwdbwd": is_asked_for});
    fake.script("config", [ok(config)]);
    let service = fake.builder().dialect(dialect).connect().unwrap();
    service.create_lora_training_client("tiny", &LoraConfig::rank(4)).unwrap()
}

fn encoding(request: &Request) -> Option<&str> {
    request.headers.get("content-encoding").map(String::as_str)
}

#[test]
fn both_passes_go_compressed_and_come_back_whole() {
    let fake = Fake::start();
    let training = training(&fake, true, Dialect::Protobuf);
    fake.script("forward_backward", [status(503, json!({}))]);
    let data = [datum(1000), datum(300)];
    let step = training
        .forward_backward_custom(&data, |batch| Ok(Loss::new(batch.logprobs().sum() * 2.0)));
    let output = step.unwrap().result().unwrap().output;
    let rows: Vec<usize> =
        output.loss_fn_outputs.iter().map(|output| output["logprobs"].elem_count()).collect();
    assert_eq!(rows, [1000, 300]);
    let sent = fake.requests("forward_backward");
    assert_eq!(sent[0].bytes, sent[1].bytes, "a repetition");
    for request in &sent {
        assert_eq!(encoding(request), Some("zstd"));
        // Tokens and targets that count up take 12 bytes each as they are.
        assert!(request.bytes.len() < 1300 * 12, "{}", request.bytes.len());
    }
    let backward = sent[2].pass();
    for (sent, given) in backward.data.iter().zip(&data) {
        assert_eq!(sent.model_input, given.model_input);
        assert_eq!(sent.input("target_tokens"), given.input("target_tokens"));
        let weights = sent.input("weights").unwrap().as_f32().unwrap();
        assert!(weights.iter().all(|&weight| weight == -2.0));
    }
}

#[test]
fn nothing_else_goes_compressed() {
    for (is_asked_for, dialect) in [(false, Dialect::Protobuf), (true, Dialect::Json)] {
        let fake = Fake::start();
        let training = training(&fake, is_asked_for, dialect);
        let pass = training.forward_backward(&[datum(1000)], LossFn::CrossEntropy, None);
        pass.unwrap().result().unwrap();
        assert_eq!(encoding(&fake.requests("forward_backward")[0]), None);
        assert_eq!(encoding(&fake.requests("create_model")[0]), None);
    }
}
