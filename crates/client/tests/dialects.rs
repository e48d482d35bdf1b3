//! One program against servers of both dialects.

mod support;

use serde_json::{Value, json};
use support::{Fake, TestClock, datum, ok, raw, status};
use tinsmith_client::{
    AdamParams, ChunkLimits, Datum, Dialect, DimuonParams, Error, GradAccumulationNormalization,
    GradNormMetrics, LoraConfig, Loss, LossFn, ModelInput, OptimStep, RequestOrder, SaveOptions,
    ServiceClient, TensorData,
    wire::{CustomLossInput, LossGraph},
};

/// A server of the protobuf dialect, with these settings.
fn protobuf(config: Value) -> Fake {
    let fake = Fake::start();
    fake.script("config", [ok(config)]);
    fake
}

fn training(service: &ServiceClient) -> tinsmith_client::TrainingClient {
    service.create_lora_training_client("tiny", &LoraConfig::rank(4)).unwrap()
}

#[test]
fn a_server_with_a_configuration_speaks_protobuf_and_one_without_json() {
    let plain = Fake::start().service();
    assert_eq!(plain.dialect(), Dialect::Json);
    let fake = protobuf(json!({}));
    let service = fake.builder().sdk_version("0.38.0").connect().unwrap();
    assert_eq!(service.dialect(), Dialect::Protobuf);
    assert_eq!(fake.requests("config")[0].body(), json!({"sdk_version": "0.38.0"}));
    let fake = protobuf(json!({}));
    let service = fake.builder().dialect(Dialect::Json).connect().unwrap();
    assert_eq!(service.dialect(), Dialect::Json);
}

#[test]
fn a_pass_in_protobuf_is_what_it_is_in_json() {
    let fake = protobuf(json!({}));
    let training = training(&fake.service());
    let sent = datum(3).with("weights", vec![0.0f32, 0.5, 1.0]);
    let forward =
        training.forward(std::slice::from_ref(&sent), LossFn::CrossEntropy, None).unwrap();
    let config = [("clip_low_threshold".to_owned(), 0.8.into())].into();
    let output =
        training.forward_backward(std::slice::from_ref(&sent), LossFn::Ppo, Some(config)).unwrap();
    let output = output.result().unwrap();
    assert_eq!(output.loss_fn_outputs[0]["logprobs"].as_f32().unwrap(), [-1.0; 3]);
    assert_eq!(output.metrics["loss:sum"], 4.0);
    forward.result().unwrap();
    let passes: Vec<_> = fake.requests("forward_backward").iter().map(|r| r.pass()).collect();
    assert_eq!(fake.requests("forward").len(), 0);
    assert_eq!((passes[0].seq_id, passes[1].seq_id), (1, 2));
    assert_eq!(passes[0].pass, tinsmith_client::wire::Pass::Forward);
    assert_eq!(passes[1].pass, tinsmith_client::wire::Pass::ForwardBackward);
    assert_eq!(passes[1].data[0], sent);
    assert_eq!(passes[1].loss_fn_config.as_ref().unwrap()["clip_low_threshold"], 0.8.into());
    let polls = fake.requests("retrieve_future");
    let accepts: Vec<&str> = polls.iter().map(|r| r.headers["accept"].as_str()).collect();
    let (json, protobuf) = ("application/json", "application/x-protobuf");
    assert_eq!(accepts, [json, protobuf, protobuf], "create_model has no protobuf form");
}

#[test]
fn parallel_chunks_arrive_with_the_first_one_last() {
    let config = json!({"fwdbwd_max_chunk_len": 2});
    let fake = protobuf(config);
    let training = training(&fake.service());
    let data: Vec<Datum> = (1..=5).map(datum).collect();
    let output = training.forward_backward(&data, LossFn::CrossEntropy, None).unwrap();
    let step = training
        .forward_backward_custom(&data, |batch| Ok(Loss::new(batch.logprobs().sum())))
        .unwrap();
    training.optim_step(&AdamParams::default()).unwrap().result().unwrap();
    let ids: Vec<u64> = fake.requests("forward_backward").iter().map(|r| r.seq_id()).collect();
    assert_eq!(fake.requests("optim_step")[0].seq_id(), 10);
    for (pass, first) in ids.chunks(3).zip([1, 4, 7]) {
        let mut sorted = pass.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, [first, first + 1, first + 2]);
        assert_eq!(pass[2], first, "{ids:?}");
    }
    let rows = |output: tinsmith_client::ForwardBackwardOutput| -> Vec<usize> {
        let outputs = output.loss_fn_outputs.iter();
        outputs.map(|o| o["logprobs"].elem_count()).collect()
    };
    assert_eq!(rows(output.result().unwrap()), [1, 2, 3, 4, 5]);
    assert_eq!(rows(step.result().unwrap().output), [1, 2, 3, 4, 5]);
}

#[test]
fn chunks_go_in_order_where_the_server_wants_it_so() {
    let fake = protobuf(json!({"fwdbwd_max_chunk_len": 2, "parallel_fwdbwd_chunks": false}));
    let training = training(&fake.service());
    let data: Vec<Datum> = (1..=5).map(datum).collect();
    let output = training.forward_backward(&data, LossFn::CrossEntropy, None);
    output.unwrap().result().unwrap();
    let ids: Vec<u64> = fake.requests("forward_backward").iter().map(|r| r.seq_id()).collect();
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn a_chunk_that_is_refused_holds_back_the_first_and_its_ids_are_free_again() {
    let fake = protobuf(json!({"fwdbwd_max_chunk_len": 1}));
    let training = training(&fake.service());
    training.forward_backward(&[datum(1)], LossFn::CrossEntropy, None).unwrap().result().unwrap();
    fake.script("forward_backward", [status(422, json!({"detail": "unfit"}))]);
    let error =
        training.forward_backward(&[datum(1), datum(2)], LossFn::CrossEntropy, None).unwrap_err();
    assert!(matches!(error, Error::Status { status: 422, .. }), "{error}");
    let ids: Vec<u64> = fake.requests("forward_backward").iter().map(|r| r.seq_id()).collect();
    assert_eq!(ids, [1, 3]);
    training.optim_step(&AdamParams::default()).unwrap().result().unwrap();
    assert_eq!(fake.requests("optim_step")[0].seq_id(), 2);
}

#[test]
fn the_server_sets_the_limits_unless_the_program_does() {
    let fake = protobuf(json!({"fwdbwd_max_chunk_len": 2}));
    let limits = ChunkLimits::default().max_len(4);
    let service = fake.builder().chunk_limits(limits).connect().unwrap();
    let data: Vec<Datum> = (1..=5).map(datum).collect();
    drop(training(&service).forward_backward(&data, LossFn::CrossEntropy, None));
    assert_eq!(fake.requests("forward_backward").len(), 2);
}

#[test]
fn large_results_are_fetched_by_themselves() {
    let fake = protobuf(json!({}));
    let training = training(&fake.service());
    let step = training.forward_backward(&[datum(2)], LossFn::CrossEntropy, None).unwrap();
    let before = fake.requests("retrieve_future").len();
    let large = json!({"status": "complete_metadata", "response_payload_size": 99_000_000});
    fake.script("retrieve_future", [ok(large)]);
    step.result().unwrap();
    let asked: Vec<Value> = fake.requests("retrieve_future")[before..]
        .iter()
        .map(|poll| poll.body()["allow_metadata_only"].clone())
        .collect();
    assert_eq!(asked, [true, false]);
}

#[test]
fn matrices_of_targets_go_both_ways_and_sparse_gradients_as_csr() {
    let fake = protobuf(json!({}));
    let training = training(&fake.service());
    let targets = TensorData::new((1..=40).collect::<Vec<i64>>(), &[4, 10]).unwrap();
    let weights = TensorData::csr(vec![0.5f32], vec![0, 0, 1, 1, 1], vec![3], [4, 10]).unwrap();
    let matrix = Datum::new(ModelInput::from_tokens(vec![1, 2, 3, 4]))
        .with("target_tokens", targets.clone())
        .with("weights", weights.clone());
    let step = training.forward_backward_custom(&[matrix], |batch| {
        let lp = batch.logprobs();
        let weights = batch.input("weights")?;
        Ok(Loss::new((lp * weights).sum() * 2.0))
    });
    assert_eq!(step.unwrap().result().unwrap().output.metrics["loss:sum"], -1.0);
    let passes: Vec<_> = fake.requests("forward_backward").iter().map(|r| r.pass()).collect();
    assert_eq!(passes[0].data[0].input("weights"), Some(&weights));
    let sent = &passes[1].data[0];
    assert_eq!(sent.input("target_tokens"), Some(&targets));
    let gradient = TensorData::csr(vec![-1.0f32], vec![0, 0, 1, 1, 1], vec![3], [4, 10]).unwrap();
    assert_eq!(sent.input("weights"), Some(&gradient));
}

#[test]
fn the_wrong_dialect_is_suspected_only_as_long_as_no_pass_was_accepted() {
    let refused = || status(422, json!({"detail": "body is not JSON"}));
    let fake = protobuf(json!({}));
    let first = training(&fake.service());
    fake.script("forward_backward", [refused()]);
    let pass = |training: &tinsmith_client::TrainingClient| {
        training.forward_backward(&[datum(2)], LossFn::CrossEntropy, None)
    };
    assert!(matches!(pass(&first), Err(Error::WrongDialect { .. })));
    let fake = protobuf(json!({}));
    let second = training(&fake.service());
    pass(&second).unwrap().result().unwrap();
    fake.script("forward_backward", [refused()]);
    assert!(matches!(pass(&second), Err(Error::Status { status: 422, .. })));
}

#[test]
fn skyrl_is_recognized_and_spared_what_it_cannot_bear() {
    let fake = Fake::start();
    let service = fake.service();
    let accepted = json!({"request_id": "7", "future_id": "7", "status": "pending"});
    fake.script("create_model", [ok(accepted)]);
    fake.script("retrieve_future", [ok(json!({"model_id": "model_7"}))]);
    let training = training(&service);
    assert_eq!(service.request_order(), RequestOrder::ByArrival);
    let matrix = TensorData::new(vec![1i64; 4], &[2, 2]).unwrap();
    let matrix = Datum::new(ModelInput::from_tokens(vec![1, 2])).with("target_tokens", matrix);
    let error = training.forward_backward(&[matrix], LossFn::CrossEntropy, None).unwrap_err();
    assert!(error.to_string().contains("SkyRL-tx"), "{error}");
    // A repetition would be a second step.
    fake.script("optim_step", [support::Reply::Close]);
    let error = training.optim_step(&AdamParams::default()).unwrap_err();
    assert!(error.may_have_been_applied(), "{error}");
    assert_eq!(fake.requests("optim_step").len(), 1);
}

#[test]
fn fireworks_counts_in_its_own_way() {
    let fake = Fake::start();
    let service = fake
        .builder()
        .fireworks()
        .chunk_limits(ChunkLimits::default().max_len(1024).max_bytes(100))
        .connect()
        .unwrap();
    assert_eq!(service.dialect(), Dialect::Json);
    let training = training(&service);
    let weighted = datum(3).with("weights", vec![0.0f32, 0.5, 1.0]);
    // 4 * 3 + 10 * 6 = 72 bytes each, so that two do not fit.
    let output = training
        .forward_backward(&[weighted.clone(), weighted], LossFn::CrossEntropy, None)
        .unwrap();
    assert_eq!(output.result().unwrap().metrics["response_tokens"], 4.0);
    assert_eq!(fake.requests("forward_backward").len(), 2);
    let adam = AdamParams {
        emit_grad_norm_metrics: Some(GradNormMetrics::Basic),
        ..AdamParams::default()
    };
    let step = OptimStep::from(adam)
        .grad_accumulation_normalization(GradAccumulationNormalization::NumLossTokens);
    drop(training.optim_step_with(&step).unwrap());
    let sent = fake.requests("optim_step")[0].body();
    assert_eq!(sent["grad_accumulation_normalization"], "num_loss_tokens");
    assert_eq!(sent["adam_params"]["emit_grad_norm_metrics"], "basic");
}

#[test]
fn a_conflict_at_fireworks_is_final_unless_it_speaks_of_capacity() {
    let fake = Fake::start();
    let training = training(&fake.builder().fireworks().connect().unwrap());
    let conflict = |words: &str| status(409, json!({"detail": words}));
    fake.script(
        "optim_step",
        [conflict("no Capacity"), conflict("trainer is recovering"), raw(409, "")],
    );
    let step = || training.optim_step(&AdamParams::default());
    step().unwrap().result().unwrap();
    assert_eq!(fake.requests("optim_step").len(), 4);
    fake.script("optim_step", [conflict("another payload under this key")]);
    let error = step().unwrap_err().to_string();
    assert!(error.ends_with("409: another payload under this key"), "{error}");
    assert_eq!(fake.requests("optim_step").len(), 5);
}

#[test]
fn other_optimizers_and_checkpoints_are_asked_for_as_the_protocol_has_it() {
    let fake = protobuf(json!({}));
    let service = fake.service();
    let options = tinsmith_client::ModelOptions::default()
        .optimizer(tinsmith_client::OptimizerConfig::Dimuon { version: 1 });
    let training = service.create_training_client("tiny", &LoraConfig::rank(4), &options).unwrap();
    assert_eq!(
        fake.requests("create_model")[0].body()["optimizer_config"],
        json!({"type": "dimuon", "version": 1})
    );
    drop(training.optim_step_with(&DimuonParams::default().into()).unwrap());
    let step = fake.requests("optim_step")[0].body();
    assert_eq!(
        step["optimizer_params"],
        json!({"type": "dimuon", "learning_rate": 1e-4, "grad_clip_norm": 0.0, "beta1": 0.9})
    );
    assert_eq!(step["adam_params"], Value::Null);

    let options = SaveOptions::default().overwrite().ttl(std::time::Duration::from_secs(7200));
    drop(training.save_state_with("a", &options).unwrap());
    let saved = fake.requests("save_weights")[0].body();
    assert_eq!(
        (&saved["path"], &saved["overwrite"], &saved["ttl_seconds"]),
        (&json!("a"), &json!(true), &json!(7200))
    );
    let again = service
        .create_training_client_from_state_with_optimizer("tinker://model/weights/a")
        .unwrap();
    // The Fake does not say how it calls the model.
    assert_eq!(again.model_id(), "session:train:1");
    assert_eq!(
        fake.requests("load_weights")[0].body(),
        json!({"type": "load_weights", "session_id": "session", "model_seq_id": 1, "optimizer": true,
               "path": "tinker://model/weights/a"})
    );
}

#[test]
fn in_json_a_model_is_created_as_its_checkpoint_says_and_loads_it_first() {
    let fake = Fake::start();
    let info = json!({"base_model": "tiny", "is_lora": true, "lora_rank": 16, "train_mlp": false});
    fake.script("weights_info", [ok(info)]);
    let service = fake.builder().clock(TestClock::default()).connect().unwrap();
    drop(service.create_training_client_from_state("tinker://model/weights/a").unwrap());
    let created = fake.requests("create_model")[0].body();
    assert_eq!(created["lora_config"]["rank"], 16);
    assert_eq!(created["lora_config"]["train_mlp"], false);
    let loaded = fake.requests("load_weights")[0].body();
    assert_eq!(
        (&loaded["seq_id"], &loaded["optimizer"], &loaded["model_id"]),
        (&json!(1), &json!(false), &json!("model"))
    );
}

#[test]
fn a_server_may_evaluate_custom_losses_itself() {
    let fake = protobuf(json!({"custom_loss_server_side": true}));
    let service = fake.service();
    fake.on("create_custom_loss", |request| {
        let n = request.body()["custom_loss_seq_id"].as_u64().unwrap();
        json!({"type": "create_custom_loss", "loss_id": format!("loss-{n}")})
    });
    let graphs: Value = serde_json::from_slice(include_bytes!(
        "../../../tests/vectors/wire/custom_loss_graphs.json"
    ))
    .unwrap();
    let case = &graphs[1];
    let create = || {
        let inputs: Vec<CustomLossInput> = serde_json::from_value(case["inputs"].clone()).unwrap();
        let graph: LossGraph = serde_json::from_value(case["graph"].clone()).unwrap();
        service.create_custom_loss("clipped", &inputs, &graph).unwrap()
    };
    create();
    let (loss_fn, config) = create();
    assert_eq!(
        fake.requests("create_custom_loss")[0].body(),
        json!({"type": "create_custom_loss", "session_id": "session", "custom_loss_seq_id": 0, "name": "clipped",
               "inputs": case["inputs"], "graph": case["graph"]})
    );
    let polls = fake.requests("retrieve_future");
    assert_eq!(polls[0].headers["x-tinker-request-type"], "CreateCustomLoss");

    let sent = datum(3).with("old", vec![0.0f32; 3]);
    training(&service)
        .forward_backward(std::slice::from_ref(&sent), loss_fn, Some(config))
        .unwrap()
        .result()
        .unwrap();
    let pass = fake.requests("forward_backward")[0].pass();
    assert_eq!(pass.loss_fn.name(), "custom");
    assert_eq!(pass.loss_fn_config.unwrap()["loss_id"], "loss-1".into());
    assert_eq!(pass.data[0], sent);
}
