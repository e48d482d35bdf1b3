//! Sampling sessions.

use serde_json::{Value, json};
use tinsmith_trainer::Trainer;

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
    assert_eq!(
        samples[1], samples[2],
        "the checkpoint holds what the snapshot holds"
    );
    assert_ne!(samples[2], sample(&snapshot, 1, 4));

    let join = || {
        client.ok(
            "join_sampling_session",
            json!({"sampling_session_id": stored}),
        )
    };
    assert_eq!(join(), json!({"client_counter": 1}));
    assert_eq!(join(), json!({"client_counter": 2}));
    let (status, _) = client.refused("join_sampling_session", json!({"sampling_session_id": "x"}));
    assert_eq!(status, 404);

    let info = client.get(&format!("samplers/{}", text(&stored)));
    assert_eq!(
        (&info["base_model"], &info["model_path"]),
        (&json!("tiny-qwen3"), &path)
    );
}
