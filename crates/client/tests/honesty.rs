//! What a step tells about itself when something is allowed and yet not right.

mod support;

use serde_json::json;
use support::{Fake, datum, ok, protobuf};
use tinsmith_client::{
    Error, ForwardBackwardOutput, Loss, ServerLoss, StepOutput, StepReport, Warning, grad::Var,
};

/// One step over two tokens, whose weights are -1 and 3, on a server that answers pass 2 with this.
fn step(reply: serde_json::Value) -> StepReport {
    try_step(&Fake::start(), reply, |loss| loss).unwrap()
}

/// The same, of a loss with further settings.
fn try_step(
    fake: &Fake,
    reply: serde_json::Value,
    set: impl FnOnce(Loss) -> Loss,
) -> Result<StepReport, Error> {
    fake.on("forward", |_| {
        let lp = json!({"logprobs": {"dtype": "float32", "shape": [2], "data": [-1.0, -0.5]}});
        json!({"loss_fn_outputs": [lp], "metrics": {}})
    });
    fake.on("forward_backward", move |_| reply.clone());
    let training = fake.training();
    let step = training.forward_backward_custom(&[datum(2)], |batch| {
        let lp = batch.logprobs().values().clone();
        let loss = lp.narrow(0, 0, 1).sum() - lp.narrow(0, 1, 1).sum() * 3.0;
        Ok(set(Loss::new(loss)))
    });
    Ok(step?.result()?.report)
}

/// `-w · lp` is -1 for the first token and 1.5 for the second.
fn answer(
    logprobs: [f64; 2],
    elementwise: Option<[f64; 2]>,
    loss_sum: Option<f64>,
) -> serde_json::Value {
    let tensor = |data: [f64; 2]| json!({"dtype": "float32", "shape": [2], "data": data});
    let mut output = json!({"logprobs": tensor(logprobs)});
    if let Some(losses) = elementwise {
        output["elementwise_loss"] = tensor(losses);
    }
    let metrics = loss_sum.map_or(json!({}), |sum| json!({"loss:sum": sum}));
    json!({"loss_fn_outputs": [output], "metrics": metrics})
}

const SAME: [f64; 2] = [-1.0, -0.5];

#[test]
fn a_server_that_computes_the_linear_loss_gives_no_warning() {
    for reply in [answer(SAME, None, Some(0.5)), answer(SAME, Some([-1.0, 1.5]), None)] {
        let report = step(reply);
        let check = report.surrogate.unwrap();
        assert!(check.agrees && (check.expected - 0.5).abs() < 1e-6);
        assert_eq!(report.warnings, []);
        assert!(report.to_string().contains("the server 0.5: agrees"), "{report}");
    }
}

#[test]
fn a_server_that_divides_weights_by_their_sum_is_named() {
    // The weights add up to 2.
    for reply in [answer(SAME, None, Some(0.25)), answer(SAME, Some([-0.5, 0.75]), None)] {
        let report = step(reply);
        assert!(
            matches!(report.warnings[..], [Warning::Surrogate(check)] if check.weights_divided_by_their_sum)
        );
        let shown = report.to_string();
        assert!(shown.contains("the server 0.25: DISAGREES"), "{shown}");
        assert!(shown.contains("divides the weights of each sequence by their sum"), "{shown}");
    }
}

/// SkyRL-tx tells the losses of the weights as they were sent.
#[test]
fn skyrl_is_warned_of_though_its_losses_agree() {
    let fake = Fake::start();
    let accepted = json!({"request_id": "7", "future_id": "7", "status": "pending"});
    fake.script("create_model", [ok(accepted)]);
    fake.script("retrieve_future", [ok(json!({"model_id": "model_7"}))]);
    let report = try_step(&fake, answer(SAME, Some([-1.0, 1.5]), None), |loss| loss).unwrap();
    assert!(report.surrogate.unwrap().agrees);
    // -1 + 3 = 2
    assert!(
        matches!(report.warnings[..], [Warning::Rescaled(it)] if (it.sequences, it.inflated) == (1, 0))
    );
    let shown = report.to_string();
    assert!(shown.contains("sequences that get another scale 1,"), "{shown}");
}

#[test]
fn a_server_that_flips_the_sign_is_found_out() {
    let report = step(answer(SAME, None, Some(-0.5)));
    let check = report.surrogate.unwrap();
    assert_eq!((check.source, check.agrees), (ServerLoss::LossSum, false));
    assert!(!check.weights_divided_by_their_sum);
}

#[test]
fn a_server_without_a_loss_of_its_own_gives_no_verdict() {
    let report = step(answer(SAME, None, None));
    assert_eq!((report.surrogate, report.warnings), (None, vec![]));
}

#[test]
fn logprobs_that_moved_between_the_passes_are_a_warning() {
    let report = step(answer([-1.0, -0.75], None, None));
    assert!(matches!(report.warnings[..], [Warning::Drift(drift)] if drift.max_abs == 0.25));
    assert!(report.to_string().contains("differ by up to 0.250 nats"), "{report}");
}

#[test]
fn a_gradient_of_zeros_is_a_warning_before_the_second_pass() {
    let fake = Fake::start();
    let training = fake.training();
    let step = training.forward_backward_custom(&[datum(2)], |batch| {
        Ok(Loss::new((batch.logprobs() * 0.0).sum()))
    });
    assert_eq!(step.unwrap().report().warnings, [Warning::ZeroGradient]);
}

#[test]
fn terms_tell_how_they_weigh_against_each_other() {
    let fake = Fake::start();
    let training = fake.training();
    let step = training.forward_backward_custom(&[datum(4)], |batch| {
        let lp = batch.logprobs();
        let constant = Var::scalar(3.0);
        Ok(Loss::new(lp.sum() * 2.0)
            .regularize("square", 0.5, lp.square().sum())
            .regularize("rest", 1.0, constant)
            .allow_constant_terms()
            .gradient_norms())
    });
    let step = step.unwrap();
    let norms: Vec<_> = step
        .report()
        .terms
        .iter()
        .map(|term| (term.weighted(), term.gradient_norm.unwrap()))
        .collect();
    // Four logprobs of -1: 2 each, and 0.5 · 2 · -1 each.
    assert_eq!(norms, [(-8.0, 4.0), (2.0, 2.0), (3.0, 0.0)]);
}

#[test]
fn a_name_given_twice_is_refused() {
    let refused = |make: fn(Loss) -> Loss| {
        let fake = Fake::start();
        let loss = fake.training().forward_backward_custom(&[datum(2)], |batch| {
            Ok(make(Loss::new(batch.logprobs().sum())))
        });
        let error = loss.unwrap_err();
        assert!(fake.requests("forward_backward").is_empty());
        assert!(matches!(error, Error::NameTaken { .. }), "{error}");
        error.to_string()
    };
    assert!(refused(|loss| loss.metric("kl", 1.0).metric("kl", 2.0)).contains("\"kl\" twice"));
    assert!(refused(|loss| loss.regularize("loss", 1.0, Var::scalar(1.0))).contains("\"loss\""));
}

/// As the Python SDK does, the loss keeps its name; here it is said.
#[test]
fn a_metric_that_would_hide_the_loss_is_replaced_with_a_warning() {
    let fake = Fake::start();
    let training = fake.training();
    let step = training.forward_backward_custom(&[datum(2)], |batch| {
        Ok(Loss::new(batch.logprobs().sum()).metric("loss:sum", 7.0))
    });
    let StepOutput { output, report, .. } = step.unwrap().result().unwrap();
    assert_eq!(output.metrics["loss:sum"], -2.0);
    assert!(report.warnings.contains(&Warning::MetricReplaced("loss:sum")));
    assert!(report.to_string().contains("rename it"), "{report}");
}

#[test]
fn a_drift_beyond_its_limit_is_an_error_that_says_what_not_to_do() {
    let drifted = || answer([-1.0, -0.75], None, None);
    assert_eq!(
        try_step(&Fake::start(), drifted(), |loss| loss.max_drift(0.25))
            .unwrap()
            .drift
            .unwrap()
            .max_abs,
        0.25
    );
    let error = try_step(&Fake::start(), drifted(), |loss| loss.max_drift(0.2)).unwrap_err();
    assert!(matches!(error, Error::Drift { drift, limit: 0.2 } if drift.mean_abs == 0.125));
    let words = "differ by up to 0.250000 nats, and the loss allows 0.2";
    assert!(error.to_string().contains(words), "{error}");
}

/// JSON has no NaN; protobuf has.
#[test]
fn logprobs_that_became_nan_are_a_drift_and_a_disagreement() {
    let output = |second: f32, metrics: &[(&str, f64)]| {
        let logprobs = vec![-1.0f32, second];
        protobuf(&ForwardBackwardOutput {
            loss_fn_outputs: vec![[("logprobs".to_owned(), logprobs.into())].into()],
            metrics: metrics.iter().copied().collect(),
            ..Default::default()
        })
    };
    let fake = Fake::start();
    fake.script("client/config", [ok(json!({}))]);
    fake.script(
        "retrieve_future",
        [
            ok(json!({"model_id": "m", "type": "create_model"})),
            output(-0.5, &[]),
            output(f32::NAN, &[("loss:sum", f64::NAN)]),
        ],
    );
    let training = fake.training();
    let step = training.forward_backward_custom(&[datum(2)], |batch| {
        Ok(Loss::new(batch.logprobs().square().sum()).max_drift(f64::INFINITY))
    });
    let error = step.unwrap().result().unwrap_err();
    assert!(matches!(error, Error::Drift { drift, .. } if drift.max_abs.is_nan()), "{error}");
}
