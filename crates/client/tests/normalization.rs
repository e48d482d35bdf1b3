//! Gradients divided by what they were gathered over, here and on the server.

mod support;

use serde_json::json;
use support::{Fake, datum};
use tinsmith_client::{
    AdamParams, CustomStep, Error, GradAccumulationNormalization as By, Loss, OptimStep, Result,
    TrainingClient,
};

/// Answers every datum of three tokens with the logprobs -1, -2 and -3.
fn fake() -> Fake {
    let fake = Fake::start();
    for (call, input) in
        [("forward", "forward_input"), ("forward_backward", "forward_backward_input")]
    {
        fake.on(call, move |request| {
            let n = request.body()[input]["data"].as_array().unwrap().len();
            let lp =
                json!({"logprobs": {"dtype": "float32", "shape": [3], "data": [-1.0, -2.0, -3.0]}});
            json!({"loss_fn_outputs": vec![lp; n], "metrics": {}})
        });
    }
    fake
}

/// The gradient of `Σ l²` where l is below -1.5, `2 l`, and 0 elsewhere: two tokens of each of two
/// sequences.
fn step(training: &TrainingClient, by: By) -> Result<CustomStep> {
    training.forward_backward_custom(&[datum(3), datum(3)], |batch| {
        let lp = batch.logprobs();
        let chosen = lp.lt(-1.5).map(|mask| mask.to_dtype(lp.values().dtype()));
        Ok(Loss::new((lp.square() * chosen).sum()).normalize(by))
    })
}

#[test]
fn weights_are_the_negative_gradient_over_the_count() {
    for (by, count) in [(By::None, 1.0), (By::NumLossTokens, 4.0), (By::NumSequences, 2.0)] {
        let fake = fake();
        let report = step(&fake.training(), by).unwrap().result().unwrap().report;
        let body = fake.requests("forward_backward")[0].body();
        for datum in body["forward_backward_input"]["data"].as_array().unwrap() {
            let sent = &datum["loss_fn_inputs"]["weights"]["data"];
            assert_eq!(*sent, json!([0.0, 4.0 / count, 6.0 / count]), "{by:?}");
        }
        // 2 (4 + 9), whatever the gradient is divided by.
        assert_eq!((report.loss, report.gradient.max_abs), (26.0, 6.0 / count));
        let found = report.normalization.map(|found| (found.by, found.count as f64));
        assert_eq!(found, (by != By::None).then_some((by, count)));
        let told = report.to_string().contains("divided by");
        assert_eq!(told, by != By::None, "{report}");
    }
}

#[test]
fn the_server_must_not_divide_again() {
    let fake = fake();
    let training = fake.training();
    let divided =
        || OptimStep::from(AdamParams::default()).grad_accumulation_normalization(By::NumSequences);
    step(&training, By::NumLossTokens).unwrap().result().unwrap();
    let error = training.optim_step_with(&divided()).unwrap_err();
    assert!(matches!(error, Error::NormalizedTwice { pass: 2 }), "{error}");
    assert_eq!(fake.requests("optim_step").len(), 0);

    // Applied as it is it can be followed by one that the server divides.
    training.optim_step(&AdamParams::default()).unwrap().result().unwrap();
    step(&training, By::None).unwrap().result().unwrap();
    training.optim_step_with(&divided()).unwrap().result().unwrap();
    let sent = fake.requests("optim_step")[1].body();
    assert_eq!(sent["grad_accumulation_normalization"], "num_sequences");
}

#[test]
fn a_pass_that_failed_has_gathered_nothing() {
    let fake = fake();
    let training = fake.training();
    fake.on("forward_backward", |_| json!({"error": "out of memory", "category": "server"}));
    let failed = step(&training, By::NumLossTokens).unwrap().result();
    assert!(matches!(failed, Err(Error::RequestFailed { .. })), "{failed:?}");
    let again = step(&training, By::NumLossTokens).unwrap();
    assert_eq!(fake.requests("forward_backward").len(), 2);
    again.result().unwrap_err();
}

#[test]
fn two_means_are_not_added_up() {
    let fake = fake();
    let training = fake.training();
    step(&training, By::NumLossTokens).unwrap().result().unwrap();
    let error = step(&training, By::NumLossTokens).unwrap_err();
    assert!(matches!(error, Error::NormalizedApart { pass: 2 }), "{error}");
    assert_eq!(fake.requests("forward_backward").len(), 1);

    training.optim_step(&AdamParams::default()).unwrap().result().unwrap();
    step(&training, By::NumLossTokens).unwrap().result().unwrap();
}
