//! The same training in both dialects gives the same numbers.

use tinsmith_client::{
    AdamParams, Datum, Dialect, ForwardBackwardOutput, LoraConfig, Loss, LossFn, ModelInput,
    SamplingParams, ServiceClient, TensorData,
};
use tinsmith_trainer::Trainer;

/// Three tokens with two targets each; the weights leave most of them out.
fn matrix() -> Datum {
    let weights = TensorData::csr(vec![0.5f32], vec![0, 0, 1, 1], vec![1], [3, 2]).unwrap();
    Datum::new(ModelInput::from_tokens(vec![1, 2, 3]))
        .with("target_tokens", TensorData::new(vec![2i64, 9, 3, 8, 4, 7], &[3, 2]).unwrap())
        .with("weights", weights)
}

fn text(tokens: &[u32]) -> Datum {
    let targets: Vec<i64> = tokens.iter().map(|&id| i64::from(id) + 1).collect();
    Datum::new(ModelInput::from_tokens(tokens)).with("target_tokens", targets)
}

/// What a short training shows: a pass of each kind, a step, and what the model says then.
fn trained(url: &str, dialect: Dialect) -> Vec<ForwardBackwardOutput> {
    let service = ServiceClient::builder().base_url(url).dialect(dialect).connect().unwrap();
    let training =
        service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(4).seed(7)).unwrap();
    let mut seen = Vec::new();
    for data in [vec![matrix()], vec![text(&[5, 6, 7]), text(&[8])]] {
        let server = training.forward_backward(&data, LossFn::CrossEntropy, None);
        seen.push(server.unwrap().result().unwrap());
        let own = training
            .forward_backward_custom(&data, |batch| Ok(Loss::new(batch.logprobs().square().sum())));
        seen.push(own.unwrap().result().unwrap().output);
        let adam = AdamParams::default().learning_rate(1e-2);
        training.optim_step(&adam).unwrap().result().unwrap();
    }
    let last = training.forward(&[text(&[5, 6, 7])], LossFn::CrossEntropy, None);
    seen.push(last.unwrap().result().unwrap());
    let sampler = training.save_weights_for_sampler(None).unwrap();
    let sampler = sampler.result().unwrap();
    let prompt = ModelInput::from_tokens(vec![5, 6, 7]);
    let logprobs = sampler.compute_logprobs(&prompt).unwrap().result().unwrap();
    // The target after 5 is 6, the prompt's second token.
    let trained = seen.last().unwrap().loss_fn_outputs[0]["logprobs"].clone();
    let difference = logprobs[1].unwrap() - trained.as_f32().unwrap()[0];
    assert!(difference.abs() < 1e-5, "{logprobs:?} {trained:?}");
    let params = SamplingParams { seed: Some(3), ..SamplingParams::max_tokens(4) };
    let sample = sampler.sample(&prompt, 2, &params).unwrap();
    assert_eq!(sample.result().unwrap().sequences.len(), 2);
    seen
}

#[test]
fn the_same_training_in_both_dialects_gives_the_same_numbers() {
    let trainer = Trainer::spawn().unwrap();
    let json = trained(&trainer.url(), Dialect::Json);
    let protobuf = trained(&trainer.url(), Dialect::Protobuf);
    assert_eq!(json.len(), 5);
    for (json, protobuf) in json.iter().zip(&protobuf) {
        assert_eq!(json.loss_fn_outputs, protobuf.loss_fn_outputs);
        assert_eq!(json.metrics, protobuf.metrics);
    }
    // The weights were read as they were meant: half the second target of the second token.
    let logprobs = json[0].loss_fn_outputs[0]["logprobs"].as_f32().unwrap();
    assert_eq!(json[0].metrics["loss:sum"] as f32, -0.5 * logprobs[3]);
}
