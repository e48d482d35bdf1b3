//! Sampling sessions.

use std::time::Duration;

use serde_json::{Value, json};
use tinsmith_trainer::Trainer;
use tinsmith_wire::ClientConfig;

use crate::support::{Client, text, texts};

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
    assert_eq!(samples[1], samples[2], "the checkpoint holds what the snapshot holds");
    assert_ne!(samples[2], sample(&snapshot, 1, 4));

    let join = || client.ok("join_sampling_session", json!({"sampling_session_id": stored}));
    assert_eq!(join(), json!({"client_counter": 1}));
    assert_eq!(join(), json!({"client_counter": 2}));
    let (status, _) = client.refused("join_sampling_session", json!({"sampling_session_id": "x"}));
    assert_eq!(status, 404);

    let info = client.get(&format!("samplers/{}", text(&stored)));
    assert_eq!((&info["base_model"], &info["model_path"]), (&json!("tiny-qwen3"), &path));
}

#[test]
fn one_question_tells_which_samples_of_a_client_have_ended() {
    let trainer = Trainer::builder().long_poll(Duration::from_secs(60)).spawn().unwrap();
    let client = Client::connect(&trainer);
    let body = json!({"session_id": client.session, "sampling_session_seq_id": 0, "base_model": "tiny-qwen3"});
    let session = client.ok("create_sampling_session", body)["sampling_session_id"].clone();
    let submit = |seq_id: u64| {
        let prompt = json!({"chunks": [{"tokens": [72, 105]}]});
        let body = json!({"sampling_session_id": session, "seq_id": seq_id, "prompt": prompt, "sampling_params": {"max_tokens": 2}});
        client.submit("asample", body)
    };
    let ended = |copy: u64, cursor: u64, timeout: Option<f64>| {
        let target = json!({"type": "sampling_session", "sampling_session_id": session, "cloned_sampler_id": copy});
        client.ok(
            "retrieve_futures",
            json!({"target": target, "prev_cursor": cursor, "timeout": timeout}),
        )
    };
    assert_eq!(ended(0, 0, Some(0.0)), json!({"completions": [], "cursor": 0}));
    let ids = [submit(0), submit(1)];
    let copys = submit(3_000_000_000);
    // They are computed in this order, so with the last one all have ended.
    client.retrieve(&copys);
    let finished = |id: &str| json!({"state": "finished", "request_id": id});
    let both = [finished(&ids[0]), finished(&ids[1])];
    assert_eq!(ended(0, 0, None), json!({"completions": both, "cursor": 2}));
    assert_eq!(ended(0, 1, None), json!({"completions": both[1..], "cursor": 2}));
    assert_eq!(ended(3, 0, None), json!({"completions": [finished(&copys)], "cursor": 1}));
    // This one is waited for.
    let id = submit(2);
    assert_eq!(ended(0, 2, None), json!({"completions": [finished(&id)], "cursor": 3}));

    let target = json!({"type": "sampling_session", "sampling_session_id": session});
    let impatient = json!({"target": target, "prev_cursor": 0, "timeout": -1});
    let (status, detail) = client.refused("retrieve_futures", impatient);
    assert_eq!((status, detail.contains("timeout: ")), (400, true), "{detail}");

    let target = json!({"type": "sampling_session", "sampling_session_id": "x"});
    let (status, _) =
        client.refused("retrieve_futures", json!({"target": target, "prev_cursor": 0}));
    assert_eq!(status, 404);
}

#[test]
fn clients_are_told_the_config_that_was_set_and_no_promise_is_made_in_vain() {
    let config = |compress| ClientConfig {
        fwdbwd_max_chunk_len: 4,
        sample_use_retrieve_futures: true,
        proto_compress_fwdbwd: compress,
        ..ClientConfig::default()
    };
    let trainer = Trainer::builder().client_config(config(false)).spawn().unwrap();
    let told = Client::connect(&trainer).ok("client/config", json!({"sdk_version": "test"}));
    assert_eq!(
        (&told["fwdbwd_max_chunk_len"], &told["sample_use_retrieve_futures"]),
        (&json!(4), &json!(true))
    );
    let no_key = ClientConfig { pjwt_auth_enabled: true, ..ClientConfig::default() };
    for (config, switch) in [(config(true), "proto_compress_fwdbwd"), (no_key, "pjwt_auth_enabled")]
    {
        let refused = Trainer::builder().client_config(config).spawn();
        let error = refused.err().unwrap().to_string();
        assert!(error.contains(switch), "{error}");
    }
}
