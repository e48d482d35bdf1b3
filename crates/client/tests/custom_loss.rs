//! The two passes, and what comes between them.

mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use serde_json::{Value, json};
use support::{Fake, datum, ok, status, vectors};
use tinsmith_client::{
    AdamParams, Batch, ChunkLimits, Datum, DatumProblem, Error, Event, Loss, LossFn, ModelInput,
    StepOutput, TensorData, TrainingClient,
    grad::{Device, Var},
};

fn tensor(spec: &Value) -> TensorData {
    serde_json::from_value(spec.clone()).unwrap()
}

/// As `spec`, made dense, in f64.
fn numbers(spec: &Value) -> Vec<f64> {
    let listed: Vec<f64> =
        spec["data"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let Some(crow) = spec["crow"].as_array() else {
        return listed;
    };
    let cols = spec["shape"][1].as_u64().unwrap() as usize;
    let mut dense = vec![0.0; (crow.len() - 1) * cols];
    for (row, ends) in crow.windows(2).enumerate() {
        for i in ends[0].as_u64().unwrap() as usize..ends[1].as_u64().unwrap() as usize {
            dense[row * cols + spec["col"][i].as_u64().unwrap() as usize] = listed[i];
        }
    }
    dense
}

fn loss(name: &str, batch: &Batch) -> anyhow::Result<Loss> {
    let lp = batch.logprobs();
    Ok(match name {
        "sum_of_squares" => Loss::new(lp.square().sum()),
        "mean_nll_weights_given" => Loss::new(-(&lp * batch.input("weights")?).mean()),
        "rank2_kl_like" => {
            let teacher = batch.input("teacher")?.map(|t| t.softmax(-1));
            Loss::new(-(teacher * &lp).sum())
        }
        "rank2_first_column_sparse" => Loss::new(lp.values().narrow(1, 0, 1).sum()),
        "exp_ratio" => Loss::new((&lp - batch.input("old")?).exp().clamp(0.05, 1.0).sum()),
        other => panic!("no loss for {other}"),
    })
}

#[test]
fn both_passes_are_those_of_the_sdk() {
    let cases = vectors("custom_backward.json");
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let fake = Fake::start();
        let outputs: Vec<Value> = case["forward_logprobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|lp| json!({"logprobs": lp}))
            .collect();
        let answer = |metrics: &Value| json!({"loss_fn_outputs": outputs, "metrics": metrics});
        let (first, second) = (answer(&json!({})), answer(&case["backward_metrics"]));
        fake.on("forward", move |_| first.clone());
        fake.on("forward_backward", move |_| second.clone());

        let data = case["datums"].as_array().unwrap().iter().map(|datum| {
            let tokens: Vec<u32> = serde_json::from_value(datum["model_input"].clone()).unwrap();
            let inputs = datum["loss_fn_inputs"].as_object().unwrap();
            Datum {
                model_input: ModelInput::from_tokens(tokens),
                loss_fn_inputs: inputs
                    .iter()
                    .map(|(name, t)| (name.clone(), tensor(t)))
                    .collect::<BTreeMap<_, _>>(),
                ..Datum::default()
            }
        });
        let data: Vec<Datum> = data.collect();
        let user_metrics = case["user_metrics"].as_object().unwrap();
        let step = fake.training().forward_backward_custom(&data, |batch| {
            let metrics = user_metrics.iter().map(|(key, value)| (key, value.as_f64().unwrap()));
            Ok(metrics.fold(loss(name, batch)?, |loss, (key, value)| loss.metric(key, value)))
        });
        let step = step.unwrap();
        let StepOutput { output, report, .. } = step.result().unwrap();

        for (call, input, expected) in [
            ("forward", "forward_input", &case["expected_forward_inputs"]),
            ("forward_backward", "forward_backward_input", &case["expected_backward_inputs"]),
        ] {
            let body = fake.requests(call)[0].body();
            assert_eq!(body[input]["loss_fn"], "cross_entropy");
            let sent = body[input]["data"].as_array().unwrap();
            assert_eq!(sent.len(), expected.as_array().unwrap().len(), "{name}");
            for (sent, expected) in sent.iter().zip(expected.as_array().unwrap()) {
                let sent = sent["loss_fn_inputs"].as_object().unwrap();
                assert_eq!(
                    sent.len(),
                    expected.as_object().unwrap().len(),
                    "{name}: only targets and weights travel"
                );
                for (input, sent) in sent {
                    let expected = &expected[input];
                    assert_eq!(
                        (&sent["dtype"], &sent["shape"]),
                        (&expected["dtype"], &expected["shape"])
                    );
                    let (sent, expected) = (numbers(sent), numbers(expected));
                    assert_eq!(sent.len(), expected.len());
                    let near = |(s, e): (&f64, &f64)| (s - e).abs() <= 1e-6 * e.abs().max(1e-6);
                    assert!(
                        sent.iter().zip(&expected).all(near),
                        "{name} {call} {input}:\n{sent:?}\n{expected:?}"
                    );
                }
            }
        }

        let expected = case["expected_metrics"].as_object().unwrap();
        assert_eq!(output.metrics.len(), expected.len(), "{name}: {:?}", output.metrics);
        for (key, value) in expected {
            let (got, expected) = (output.metrics[key.as_str()], value.as_f64().unwrap());
            assert!(
                (got - expected).abs() <= 1e-6 * expected.abs(),
                "{name} {key}: {got} against {expected}"
            );
        }
        assert!(
            (report.loss - case["loss_value"].as_f64().unwrap()).abs() <= 1e-6 * report.loss.abs()
        );
        assert_eq!(report.drift.unwrap().max_abs, 0.0);
        // What the loss function's metrics override stays in the report.
        assert_eq!(report.server_metrics["mine:sum"], -1.0);
    }
}

#[test]
fn both_passes_take_their_ids_before_anything_later_and_keep_their_chunks() {
    let fake = Fake::start();
    let service = fake
        .builder()
        .chunk_limits(ChunkLimits::default().max_len(2).max_bytes(5_000_000))
        .connect()
        .unwrap();
    let training = service.create_lora_training_client("tiny", &Default::default()).unwrap();
    let data: Vec<Datum> = (1..=5).map(datum).collect();
    let first = training.forward_backward(&data, LossFn::CrossEntropy, None).unwrap();
    let step = training
        .forward_backward_custom(&data, |batch| Ok(Loss::new(batch.logprobs().sum())))
        .unwrap();
    let optim = training.optim_step(&AdamParams::default()).unwrap();
    assert_eq!(
        fake.order(),
        [
            "forward_backward 1",
            "forward_backward 2",
            "forward_backward 3",
            "forward 4",
            "forward 5",
            "forward 6",
            "forward_backward 7",
            "forward_backward 8",
            "forward_backward 9",
            "optim_step 10",
        ]
    );
    let lengths = |call: &str, input: &str| -> Vec<usize> {
        let requests = fake.requests(call);
        let last = requests.iter().skip(requests.len() - 3);
        last.map(|r| r.body()[input]["data"].as_array().unwrap().len()).collect()
    };
    assert_eq!(lengths("forward", "forward_input"), [2, 2, 1]);
    assert_eq!(lengths("forward_backward", "forward_backward_input"), [2, 2, 1]);
    // Outputs in order, `loss:sum` (4 a request) added up.
    let output = first.result().unwrap();
    let rows: Vec<usize> =
        output.loss_fn_outputs.iter().map(|o| o["logprobs"].elem_count()).collect();
    assert_eq!(rows, [1, 2, 3, 4, 5]);
    assert_eq!(output.metrics["loss:sum"], 12.0);
    let output = step.result().unwrap().output;
    assert_eq!((output.metrics["loss:sum"], output.metrics["surrogate_loss:sum"]), (-15.0, 12.0));
    optim.result().unwrap();
}

#[test]
fn the_report_tells_terms_gradient_and_bytes() {
    let fake = Fake::start();
    fake.on("forward_backward", |_| {
        json!({"loss_fn_outputs": [{"logprobs": {"dtype": "float32", "shape": [4], "data": [-1.0, -1.0, -0.5, -1.0]}}],
               "metrics": {}})
    });
    let step = fake.training().forward_backward_custom(&[datum(4)], |batch| {
        let lp = batch.logprobs();
        let half = lp.values().narrow(0, 0, 2);
        Ok(Loss::new(half.sum())
            .regularize("l2", 0.5, half.square().sum())
            .metric("seen", half.mean()))
    });
    let step = step.unwrap();
    let so_far = step.report().clone();
    assert_eq!((so_far.loss, so_far.drift, so_far.metrics["seen"]), (-1.0, None, -1.0));
    let terms: Vec<_> = so_far.terms.iter().map(|t| (t.name.as_str(), t.weight, t.value)).collect();
    assert_eq!(terms, [("loss", 1.0, -2.0), ("l2", 0.5, 2.0)]);
    // d/dx (x + x²/2) = 1 + x = 0 at -1: all four elements are 0.
    assert_eq!(
        (so_far.gradient.norm, so_far.gradient.max_abs, so_far.gradient.zeros),
        (0.0, 0.0, 1.0)
    );
    let report = step.result().unwrap().report;
    let drift = report.drift.unwrap();
    assert_eq!((drift.max_abs, drift.mean_abs), (0.5, 0.125));
    assert!(report.bytes_received > so_far.bytes_received);
    let bodies = ["forward", "forward_backward"].map(|call| fake.requests(call)[0].bytes.len());
    assert_eq!(report.bytes_sent, bodies.iter().sum::<usize>() as u64);
    assert_eq!(so_far.bytes_sent, report.bytes_sent);
    assert_eq!((report.usage.forward_tokens, report.usage.forward_sequences), (4, 1));
    let backward = (report.usage.forward_backward_tokens, report.usage.forward_backward_sequences);
    assert_eq!(backward, (4, 1));
}

/// Runs a loss that must be refused, and checks that nothing was trained and that the client goes
/// on with the next id.
fn refused(
    data: &[Datum],
    fake: &Fake,
    loss: impl FnOnce(&Batch) -> anyhow::Result<Loss>,
) -> Error {
    let training = fake.training();
    let error = training.forward_backward_custom(data, loss).unwrap_err();
    assert!(fake.requests("forward_backward").is_empty(), "the second pass was sent");
    fake.on("forward", |_| {
        let lp = json!({"logprobs": {"dtype": "float32", "shape": [2], "data": [-1.0, -1.0]}});
        json!({"loss_fn_outputs": [lp]})
    });
    let good = training
        .forward_backward_custom(&[datum(2)], |batch| Ok(Loss::new(batch.logprobs().sum())));
    drop(good.unwrap());
    let ids: Vec<u64> =
        fake.order().iter().map(|o| o.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>(), "no gap, no repetition");
    error
}

const HERE: &str = "custom_loss.rs:";

#[test]
fn a_loss_that_leaves_out_data_is_refused_by_their_places() {
    let data: Vec<Datum> = (1..=4).map(datum).collect();
    let error = refused(&data, &Fake::start(), |batch| {
        let seqs = batch.logprobs().seqs();
        Ok(Loss::new(seqs[0].sum() + seqs[2].exp().sum()))
    });
    assert!(matches!(&error, Error::UnusedData { data, .. } if *data == [1, 3]), "{error}");
    assert!(
        error.to_string().contains(HERE) && error.to_string().contains("datum 1, 3"),
        "{error}"
    );
    let constant = refused(&[datum(2)], &Fake::start(), |_| Ok(Loss::new(Var::scalar(1.0))));
    assert!(matches!(constant, Error::UnusedData { .. }), "{constant}");
    // Unless that is what is wanted. A gradient that is zero is not a lack of one.
    let fake = Fake::start();
    let seqs = |batch: &Batch| batch.logprobs().seqs();
    let step = fake
        .training()
        .forward_backward_custom(&data, |batch| Ok(Loss::new(seqs(batch)[0].sum()).allow_unused()));
    assert_eq!(step.unwrap().report().gradient.zeros, 0.9);
    let step = fake
        .training()
        .forward_backward_custom(&data, |batch| Ok(Loss::new((batch.logprobs() * 0.0).sum())));
    assert_eq!(step.unwrap().report().gradient.zeros, 1.0);
}

#[test]
fn a_loss_that_is_not_one_number_is_refused_by_its_shape() {
    let error = refused(&[datum(3)], &Fake::start(), |batch| {
        Ok(Loss::new(batch.logprobs().values().clone()))
    });
    assert!(matches!(&error, Error::LossNotScalar { shape, .. } if *shape == [3]), "{error}");
    assert!(error.to_string().contains(HERE), "{error}");
    let error = refused(&[datum(3)], &Fake::start(), |batch| {
        let lp = batch.logprobs();
        Ok(Loss::new(lp.sum()).metric("all", lp.values()))
    });
    assert!(matches!(&error, Error::MetricNotScalar { name, .. } if name == "all"), "{error}");
}

#[test]
fn a_loss_that_is_not_finite_is_refused_with_the_op_that_began_it() {
    let error =
        refused(&[datum(3)], &Fake::start(), |batch| Ok(Loss::new(batch.logprobs().log().sum())));
    assert!(matches!(&error, Error::LossNotFinite { value, .. } if value.is_nan()), "{error}");
    assert!(
        error.to_string().contains("log") && error.to_string().matches(HERE).count() == 2,
        "{error}"
    );
}

#[test]
fn a_gradient_that_is_not_finite_is_refused_by_its_place() {
    let data = [datum(2), datum(3)];
    let zero = |at: usize| (0..5).map(|i| if i == at { 1.0f32 } else { 2.0 }).collect::<Vec<_>>();
    let error = refused(&data, &Fake::start(), |batch| {
        // sqrt is 0 with an infinite slope where the argument is 0: at the second row of the second
        // datum.
        let shift = Var::from_vec(zero(3), &[5], &Device::Cpu);
        Ok(Loss::new((batch.logprobs().values() + &shift).sqrt().sum()))
    });
    assert!(
        matches!(&error, Error::GradientNotFinite { index: 1, position: 1, value, .. } if value.is_infinite()),
        "{error}"
    );
    assert!(error.to_string().contains(HERE), "{error}");
}

#[test]
fn lengths_that_do_not_fit_are_refused_by_datum_and_line() {
    let data = [datum(2), datum(3).with("old", vec![0.0f32; 2])];
    let data = [data[0].clone().with("old", vec![0.0f32; 2]), data[1].clone()];
    let error = refused(&data, &Fake::start(), |batch| {
        Ok(Loss::new((batch.logprobs() - batch.input("old")?).sum()))
    });
    assert!(matches!(error, Error::LossFailed { .. }));
    assert!(
        error.to_string().contains("datum 1: `old` has shape [2], it must be [3, ..]"),
        "{error}"
    );
    assert!(error.to_string().contains(HERE), "{error}");

    let error = refused(&data, &Fake::start(), |batch| {
        let lp = batch.logprobs();
        Ok(Loss::new((&lp - lp.truncate_to(&[2, 2])).sum()))
    });
    assert!(matches!(error, Error::Loss(_)));
    let message = error.to_string();
    assert!(
        message.contains("sequence 1 has 3 rows on the left and 2 on the right")
            && message.contains(HERE),
        "{message}"
    );
}

#[test]
fn a_loss_function_that_gives_up_is_told_with_its_reason() {
    let error = refused(&[datum(2)], &Fake::start(), |_| anyhow::bail!("no reference model"));
    assert!(
        error.to_string().contains("no reference model") && error.to_string().contains(HERE),
        "{error}"
    );
}

#[test]
fn a_loss_function_cannot_wait_for_its_own_turn() {
    let fake = Fake::start();
    let training = fake.training();
    let inside = training.clone();
    let error = training.forward_backward_custom(&[datum(2)], |_| {
        drop(inside.optim_step(&AdamParams::default())?);
        unreachable!("the turn is taken");
    });
    assert!(error.unwrap_err().to_string().contains("cannot be used inside its own loss function"));
    assert!(training.optim_step(&AdamParams::default()).is_ok());
}

#[test]
fn answers_of_the_first_pass_that_do_not_fit_are_refused() {
    let logprobs = |shape: Value, data: Value| json!({"logprobs": {"dtype": "float32", "shape": shape, "data": data}});
    let good = || logprobs(json!([2]), json!([-1.0, -1.0]));
    for (outputs, expected) in [
        (json!([good()]), "returned 1 outputs for 2 data"),
        (json!([good(), {}]), "datum 1: `logprobs` is missing"),
        (
            json!([good(), logprobs(json!([1]), json!([-1.0]))]),
            "datum 1: `logprobs` has shape [1], it must be [2]",
        ),
        (
            json!([{"logprobs": {"dtype": "int64", "data": [1, 2]}}, good()]),
            "datum 0: `logprobs` is int64",
        ),
        (
            json!([good(), logprobs(json!([2]), json!([-1.0, 1e39]))]),
            "datum 1: `logprobs` is inf at element 1",
        ),
    ] {
        let fake = Fake::start();
        fake.on("forward", move |_| json!({"loss_fn_outputs": outputs}));
        let error =
            refused(&[datum(2), datum(2)], &fake, |_| panic!("the loss function was called"));
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn bad_data_are_refused_before_anything_is_sent() {
    let fake = Fake::start();
    let training = fake.training();
    let input = || ModelInput::from_tokens(vec![1, 2]);
    let targets = || Datum::new(input()).with("target_tokens", vec![2i64, 3]);
    let cases: Vec<(Datum, &str)> = vec![
        (Datum::new(input()), "`target_tokens` is missing"),
        (Datum::new(ModelInput::default()), "`model_input` is empty"),
        (
            Datum::new(input()).with("target_tokens", vec![2.0f32, 3.0]),
            "`target_tokens` is float32, it must be int64",
        ),
        (
            Datum::new(input()).with("target_tokens", vec![2i64]),
            "`target_tokens` has shape [1], it must be [2] or [2, K]",
        ),
        (
            Datum::new(input()).with("target_tokens", vec![2i64, -3]),
            "`target_tokens` has token id -3 at element 1",
        ),
        (
            Datum::new(input()).with("target_tokens", vec![2i64, 1 << 31]),
            "`target_tokens` has token id 2147483648",
        ),
        (
            Datum::new(ModelInput::from_tokens(vec![1, u32::MAX]))
                .with("target_tokens", vec![2i64, 3]),
            "`model_input` has token id 4294967295 at element 1",
        ),
        (
            targets().with("weights", vec![1.0f32]),
            "`weights` has shape [1], it must be [2], as target_tokens",
        ),
        (targets().with("weights", vec![1i64, 1]), "`weights` is int64, it must be float32"),
        (targets().with("weights", vec![1.0, f32::NAN]), "`weights` is NaN at element 1"),
    ];
    for (bad, expected) in cases {
        let batch = [datum(2), bad];
        let custom = training
            .forward_backward_custom(&batch, |_| panic!("the loss function was called"))
            .unwrap_err();
        let built_in = training.forward_backward(&batch, LossFn::CrossEntropy, None).unwrap_err();
        for error in [custom, built_in] {
            let message = error.to_string();
            assert!(
                matches!(error, Error::Datum { index: 1, .. }) && message.contains(expected),
                "{message}"
            );
        }
    }
    assert!(matches!(
        training.forward_backward_custom(&[], |_| unreachable!()),
        Err(Error::EmptyBatch)
    ));
    assert!(matches!(training.forward(&[], LossFn::CrossEntropy, None), Err(Error::EmptyBatch)));
    assert_eq!(fake.order(), [""; 0]);
    // What does not travel is the user's own.
    let own = [targets().with("notes", vec![f32::NAN, 0.0])];
    assert!(
        training
            .forward_backward_custom(&own, |batch| Ok(Loss::new(batch.logprobs().sum())))
            .is_ok()
    );
    let sent = training.forward_backward(&own, LossFn::Ppo, None).unwrap_err();
    assert!(
        matches!(sent, Error::Datum { problem: DatumProblem::NonFinite { position: 0, .. }, .. }),
        "{sent}"
    );
}

#[test]
fn neither_a_first_pass_that_fails_nor_a_second_that_is_refused_ends_the_run() {
    let fake = Fake::start();
    let training = fake.training();
    let sum = |batch: &Batch| Ok(Loss::new(batch.logprobs().sum()));
    fake.on("forward", |_| json!({"error": "out of memory", "category": "server"}));
    let error = training.forward_backward_custom(&[datum(2)], sum).unwrap_err();
    assert!(
        matches!(&error, Error::RequestFailed { message, .. } if message == "out of memory"),
        "{error}"
    );
    fake.on("forward", |_| {
        json!({"loss_fn_outputs": [{"logprobs": {"dtype": "float32", "shape": [2], "data": [-1.0, -1.0]}}]})
    });
    assert!(training.forward_backward_custom(&[datum(2)], sum).is_ok());
    assert_eq!(fake.order(), ["forward 1", "forward 2", "forward_backward 3"]);

    fake.script("forward_backward", [status(422, json!({"detail": "too long"}))]);
    let error = training.forward_backward_custom(&[datum(2)], sum).unwrap_err();
    assert!(matches!(error, Error::Status { status: 422, .. }), "{error}");
    // The refused id is that of the next request.
    assert!(training.forward_backward_custom(&[datum(2)], sum).is_ok());
    assert_eq!(
        fake.order()[3..],
        ["forward 4", "forward_backward 5", "forward 5", "forward_backward 6"]
    );
}

#[test]
fn an_evaluation_is_one_forward_pass_and_takes_its_place_in_order() {
    let fake = Fake::start();
    fake.on("forward", |_| {
        let lp =
            |data: Value| json!({"logprobs": {"dtype": "float32", "shape": [2], "data": data}});
        json!({"loss_fn_outputs": [lp(json!([-1.0, -2.0])), lp(json!([-3.0, -4.0]))],
               "metrics": {"loss:sum": 0.5, "own": 7.0}})
    });
    let training = fake.training();
    let data = [datum(2), datum(2)];
    let train = || training.forward_backward(&data, LossFn::CrossEntropy, None).unwrap();
    let before = train();
    // Within the loss function the client is free: the turn is over.
    let inside = training.clone();
    let found = training.evaluate(&data, |batch| {
        drop(inside.optim_step(&AdamParams::default())?);
        let lp = batch.logprobs();
        Ok(Loss::new(-lp.sum()).regularize("l2", 0.5, lp.square().sum()).metric("own", lp.mean()))
    });
    let found = found.unwrap();
    let after = train();
    let expected = ["forward_backward 1", "forward 2", "optim_step 3", "forward_backward 4"];
    assert_eq!(fake.order(), expected);
    // 10, and half of 30.
    assert_eq!((found.report.loss, found.output.metrics["loss:sum"]), (25.0, 25.0));
    assert_eq!((found.output.metrics["own"], found.report.server_metrics["own"]), (-2.5, 7.0));
    assert_eq!(found.output.metrics["loss/l2"], 30.0);
    assert_eq!(found.output.metrics.get("surrogate_loss:sum"), None);
    let usage = found.report.usage;
    assert_eq!((usage.forward_tokens, usage.forward_backward_tokens), (4, 0));
    assert_eq!(found.report.bytes_sent, fake.requests("forward")[0].bytes.len() as u64);
    drop((before, after));
}

#[test]
fn an_evaluation_of_a_loss_that_cannot_be_right_is_refused_too() {
    let fake = Fake::start();
    let training = fake.training();
    let error = training.evaluate(&[datum(2)], |batch| Ok(Loss::new(batch.logprobs().log().sum())));
    let error = error.unwrap_err();
    assert!(matches!(error, Error::LossNotFinite { .. }), "{error}");
    assert!(error.to_string().contains(HERE), "{error}");
    // A gradient that is 0 is nothing to be warned of where nothing is trained.
    let zero = training.evaluate(&[datum(2)], |batch| Ok(Loss::new(batch.logprobs().sum() * 0.0)));
    assert_eq!(zero.unwrap().report.warnings, []);
    assert!(fake.requests("forward_backward").is_empty());
}

/// The server says that the pass is queued, and the program hears of it while it waits.
#[test]
fn others_may_send_while_an_evaluation_waits() {
    let fake = Fake::start();
    let training: Arc<OnceLock<TrainingClient>> = Arc::default();
    let heard = training.clone();
    let service = fake.builder().progress(move |event: &Event| {
        if let (Event::Queued(_), Some(training)) = (event, heard.get()) {
            drop(training.optim_step(&AdamParams::default()).unwrap());
        }
    });
    let service = service.connect().unwrap();
    let created = service.create_lora_training_client("tiny", &Default::default()).unwrap();
    let training = training.get_or_init(|| created);
    let queued = json!({"type": "try_again", "queue_state": "paused_capacity"});
    fake.script("retrieve_future", [ok(queued)]);
    training.evaluate(&[datum(2)], |batch| Ok(Loss::new(batch.logprobs().sum()))).unwrap();
    assert_eq!(fake.order(), ["forward 1", "optim_step 2"]);
}
