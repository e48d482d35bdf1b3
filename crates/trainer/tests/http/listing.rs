//! Runs, checkpoints and sessions over REST.

use std::io::Read;
use std::time::Duration;

use serde_json::{Value, json};
use tinsmith_trainer::Trainer;

use crate::support::{Client, text, texts};

/// Status and body of a request without a body, or with a JSON one.
fn call(client: &Client, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let url = format!("{}/api/v1/{path}", client.url);
    let mut response = match (method, body) {
        ("GET", _) => client.agent.get(url).call(),
        ("DELETE", _) => client.agent.delete(url).call(),
        (method, body) => {
            let body = body.unwrap_or_default().to_string();
            let request = match method {
                "POST" => client.agent.post(url),
                _ => client.agent.put(url),
            };
            request.header("Content-Type", "application/json").send(body)
        }
    }
    .unwrap();
    let status = response.status().as_u16();
    let body = response.body_mut().read_to_string().unwrap();
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

#[test]
fn runs_are_listed_with_their_newest_checkpoints_and_the_users_notes() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    for (seq, rank) in [(1, 2), (2, 3)] {
        let create = json!({
            "session_id": client.session, "model_seq_id": seq, "base_model": "small-qwen3",
            "lora_config": {"rank": rank}, "user_metadata": {"try": seq},
        });
        client.result("create_model", create);
    }
    let save =
        json!({"model_id": client.model, "seq_id": 1, "path": "a", "user_metadata": {"step": 7}});
    client.result("save_weights", save);
    client.result("save_weights_for_sampler", client.named(2, "b"));

    let page = client.get("training_runs?limit=2&offset=0");
    assert_eq!(page["cursor"], json!({"offset": 0, "limit": 2, "total_count": 3}));
    let runs = page["training_runs"].as_array().unwrap();
    let ranks: Vec<&Value> = runs.iter().map(|run| &run["lora_rank"]).collect();
    assert_eq!(ranks, [3, 2]);
    assert_eq!(runs[0]["user_metadata"], json!({"try": 2}));
    assert_eq!(
        client.get("training_runs?offset=2")["training_runs"][0]["training_run_id"],
        client.model.as_str()
    );

    let run = client.get(&format!("training_runs/{}", client.model));
    assert_eq!(run["base_model"], "tiny-qwen3");
    assert_eq!(run["last_checkpoint"]["checkpoint_id"], "weights/a");
    assert_eq!(run["last_checkpoint"]["user_metadata"], json!({"step": 7}));
    assert_eq!(run["last_sampler_checkpoint"]["checkpoint_type"], "sampler");
    let all = client.get("checkpoints?limit=1&offset=1");
    assert_eq!(all["cursor"]["total_count"], 2);
    assert_eq!(all["checkpoints"][0]["checkpoint_id"], "weights/a");

    let session = client.get(&format!("sessions/{}", client.session));
    assert_eq!(session["training_run_ids"].as_array().unwrap().len(), 3);
    assert_eq!(client.get("sessions")["sessions"], json!([client.session]));
    assert_eq!(call(&client, "GET", "training_runs/none", None).0, 404);
    assert_eq!(call(&client, "GET", "training_runs?limit=0", None).0, 400);
    assert_eq!(call(&client, "GET", "training_runs?limit=x", None).0, 400);
}

#[test]
fn a_checkpoint_lives_as_long_as_it_is_given() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let mut save = client.named(1, "a");
    save["ttl_seconds"] = 60.into();
    let (status, detail) = client.refused("save_weights", save.clone());
    assert_eq!(
        (status, detail.contains("ttl_seconds: 60 is not between 3600")),
        (400, true),
        "{detail}"
    );
    save["ttl_seconds"] = 7200.into();
    client.result("save_weights", save);
    let at = format!("training_runs/{}/checkpoints", client.model);
    let expiry = || client.get(&at)["checkpoints"][0]["expires_at"].clone();
    assert!(expiry().is_string());
    let put = |ttl: Value| {
        call(&client, "PUT", &format!("{at}/weights/a/ttl"), Some(json!({"ttl_seconds": ttl}))).0
    };
    assert_eq!(put(Value::Null), 200);
    assert!(expiry().is_null());
    assert_eq!(put(1.into()), 400);
    assert_eq!(call(&client, "DELETE", &format!("{at}/weights/a"), None).0, 200);
    assert_eq!(put(3600.into()), 404);
    assert_eq!(client.get(&at)["checkpoints"], json!([]));
}

#[test]
fn a_checkpoint_is_public_from_publishing_to_taking_it_back() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let mut save = client.named(1, "a");
    save["ttl_seconds"] = 7200.into();
    client.result("save_weights", save);
    let at = format!("training_runs/{}/checkpoints", client.model);
    let listed = || client.get(&at)["checkpoints"][0].clone();
    assert_eq!(listed()["public"], false);
    let publish = format!("{at}/weights/a/publish");
    assert_eq!(call(&client, "POST", &publish, None).0, 200);
    assert_eq!(listed()["public"], true);
    assert!(listed()["expires_at"].is_string(), "what else was noted stays");
    let ttl = Some(json!({"ttl_seconds": null}));
    let path = format!("{at}/weights/a/ttl");
    assert_eq!(call(&client, "PUT", &path, ttl).0, 200);
    assert_eq!(listed()["public"], true);
    assert_eq!(call(&client, "DELETE", &publish, None).0, 200);
    assert_eq!(listed()["public"], false);
    let none = publish.replace("/a/", "/none/");
    assert_eq!(call(&client, "POST", &none, None).0, 404);
}

#[test]
fn a_checkpoint_is_downloaded_from_where_its_archive_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let trainer = Trainer::builder().state_dir(folder.path()).spawn().unwrap();
    let client = Client::connect(&trainer);
    client.result("forward_backward", client.forward_backward(1, &texts()));
    client.result("save_weights", client.named(2, "a"));
    let archive = format!("training_runs/{}/checkpoints/weights/a/archive", client.model);
    // The agent follows the redirect.
    let mut response = client.agent.get(format!("{}/api/v1/{archive}", client.url)).call().unwrap();
    let got = response.body_mut().read_to_vec().unwrap();
    let mut archive_read = tar::Archive::new(got.as_slice());
    let mut entries = archive_read.entries().unwrap();
    let mut entry = entries.next().unwrap().unwrap();
    assert_eq!(entry.path().unwrap().to_str(), Some("a.safetensors"));
    let mut inside = Vec::new();
    entry.read_to_end(&mut inside).unwrap();
    let run = client.model.replace(':', "-");
    let file = folder.path().join(run).join("weights/a.safetensors");
    assert_eq!(inside, std::fs::read(file).unwrap());
    assert!(entries.next().is_none());
    assert_eq!(call(&client, "GET", &archive.replace("/a/", "/none/"), None).0, 404);
}

#[test]
fn a_session_that_falls_silent_is_over() {
    let trainer = Trainer::builder().session_timeout(Duration::ZERO).spawn().unwrap();
    // One that never sends a heartbeat needs none.
    let client = Client::connect(&trainer);
    client.result("forward", client.pass("forward", 1, &texts()));
    let sampler = json!({"session_id": client.session, "sampling_session_seq_id": 0, "base_model": "tiny-qwen3"});
    let sampler = text(&client.ok("create_sampling_session", sampler)["sampling_session_id"]);
    let beat = json!({"session_id": client.session});
    client.ok("session_heartbeat", beat.clone());
    let (status, detail) = client.refused("session_heartbeat", beat);
    assert_eq!((status, detail.contains("is over")), (410, true));
    assert_eq!(call(&client, "GET", &format!("samplers/{sampler}"), None).0, 404);
}
