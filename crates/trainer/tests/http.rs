//! The trainer as a client sees it: over HTTP, in JSON.

use std::time::Duration;

use serde_json::{Value, json};
use tinsmith_trainer::{Counts, Trainer, tokenizer};

/// A client of one trainer, session and model.
struct Client {
    url: String,
    session: String,
    model: String,
    agent: ureq::Agent,
}

impl Client {
    fn connect(trainer: &Trainer) -> Self {
        Self::with_lora(trainer, json!({"rank": 8, "seed": 1}))
    }

    fn with_lora(trainer: &Trainer, lora: Value) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build();
        let mut client = Self {
            url: trainer.url(),
            session: String::new(),
            model: String::new(),
            agent: config.into(),
        };
        let session = client.ok("create_session", json!({"tags": [], "sdk_version": "test"}));
        client.session = text(&session["session_id"]);
        let create = json!({"session_id": client.session, "model_seq_id": 0, "base_model": "tiny-qwen3", "lora_config": lora});
        client.model = text(&client.result("create_model", create)["model_id"]);
        client
    }

    fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(
            path,
            body.to_string().as_bytes(),
            &[("Content-Type", "application/json")],
        )
    }

    fn send(&self, path: &str, body: &[u8], headers: &[(&str, &str)]) -> (u16, Value) {
        let mut request = self.agent.post(format!("{}/api/v1/{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.send(body).unwrap();
        let body = response.body_mut().read_to_string().unwrap();
        (
            response.status().as_u16(),
            serde_json::from_str(&body).unwrap(),
        )
    }

    fn get(&self, path: &str) -> Value {
        let mut response = self
            .agent
            .get(format!("{}/api/v1/{path}", self.url))
            .call()
            .unwrap();
        assert_eq!(response.status(), 200, "{path}");
        serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap()
    }

    fn ok(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Status and detail of a refusal.
    fn refused(&self, path: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.post(path, body);
        assert!((400..500).contains(&status), "{path}: {status} {answer}");
        (status, text(&answer["detail"]))
    }

    fn submit(&self, path: &str, body: Value) -> String {
        text(&self.ok(path, body)["request_id"])
    }

    fn retrieve(&self, request_id: &str) -> Value {
        self.ok("retrieve_future", json!({"request_id": request_id}))
    }

    fn result(&self, path: &str, body: Value) -> Value {
        let result = self.retrieve(&self.submit(path, body));
        assert_eq!(result.get("error"), None, "{path}");
        result
    }

    fn pass(&self, path: &str, seq_id: u64, data: &[Value]) -> Value {
        let field = format!("{path}_input");
        json!({field: {"data": data, "loss_fn": "cross_entropy"}, "model_id": self.model, "seq_id": seq_id})
    }

    fn forward_backward(&self, seq_id: u64, data: &[Value]) -> Value {
        self.pass("forward_backward", seq_id, data)
    }

    fn optim_step(&self, seq_id: u64) -> Value {
        json!({"adam_params": {"learning_rate": 3e-3}, "model_id": self.model, "seq_id": seq_id, "type": "optim_step"})
    }

    fn named(&self, seq_id: u64, name: &str) -> Value {
        json!({"model_id": self.model, "seq_id": seq_id, "path": name})
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no string"))
        .to_owned()
}

/// A datum that teaches `text`.
fn datum(text: &str) -> Value {
    let tokens = tokenizer::encode(text);
    let (input, targets) = (&tokens[..tokens.len() - 1], &tokens[1..]);
    json!({
        "model_input": {"chunks": [{"tokens": input}]},
        "loss_fn_inputs": {"target_tokens": {"data": targets, "dtype": "int64", "shape": [targets.len()]}},
    })
}

fn floats(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap())
        .collect()
}

const TEXTS: [&str; 3] = [
    "the quick brown fox jumps over the lazy dog",
    "pack my box",
    "five dozen liquor jugs",
];

fn texts() -> Vec<Value> {
    TEXTS.map(datum).to_vec()
}

#[test]
fn training_lowers_the_loss_and_sampling_shows_it() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let loss = |seq_id| {
        client.result(
            "forward_backward",
            client.forward_backward(seq_id, &texts()),
        )["metrics"]["loss:sum"]
            .as_f64()
            .unwrap()
    };
    let first = loss(1);
    for step in 0..30 {
        let metrics =
            client.result("optim_step", client.optim_step(2 + 2 * step))["metrics"].clone();
        assert!(metrics["grad_norm"].as_f64().unwrap() > 0.0);
        loss(3 + 2 * step);
    }
    let last = loss(62);
    assert!(last < 0.3 * first, "{first} -> {last}");

    let saved = client.result(
        "save_weights_for_sampler",
        json!({"model_id": client.model, "seq_id": 63, "sampling_session_seq_id": 0}),
    );
    let sample = json!({
        "sampling_session_id": saved["sampling_session_id"], "seq_id": 0, "num_samples": 2, "prompt_logprobs": true,
        "prompt": {"chunks": [{"tokens": tokenizer::encode("pack my box")}]},
        "sampling_params": {"max_tokens": 4, "temperature": 0.0},
    });
    let sampled = client.result("asample", sample);
    assert_eq!(sampled["sequences"].as_array().unwrap().len(), 2);
    assert_eq!(sampled["sequences"][0]["stop_reason"], "length");

    // What sampling says of the prompt is what a forward pass says of it.
    let forward = client.result(
        "forward",
        client.pass("forward", 64, &[datum("pack my box")]),
    );
    let want = floats(&forward["loss_fn_outputs"][0]["logprobs"]["data"]);
    let got = &sampled["prompt_logprobs"];
    assert!(got[0].is_null());
    for (t, want) in want.iter().enumerate() {
        assert!((got[t + 1].as_f64().unwrap() - want).abs() < 1e-4);
    }

    let counts = Counts {
        forward: 1,
        forward_backward: 32,
        optim_step: 30,
    };
    let stats = trainer.stats(&client.model).unwrap();
    assert_eq!((stats.received, stats.executed), (counts, counts));
}

#[test]
fn results_have_the_shape_of_the_targets() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let rank2 = json!({
        "model_input": {"chunks": [{"type": "encoded_text", "tokens": [1, 2]}, {"type": "encoded_text", "tokens": [3]}]},
        "loss_fn_inputs": {
            "target_tokens": {"data": [2, 5, 3, 6, 4, 7], "dtype": "int64", "shape": [3, 2]},
            "weights": {"data": [1.0, 0.0, 1.0, 0.0, 0.5, 0.0], "dtype": "float32", "shape": [3, 2]},
        },
    });
    let rank1 = json!({
        "model_input": {"chunks": [{"tokens": [1, 2, 3]}]},
        "loss_fn_inputs": {
            "target_tokens": {"data": [2, 3, 4], "dtype": "int64"},
            "weights": {"data": [1.0, 1.0, 0.5], "dtype": "float32"},
        },
    });
    let output = client.result("forward", client.pass("forward", 1, &[rank2, rank1]));
    let logprobs = |i: usize| floats(&output["loss_fn_outputs"][i]["logprobs"]["data"]);
    assert_eq!(
        output["loss_fn_outputs"][0]["logprobs"]["shape"],
        json!([3, 2])
    );
    assert_eq!(
        output["loss_fn_outputs"][1]["logprobs"]["shape"],
        json!([3])
    );
    let (two, one) = (logprobs(0), logprobs(1));
    for t in 0..3 {
        assert!((two[2 * t] - one[t]).abs() < 1e-5);
    }
    let want = -2.0 * (one[0] + one[1] + 0.5 * one[2]);
    assert!((output["metrics"]["loss:sum"].as_f64().unwrap() - want).abs() < 1e-4);
}

#[test]
fn equal_requests_to_two_trainers_give_bit_identical_weights() {
    let run = |lora: Value| {
        let trainer = Trainer::spawn().unwrap();
        let client = Client::with_lora(&trainer, lora);
        for step in 0..3 {
            client.submit(
                "forward_backward",
                client.forward_backward(1 + 2 * step, &texts()),
            );
            client.submit("optim_step", client.optim_step(2 + 2 * step));
        }
        trainer.weights_digest(&client.model).unwrap()
    };
    let seeded = run(json!({"rank": 4, "seed": 7}));
    assert_eq!(seeded, run(json!({"rank": 4, "seed": 7})));
    assert_ne!(seeded, run(json!({"rank": 4, "seed": 8})));
    assert_eq!(run(json!({"rank": 4})), run(json!({"rank": 4})));
}

#[test]
fn requests_run_in_the_order_of_their_sequence_ids() {
    let trainer = Trainer::builder()
        .long_poll(Duration::from_millis(1))
        .spawn()
        .unwrap();
    let client = Client::connect(&trainer);
    let before = trainer.weights_digest(&client.model).unwrap();
    // The step arrives first and waits for the gradient.
    let step = client.submit("optim_step", client.optim_step(2));
    let pending = client.retrieve(&step);
    assert_eq!(pending["type"], "try_again");
    assert!(
        text(&pending["queue_state_reason"]).contains("seq_id 1"),
        "{pending}"
    );
    assert_eq!(trainer.weights_digest(&client.model).unwrap(), before);
    assert_eq!(
        trainer.stats(&client.model).unwrap().executed,
        Counts::default()
    );

    client.submit("forward_backward", client.forward_backward(1, &texts()));
    assert_ne!(trainer.weights_digest(&client.model).unwrap(), before);
    let result = client.retrieve(&step);
    assert!(
        result["metrics"]["grad_norm"].as_f64().unwrap() > 0.0,
        "{result}"
    );
}

#[test]
fn a_resend_runs_once_and_another_body_is_a_conflict() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let first = client.submit("forward_backward", client.forward_backward(1, &texts()));
    assert_eq!(
        client.submit("forward_backward", client.forward_backward(1, &texts())),
        first
    );
    client.retrieve(&first);
    assert_eq!(
        client.submit("forward_backward", client.forward_backward(1, &texts())),
        first
    );
    let (status, detail) = client.refused(
        "forward_backward",
        client.forward_backward(1, &texts()[..1]),
    );
    assert_eq!(status, 409);
    assert!(detail.contains("seq_id 1 has been used"), "{detail}");
    assert_eq!(client.refused("optim_step", client.optim_step(0)).0, 409);
    assert_eq!(
        trainer
            .stats(&client.model)
            .unwrap()
            .executed
            .forward_backward,
        1
    );

    let create = json!({"session_id": client.session, "model_seq_id": 0, "base_model": "tiny-qwen3", "lora_config": {"rank": 8, "seed": 1}});
    assert_eq!(client.ok("create_model", create)["model_id"], client.model);
    let other = json!({"session_id": client.session, "model_seq_id": 0, "base_model": "tiny-qwen3", "lora_config": {"rank": 9}});
    assert_eq!(client.refused("create_model", other).0, 409);
}

#[test]
fn a_refused_request_leaves_no_gap() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    client.refused("forward_backward", client.forward_backward(1, &[]));
    client.result("forward_backward", client.forward_backward(2, &texts()));
    client.refused("forward_backward", client.forward_backward(3, &[]));
    client.result("forward_backward", client.forward_backward(3, &texts()));
}

#[test]
fn no_step_is_taken_along_part_of_a_batch() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let before = trainer.weights_digest(&client.model).unwrap();
    let mut extreme = datum("overflow");
    extreme["loss_fn_inputs"]["weights"] =
        json!({"data": [3e38, 3e38, 3e38, 3e38, 3e38, 3e38, 3e38], "dtype": "float32"});
    client.result("forward_backward", client.forward_backward(1, &texts()));
    let failed = client.submit("forward_backward", client.forward_backward(2, &[extreme]));
    let step = client.submit("optim_step", client.optim_step(3));
    assert_eq!(client.retrieve(&failed)["category"], "user");
    let answer = client.retrieve(&step);
    assert!(
        text(&answer["error"]).contains("weights are unchanged"),
        "{answer}"
    );
    assert_eq!(trainer.weights_digest(&client.model).unwrap(), before);
    // The next step starts afresh.
    client.result("forward_backward", client.forward_backward(4, &texts()));
    client.result("optim_step", client.optim_step(5));
    assert_ne!(trainer.weights_digest(&client.model).unwrap(), before);
}

#[test]
fn a_checkpoint_brings_back_weights_and_optimiser() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let step = |seq_id| {
        client.result(
            "forward_backward",
            client.forward_backward(seq_id, &texts()),
        );
        client.result("optim_step", client.optim_step(seq_id + 1));
        trainer.weights_digest(&client.model).unwrap()
    };
    let saved_at = step(1);
    let path = client.result("save_weights", client.named(3, "one"))["path"].clone();
    let next = step(4);
    let load = |seq_id, optimizer| {
        let body = json!({"model_id": client.model, "seq_id": seq_id, "path": path, "optimizer": optimizer});
        client.result("load_weights", body);
        trainer.weights_digest(&client.model).unwrap()
    };
    assert_eq!(load(6, true), saved_at);
    assert_eq!(step(7), next);
    assert_eq!(load(9, false), saved_at);
    assert_ne!(step(10), next, "without the moments the step differs");

    let info = client.ok("weights_info", json!({"tinker_path": path}));
    assert_eq!(
        (&info["base_model"], &info["lora_rank"], &info["train_mlp"]),
        (&json!("tiny-qwen3"), &json!(8), &json!(true))
    );
    let again = client.retrieve(&client.submit("save_weights", client.named(12, "one")));
    assert!(text(&again["error"]).contains("exists"), "{again}");

    let listed = || {
        client.get(&format!("training_runs/{}/checkpoints", client.model))["checkpoints"].clone()
    };
    assert_eq!(listed()[0]["tinker_path"], path);
    let deleted = client.agent.delete(format!(
        "{}/api/v1/training_runs/{}/checkpoints/weights/one",
        client.url, client.model
    ));
    assert_eq!(deleted.call().unwrap().status(), 200);
    assert_eq!(listed(), json!([]));
    assert_eq!(
        client
            .refused("weights_info", json!({"tinker_path": path}))
            .0,
        404
    );
}

#[test]
fn a_damaged_checkpoint_is_an_error_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let trainer = Trainer::builder().state_dir(folder.path()).spawn().unwrap();
    let client = Client::connect(&trainer);
    let path = client.result("save_weights", client.named(1, "one"))["path"].clone();
    let file = folder
        .path()
        .join(client.model.replace(':', "-"))
        .join("weights/one.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 10]).unwrap();
    client.result("forward_backward", client.forward_backward(2, &texts()));
    client.result("optim_step", client.optim_step(3));
    let before = trainer.weights_digest(&client.model).unwrap();
    let answer = client.retrieve(&client.submit(
        "load_weights",
        json!({"model_id": client.model, "seq_id": 4, "path": path}),
    ));
    assert!(text(&answer["error"]).contains("damaged"), "{answer}");
    assert_eq!(trainer.weights_digest(&client.model).unwrap(), before);
    let sampler =
        json!({"session_id": client.session, "sampling_session_seq_id": 0, "model_path": path});
    assert!(
        client
            .refused("create_sampling_session", sampler)
            .1
            .contains("damaged")
    );
}

#[test]
fn sampling_sessions_come_from_bases_checkpoints_and_snapshots() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let session = |n: u64, field: &str, name: &Value| {
        let body = json!({"session_id": client.session, "sampling_session_seq_id": n, field: name});
        client.ok("create_sampling_session", body)["sampling_session_id"].clone()
    };
    let sample = |id: &Value, seq_id: u64, seed: u64| {
        let body = json!({
            "sampling_session_id": id, "seq_id": seq_id, "prompt": {"chunks": [{"tokens": [72, 105]}]},
            "sampling_params": {"max_tokens": 6, "seed": seed},
        });
        client.result("asample", body)["sequences"].clone()
    };
    let base = session(0, "base_model", &json!("tiny-qwen3"));
    assert_eq!(
        session(0, "base_model", &json!("tiny-qwen3")),
        base,
        "a resend gets the first answer"
    );
    client.result("forward_backward", client.forward_backward(1, &texts()));
    client.result("optim_step", client.optim_step(2));
    let path = client.result("save_weights_for_sampler", client.named(3, "v1"))["path"].clone();
    let stored = session(1, "model_path", &path);
    let snapshot = json!({"model_id": client.model, "seq_id": 4, "sampling_session_seq_id": 2});
    let snapshot =
        client.result("save_weights_for_sampler", snapshot)["sampling_session_id"].clone();
    let samples = [&base, &stored, &snapshot].map(|id| sample(id, 0, 3));
    assert_ne!(samples[0], samples[1]);
    assert_eq!(
        samples[1], samples[2],
        "the checkpoint holds what the snapshot holds"
    );
    assert_ne!(samples[2], sample(&snapshot, 1, 4));

    let info = client.get(&format!("samplers/{}", text(&stored)));
    assert_eq!(
        (&info["base_model"], &info["model_path"]),
        (&json!("tiny-qwen3"), &path)
    );
}

#[test]
fn every_bad_request_is_refused_with_place_and_remedy() {
    let trainer = Trainer::builder().body_limit(10_000).spawn().unwrap();
    let client = Client::connect(&trainer);
    let fb = |data: Value| {
        client.refused(
            "forward_backward",
            client.forward_backward(1, data.as_array().unwrap()),
        )
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
        (client.refused("client/config", json!({})), 404, "Not Found"),
    ];
    for ((status, detail), want_status, want) in cases {
        assert!(detail.contains(want), "{detail:?} lacks {want:?}");
        assert_eq!(status, want_status, "{detail}");
    }
    let proto = client.send(
        "forward_backward",
        b"\x0a\x01m",
        &[("Content-Type", "application/x-protobuf")],
    );
    assert_eq!(proto.0, 415);
    assert!(text(&proto.1["detail"]).contains("JSON dialect"));
    let broken = client.send(
        "optim_step",
        b"{\"model_id\":",
        &[("Content-Type", "application/json")],
    );
    assert_eq!(broken.0, 422);
    assert_eq!(
        trainer.stats(&client.model).unwrap().received,
        Counts::default()
    );
    // After all that it still trains.
    client.result(
        "forward_backward",
        client.forward_backward(1, &texts()[..1]),
    );
}

#[test]
fn a_key_is_asked_for_when_one_is_set() {
    let trainer = Trainer::builder().api_key("tml-secret").spawn().unwrap();
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build();
    let client = Client {
        url: trainer.url(),
        session: String::new(),
        model: String::new(),
        agent: config.into(),
    };
    let create = |headers: &[(&str, &str)]| client.send("create_session", b"{}", headers);
    for headers in [&[][..], &[("X-API-Key", "tml-wrong")]] {
        let (status, answer) = create(headers);
        assert_eq!(status, 401);
        assert!(text(&answer["detail"]).contains("API key"), "{answer}");
    }
    assert_eq!(create(&[("X-API-Key", "tml-secret")]).0, 200);
    let health = client
        .agent
        .get(format!("{}/api/v1/healthz", client.url))
        .call()
        .unwrap();
    assert_eq!(health.status(), 200);
}

#[test]
fn a_session_lives_until_it_is_finished() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let beat = || {
        client
            .post("session_heartbeat", json!({"session_id": client.session}))
            .0
    };
    assert_eq!(beat(), 200);
    let finish = format!("sessions/{}/finish", client.session);
    for _ in 0..2 {
        client.ok(
            &finish,
            json!({"reason": {"type": "success"}, "detail": null}),
        );
    }
    assert_eq!(beat(), 410);
}

#[test]
fn an_unloaded_model_is_gone() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let info = client.ok("get_info", json!({"model_id": client.model}));
    assert_eq!(
        (&info["lora_rank"], &info["model_name"]),
        (&json!(8), &json!("tiny-qwen3"))
    );
    let stuck = client.submit("optim_step", client.optim_step(2));
    client.result("unload_model", json!({"model_id": client.model}));
    assert!(
        text(&client.retrieve(&stuck)["error"]).contains("no model"),
        "what waited behind a gap fails"
    );
    assert_eq!(
        client
            .refused("forward_backward", client.forward_backward(1, &texts()))
            .0,
        404
    );
    assert!(trainer.weights(&client.model).is_err());
}

#[test]
fn dropping_a_trainer_does_not_wait_for_polls_or_gaps() {
    let trainer = Trainer::builder()
        .long_poll(Duration::from_secs(600))
        .spawn()
        .unwrap();
    let client = Client::connect(&trainer);
    let stuck = client.submit("optim_step", client.optim_step(2));
    let poll = std::thread::spawn(move || {
        let body = json!({"request_id": stuck}).to_string();
        client
            .agent
            .post(format!("{}/api/v1/retrieve_future", client.url))
            .send(body.as_bytes())
            .is_err()
    });
    drop(trainer);
    assert!(poll.join().unwrap(), "the poll is cut off");
}

#[test]
fn importance_sampling_on_policy_trains_like_weighted_cross_entropy() {
    let trainer = Trainer::spawn().unwrap();
    let train = |on_policy: bool| {
        let client = Client::connect(&trainer);
        let text = "on policy";
        let n = text.len() - 1;
        let advantages =
            json!({"data": (0..n).map(|t| t as f64 - 2.5).collect::<Vec<_>>(), "dtype": "float32"});
        let forward = client.result("forward", client.pass("forward", 1, &[datum(text)]));
        let mut datum = datum(text);
        let mut body = client.forward_backward(2, &[]);
        if on_policy {
            // With q = the policy's own logprobs every ratio is 1, and the gradient is -advantage, as with weights.
            datum["loss_fn_inputs"]["logprobs"] = forward["loss_fn_outputs"][0]["logprobs"].clone();
            datum["loss_fn_inputs"]["advantages"] = advantages;
            body["forward_backward_input"]["loss_fn"] = json!("importance_sampling");
        } else {
            datum["loss_fn_inputs"]["weights"] = advantages;
        }
        body["forward_backward_input"]["data"] = json!([datum]);
        client.result("forward_backward", body);
        let mut step = client.optim_step(3);
        step["adam_params"]["eps"] = json!(1e-3);
        client.result("optim_step", step);
        let flat = |(_, tensor): (String, tinsmith_grad::Tensor)| {
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        trainer
            .weights(&client.model)
            .unwrap()
            .into_iter()
            .flat_map(flat)
            .collect::<Vec<_>>()
    };
    for (a, b) in train(true).iter().zip(train(false)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}
