//! Saving and loading.

use serde_json::json;
use tinsmith_trainer::Trainer;

use crate::support::{Client, text, texts};

#[test]
fn a_checkpoint_brings_back_weights_and_optimizer() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let step = |seq_id| {
        client.result("forward_backward", client.forward_backward(seq_id, &texts()));
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
    assert_eq!(client.refused("weights_info", json!({"tinker_path": path})).0, 404);
}

#[test]
fn a_damaged_checkpoint_is_an_error_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let trainer = Trainer::builder().state_dir(folder.path()).spawn().unwrap();
    let client = Client::connect(&trainer);
    let path = client.result("save_weights", client.named(1, "one"))["path"].clone();
    let file = folder.path().join(client.model.replace(':', "-")).join("weights/one.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 10]).unwrap();
    client.result("forward_backward", client.forward_backward(2, &texts()));
    client.result("optim_step", client.optim_step(3));
    let before = trainer.weights_digest(&client.model).unwrap();
    let answer = client.retrieve(
        &client
            .submit("load_weights", json!({"model_id": client.model, "seq_id": 4, "path": path})),
    );
    assert!(text(&answer["error"]).contains("damaged"), "{answer}");
    assert_eq!(trainer.weights_digest(&client.model).unwrap(), before);
    let sampler =
        json!({"session_id": client.session, "sampling_session_seq_id": 0, "model_path": path});
    assert!(client.refused("create_sampling_session", sampler).1.contains("damaged"));
}
