//! Bad requests.

use serde_json::{Value, json};
use tinsmith_trainer::{Counts, Trainer};

use crate::support::{Client, datum, text, texts};

/// Otherwise the client's next request may be lost in the body of this one.
#[test]
fn a_refusal_before_the_body_is_read_ends_the_connection() {
    let trainer = Trainer::builder().body_limit(100).spawn().unwrap();
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent: ureq::Agent = config.build().into();
    let connection = |path: &str, kind: &str, body: &str| {
        let request = agent.post(format!("{}/api/v1/{path}", trainer.url()));
        let response = request.header("Content-Type", kind).send(body).unwrap();
        let connection = response.headers().get("connection");
        let connection = connection.map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), connection)
    };
    let close = Some("close".to_owned());
    let json = "application/json";
    let session = r#"{"tags": [], "sdk_version": "test"}"#;
    assert_eq!(connection("create_session", json, session), (200, None));
    let long = " ".repeat(101);
    assert_eq!(connection("create_session", json, &long), (413, close.clone()));
    assert_eq!(connection("create_session", "text/plain", ""), (415, close.clone()));
    assert_eq!(connection("nothing/here", json, &long), (404, close.clone()));
    assert_eq!(connection("healthz", json, &long), (405, close));
}

#[test]
fn every_bad_request_is_refused_with_place_and_remedy() {
    let trainer = Trainer::builder().body_limit(10_000).spawn().unwrap();
    let client = Client::connect(&trainer);
    let fb = |data: Value| {
        client.refused("forward_backward", client.forward_backward(1, data.as_array().unwrap()))
    };
    let with = |field: &str, value: Value| {
        let mut bad = datum("abc");
        bad["loss_fn_inputs"][field] = value;
        fb(json!([datum("abc"), bad]))
    };
    let mut no_targets = datum("abc");
    no_targets["loss_fn_inputs"] = json!({});
    let mut outside = datum("abc");
    outside["model_input"]["chunks"][0]["tokens"][1] = json!(320);
    let create = |field: &str, value: Value| {
        let mut body =
            json!({"session_id": client.session, "model_seq_id": 5, "base_model": "tiny-qwen3"});
        body[field] = value;
        client.refused("create_model", body)
    };
    let loss = |name: &str| {
        let mut body = client.forward_backward(1, &texts());
        body["forward_backward_input"]["loss_fn"] = json!(name);
        client.refused("forward_backward", body)
    };
    let sample = |field: &str, value: Value| {
        let mut body = json!({"base_model": "tiny-qwen3", "prompt": {"chunks": [{"tokens": [1]}]}, "sampling_params": {"max_tokens": 1}});
        body[field] = value;
        client.refused("asample", body)
    };
    let mut stranger = client.forward_backward(1, &texts());
    stranger["model_id"] = json!("nobody");
    let int64 = |data: Value| json!({"data": data, "dtype": "int64"});
    let cases = [
        (fb(json!([])), 400, "the batch is empty"),
        (
            fb(json!([datum("abc"), no_targets])),
            400,
            "data[1].loss_fn_inputs.target_tokens: missing",
        ),
        (
            fb(json!([outside])),
            400,
            "data[0].model_input: token id 320 at position 1 is out of range; the model's ids are 0 to 319",
        ),
        (
            with("target_tokens", int64(json!([1]))),
            400,
            "data[1].loss_fn_inputs.target_tokens: 1 rows for 2 input tokens",
        ),
        (
            with("target_tokens", int64(json!([1, -5]))),
            400,
            "token id -5 at position 1",
        ),
        (
            with(
                "target_tokens",
                json!({"data": [1.5, 2.0], "dtype": "float32"}),
            ),
            400,
            "dtype is float32; it must be int64",
        ),
        (
            with("weights", json!({"data": [1.0], "dtype": "float32"})),
            400,
            "data[1].loss_fn_inputs.weights: shape [1] differs",
        ),
        (
            with(
                "weights",
                json!({"data": [1.0], "dtype": "float32", "shape": [3]}),
            ),
            422,
            "holds 3 elements",
        ),
        (loss("dpo"), 400, "`dpo` is not a loss of this trainer"),
        (loss("ppo"), 400, "data[0].loss_fn_inputs.logprobs: missing"),
        (
            client.refused("forward_backward", stranger),
            404,
            "no model `nobody`",
        ),
        (
            client.refused("forward_backward", json!({"model_id": 3})),
            422,
            "model_id",
        ),
        (
            client.refused(
                "optim_step",
                json!({"model_id": client.model, "seq_id": 1, "adam_params": {"beta1": 1.0}}),
            ),
            400,
            "adam_params.beta1: 1 is not in [0, 1)",
        ),
        (
            client.refused(
                "optim_step",
                json!({"model_id": client.model, "seq_id": 1, "grad_accumulation_normalization": "num_sequences"}),
            ),
            400,
            "grad_accumulation_normalization: gradients are summed here",
        ),
        (
            sample("topk_sample_logprobs", json!(2)),
            400,
            "topk_sample_logprobs: not supported by this trainer",
        ),
        (
            sample("target_prompt_logprobs", int64(json!([]))),
            400,
            "target_prompt_logprobs: not supported",
        ),
        (
            sample("prompt_alt_tokens_k", json!(1)),
            400,
            "prompt_alt_tokens_k: not supported",
        ),
        (
            sample("prompt_logprobs_last_n", json!(1)),
            400,
            "prompt_logprobs_last_n: not supported",
        ),
        (
            sample("record_stability_info", json!(true)),
            400,
            "record_stability_info: not supported",
        ),
        (
            create("base_model", json!("Qwen/Qwen3-8B")),
            400,
            "no model `Qwen/Qwen3-8B` on this trainer; it has tiny-qwen3",
        ),
        (
            create("lora_config", json!({"rank": 0})),
            400,
            "lora_config.rank: 0 is not between 1 and",
        ),
        (
            create(
                "lora_config",
                json!({"train_attn": false, "train_mlp": false, "train_unembed": false}),
            ),
            400,
            "nothing would be trained",
        ),
        (
            create("session_id", json!("gone")),
            404,
            "no session `gone`",
        ),
        (
            client.refused("session_heartbeat", json!({"session_id": "gone"})),
            404,
            "no session `gone`",
        ),
        (
            client.refused("get_info", json!({"model_id": "nobody"})),
            404,
            "no model `nobody`",
        ),
        (
            client.refused("unload_model", json!({"model_id": "nobody"})),
            404,
            "no model `nobody`",
        ),
        (
            client.refused("retrieve_future", json!({"request_id": "77"})),
            404,
            "no request `77`",
        ),
        (
            client.refused("save_weights", client.named(1, "../../etc/passwd")),
            400,
            "not a checkpoint name",
        ),
        (
            client.refused(
                "save_weights",
                json!({"model_id": client.model, "seq_id": 1}),
            ),
            400,
            "path: missing",
        ),
        (
            client.refused(
                "load_weights",
                json!({"model_id": client.model, "seq_id": 1, "path": "tinker://../weights/x"}),
            ),
            400,
            "is not a checkpoint",
        ),
        (
            client.refused(
                "weights_info",
                json!({"tinker_path": "tinker://a/weights/b"}),
            ),
            404,
            "no checkpoint `tinker://a/weights/b`",
        ),
        (
            sample("prompt", json!({"chunks": []})),
            400,
            "prompt: there are no tokens",
        ),
        (
            sample("prompt", json!({"chunks": [{"tokens": [999]}]})),
            400,
            "prompt: token id 999",
        ),
        (sample("num_samples", json!(0)), 400, "num_samples: 0"),
        (
            sample("sampling_params", json!({"temperature": -1.0})),
            400,
            "temperature: -1",
        ),
        (
            sample("sampling_params", json!({"top_p": 0.0})),
            400,
            "top_p: 0",
        ),
        (
            sample("sampling_session_id", json!("gone")),
            404,
            "no sampling session `gone`",
        ),
        (
            sample("base_model", json!("other")),
            400,
            "no model `other`",
        ),
        (
            fb(json!([datum(&"x".repeat(9000))])),
            413,
            "longer than 10000 bytes",
        ),
        (client.refused("nothing/here", json!({})), 404, "Not Found"),
    ];
    for ((status, detail), want_status, want) in cases {
        assert!(detail.contains(want), "{detail:?} lacks {want:?}");
        assert_eq!(status, want_status, "{detail}");
    }
    let proto =
        client.send("forward_backward", b"\xff\xff", &[("Content-Type", "application/x-protobuf")]);
    assert_eq!(proto.0, 422);
    assert!(text(&proto.1["detail"]).contains("from protobuf"));
    let broken =
        client.send("optim_step", b"{\"model_id\":", &[("Content-Type", "application/json")]);
    assert_eq!(broken.0, 422);
    assert_eq!(trainer.stats(&client.model).unwrap().received, Counts::default());
    // After all that it still trains.
    client.result("forward_backward", client.forward_backward(1, &texts()[..1]));
}
