//! The tour of losses that are wrong, in the guide: each loss on the page is a file here, and what
//! the page says that it prints is what it prints.

mod both_orders;
mod data;
mod detached_part;
mod detached_whole;
mod double;
mod forgotten;
mod nan_gradient;
mod nan_nowhere;
mod nan_value;
mod shifted;
mod sign_error;
mod too_long;
mod two_terms;

use std::fmt::{Display, Write};

use both_orders::both_orders;
use data::{data, logprobs};
use serde_json::{Value, json};
use tinsmith_client::{
    Batch, Datum, Loss, LossCheck, LossFn, Result, StepReport, TensorData, check_loss_at,
};
use tinsmith_tests::{Action, Proxy, Reply, adam, datum, train, train_in_json};
use tinsmith_trainer::Trainer;

const PAGE: &str = include_str!("../../../docs/src/when-training-goes-wrong.md");

/// The page has this, in a block of its own.
#[track_caller]
fn shown(text: impl Display) {
    let text = text.to_string();
    let block = format!("\n{}\n```", text.trim_end());
    assert!(PAGE.contains(&block), "the page does not show:\n{text}");
}

/// All of a report but its times and bytes.
fn table(report: &StepReport) -> String {
    let report = report.to_string();
    let is_measured = |line: &&str| ["time ", "bodies "].iter().any(|name| line.starts_with(name));
    let lines = report.lines().filter(|line| !is_measured(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn check(logprobs: &[TensorData], loss: fn(&Batch) -> anyhow::Result<Loss>) -> Result<LossCheck> {
    check_loss_at(&data(), logprobs, loss)
}

/// The model is certain of the second token of the first prompt.
fn certain() -> [TensorData; 2] {
    let [_, second] = logprobs();
    [vec![0f32, -1.0, -2.0, -0.5].into(), second]
}

#[test]
fn the_page_shows_the_code_that_runs() {
    for code in [
        include_str!("data.rs"),
        include_str!("both_orders.rs"),
        include_str!("sign_error.rs"),
        include_str!("too_long.rs"),
        include_str!("shifted.rs"),
        include_str!("nan_value.rs"),
        include_str!("nan_gradient.rs"),
        include_str!("nan_nowhere.rs"),
        include_str!("detached_whole.rs"),
        include_str!("detached_part.rs"),
        include_str!("forgotten.rs"),
        include_str!("double.rs"),
    ] {
        shown(code);
    }
}

#[test]
fn a_sign_error() {
    shown(six_steps(sign_error::loss));
    let right = |batch: &Batch| {
        let (lp, reference) = (batch.logprobs(), batch.input("ref_logprobs")?);
        let reward = ((lp - reference).sum_per_seq() * 0.1).reshape(&[batch.len() / 2, 2]);
        let margin = reward.narrow(1, 0, 1) - reward.narrow(1, 1, 1);
        Ok(Loss::new(-margin.log_sigmoid().mean()).metric("margin", margin.mean()))
    };
    shown(six_steps(right));
    shown(both_orders(sign_error::loss).unwrap());
}

/// Four pairs, the model's own logprobs as the reference: a line a step.
fn six_steps(loss: fn(&Batch) -> anyhow::Result<Loss>) -> String {
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    let texts = ["a tin whistle", "whistle tin a", "the smith", "smith the", "solder holds"];
    let texts = texts.into_iter().chain(["holds solder", "flux and tin", "tin flux and"]);
    let plain: Vec<Datum> = texts.map(datum).collect();
    let pass = training.forward(&plain, LossFn::CrossEntropy, None).unwrap();
    let outputs = pass.result().unwrap().loss_fn_outputs;
    let with_reference = |(datum, output): (Datum, &_)| {
        let output: &std::collections::BTreeMap<String, TensorData> = output;
        datum.with("ref_logprobs", output["logprobs"].clone())
    };
    let data: Vec<Datum> = plain.into_iter().zip(&outputs).map(with_reference).collect();
    let mut lines = String::new();
    for step in 1..=6 {
        let custom = training.forward_backward_custom(&data, loss).unwrap();
        let optim = training.optim_step(&adam()).unwrap();
        let report = custom.result().unwrap().report;
        optim.result().unwrap();
        let (loss, margin) = (report.loss, report.metrics["margin"]);
        writeln!(lines, "step {step}  loss {loss:5.2}  margin {margin:4.1}").unwrap();
    }
    lines
}

#[test]
fn a_server_that_rescales_weights() {
    let divide = |weights: &[f64]| weights.iter().sum::<f64>().max(1e-9);
    shown(table(&served(shifted::loss, divide)));
}

#[test]
fn a_report_and_how_to_read_it() {
    const PAGE: &str = include_str!("../../../docs/src/step-report.md");
    let report = table(&served(two_terms::loss, |_| 1.0));
    for text in [include_str!("two_terms.rs"), &report] {
        assert!(
            PAGE.contains(&format!("\n{}\n```", text.trim_end())),
            "the page does not show:\n{text}"
        );
    }
}

/// The report of a step on a server that answers with the logprobs of the page and divides each
/// sequence's loss by this.
fn served(
    loss: fn(&Batch) -> anyhow::Result<Loss>,
    divisor: impl Fn(&[f64]) -> f64 + Send + 'static,
) -> StepReport {
    let trainer = Trainer::spawn().unwrap();
    let mut weights = Vec::new();
    let proxy = Proxy::before(&trainer.url(), move |request| {
        if request.call() == "forward_backward" {
            weights = sent_weights(&request.json());
        }
        match request.headers.get("x-tinker-request-type").map(String::as_str) {
            Some("Forward") => Action::Instead(Reply::json(&answer(None))),
            Some("ForwardBackward") => {
                let loss = server_loss(&weights, &divisor);
                Action::Instead(Reply::json(&answer(Some(loss))))
            }
            _ => Action::Pass,
        }
    });
    let training = train_in_json(proxy.unwrap().url()).unwrap();
    let step = training.forward_backward_custom(&data(), loss).unwrap();
    step.result().unwrap().report
}

/// The logprobs of the page, and what the server says its loss is.
fn answer(loss: Option<f64>) -> Value {
    let output = |lp: TensorData| json!({"logprobs": {"dtype": "float32", "shape": lp.shape(), "data": lp.as_f32()}});
    let metrics = loss.map_or(json!({}), |loss| json!({"loss:sum": loss}));
    json!({"loss_fn_outputs": logprobs().map(output), "metrics": metrics})
}

fn server_loss(weights: &[Vec<f64>], divisor: impl Fn(&[f64]) -> f64) -> f64 {
    let of_sequence = |(weights, lp): (&Vec<f64>, &TensorData)| {
        let lp = lp.as_f32().unwrap().iter();
        let terms = weights.iter().zip(lp).map(|(w, &lp)| -w * f64::from(lp));
        terms.sum::<f64>() / divisor(weights)
    };
    weights.iter().zip(&logprobs()).map(of_sequence).sum()
}

fn sent_weights(body: &Value) -> Vec<Vec<f64>> {
    let weights = |datum: &Value| {
        let numbers = datum["loss_fn_inputs"]["weights"]["data"].as_array().unwrap();
        numbers.iter().map(|w| w.as_f64().unwrap()).collect()
    };
    let data = body["forward_backward_input"]["data"].as_array().unwrap();
    data.iter().map(weights).collect()
}

#[test]
fn inputs_of_another_length() {
    let [first, second] = data();
    let data = [
        first.with("token_rewards", vec![0f32, 0.0, 1.0, 1.0, 1.0]),
        second.with("token_rewards", vec![0f32, 1.0, 1.0]),
    ];
    shown(too_long::check(&data).unwrap_err());
}

#[test]
fn inputs_of_the_right_length_one_place_off() {
    let [first, second] = data();
    let misplaced: [Datum; 2] = [
        first.with("logprobs", vec![0f32, 0.0, -1.0, -2.0]),
        second.with("logprobs", vec![0f32, -1.5]),
    ];
    let off = check_loss_at(&misplaced, &logprobs(), shifted::loss).unwrap();
    shown(table(&off.report));
    let right = check(&logprobs(), shifted::loss).unwrap();
    shown(table(&right.report));
}

#[test]
fn nan_at_a_masked_token() {
    shown(check(&certain(), nan_value::loss).unwrap_err());
    shown(check(&certain(), nan_gradient::loss).unwrap_err());
    let good = check(&certain(), nan_nowhere::loss).unwrap();
    // -ln(1 - p) of the five tokens of the answers.
    let by_hand = [1.0f64, 2.0, 0.5, 1.5, 0.25].map(|x| -(1.0 - (-x).exp()).ln());
    assert!((good.report.loss - by_hand.iter().sum::<f64>()).abs() < 1e-5);
}

#[test]
fn detached() {
    shown(check(&logprobs(), detached_whole::loss).unwrap_err());
    let moved = [TensorData::from(vec![-3f32, -0.5, -2.0, -0.5]), vec![-1.5f32, -0.25].into()];
    shown(detached_part::check(&data(), &moved).unwrap_err());
}

#[test]
fn a_forgotten_datum() {
    shown(check(&logprobs(), forgotten::loss).unwrap_err());
}

#[test]
fn normalized_twice() {
    let check = check(&logprobs(), double::loss).unwrap();
    shown(table(&check.report));
}
