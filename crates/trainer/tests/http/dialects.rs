//! The protobuf dialect beside the JSON one, and what a client asks to choose between them.

use std::borrow::Cow;

use serde_json::{Value, json};
use tinsmith_trainer::{Trainer, tokenizer};
use tinsmith_wire::{
    Datum, ForwardBackwardOutput, LossFn, ModelInput, Pass, PassRequest, SampleResponse,
    TensorData, proto,
};

use crate::support::{Client, datum, floats, text};

const PROTO: &str = "application/x-protobuf";

/// Status, content type and body of a POST.
fn post(
    client: &Client,
    path: &str,
    body: &[u8],
    headers: &[(&str, &str)],
) -> (u16, String, Vec<u8>) {
    let mut request = client.agent.post(format!("{}/api/v1/{path}", client.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = request.send(body).unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let body = response.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap();
    (response.status().as_u16(), kind, body)
}

/// A datum that asks for the logprob of the next token of `text`.
fn next_tokens(text: &str) -> Datum {
    let tokens = tokenizer::encode(text);
    let targets: Vec<i64> = tokens[1..].iter().map(|&t| i64::from(t)).collect();
    Datum::new(ModelInput::from_tokens(tokens[..tokens.len() - 1].to_vec()))
        .with("target_tokens", TensorData::from(targets))
}

fn submit(client: &Client, pass: Pass, seq_id: u64, datum: Datum) -> String {
    let request = PassRequest {
        pass,
        data: Cow::Owned(vec![datum]),
        loss_fn: LossFn::CrossEntropy,
        loss_fn_config: None,
        model_id: client.model.clone(),
        seq_id,
    };
    let body = proto::to_vec(&request).unwrap();
    let (status, _, answer) = post(client, "forward_backward", &body, &[("Content-Type", PROTO)]);
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    text(&serde_json::from_slice::<Value>(&answer).unwrap()["request_id"])
}

/// The answer to a poll that takes protobuf, once it is more than "try again".
fn poll(client: &Client, request_id: &str, metadata_only: bool) -> (String, Vec<u8>) {
    let question =
        json!({"request_id": request_id, "allow_metadata_only": metadata_only}).to_string();
    let headers = [("Content-Type", "application/json"), ("Accept", PROTO)];
    loop {
        let (status, kind, body) = post(client, "retrieve_future", question.as_bytes(), &headers);
        assert_eq!(status, 200);
        let pending =
            |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["type"] == "try_again";
        if kind == PROTO || !pending(&body) {
            return (kind, body);
        }
    }
}

fn logprobs(output: &ForwardBackwardOutput) -> Vec<f32> {
    output.loss_fn_outputs[0]["logprobs"].as_f32().unwrap().to_vec()
}

#[test]
fn a_pass_means_the_same_in_both_dialects() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let id = submit(&client, Pass::Forward, 1, next_tokens("pack my box"));
    let (kind, body) = poll(&client, &id, true);
    assert_eq!(kind, PROTO);
    let output: ForwardBackwardOutput = proto::from_vec(body).unwrap();

    let json = client.result("forward", client.pass("forward", 2, &[datum("pack my box")]));
    let want = floats(&json["loss_fn_outputs"][0]["logprobs"]["data"]);
    let want: Vec<f32> = want.into_iter().map(|x| x as f32).collect();
    assert_eq!(logprobs(&output), want);
    assert_eq!(output.metrics["loss:sum"], json["metrics"]["loss:sum"].as_f64().unwrap());
    // The same result again, to a client that takes JSON only.
    assert_eq!(client.retrieve(&id)["metrics"], json["metrics"]);
    let counts = trainer.stats(&client.model).unwrap().executed;
    assert_eq!((counts.forward, counts.forward_backward), (2, 0));
}

#[test]
fn samples_come_as_protobuf_and_failures_as_json() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let sample = json!({
        "base_model": "tiny-qwen3", "num_samples": 2, "prompt": {"chunks": [{"tokens": [72, 105]}]}, "prompt_logprobs": true,
        "sampling_params": {"max_tokens": 3, "temperature": 0.0},
    });
    let submitted = client.ok("asample", sample);
    assert_eq!(submitted["sample_sequence_ids"].as_array().unwrap().len(), 2);
    let id = text(&submitted["request_id"]);
    let (kind, body) = poll(&client, &id, true);
    assert_eq!(kind, PROTO);
    let sampled: SampleResponse = proto::from_vec(body).unwrap();
    let json = client.retrieve(&id);
    let tokens: Vec<f64> = sampled.sequences[0].tokens.iter().map(|&t| f64::from(t)).collect();
    assert_eq!(tokens, floats(&json["sequences"][0]["tokens"]));
    assert_eq!(sampled.prompt_logprobs.unwrap()[0], None);

    let missing = json!({"model_id": client.model, "seq_id": 1, "path": "tinker://x/weights/none"});
    let (kind, body) = poll(&client, &client.submit("load_weights", missing), true);
    assert_eq!(kind, "application/json");
    let failed: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(failed["category"], "user");
    assert!(text(&failed["error"]).contains("tinker://x/weights/none"));
}

#[test]
fn a_large_result_is_announced_to_those_who_ask_for_that() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    // 64 tokens with 1,040 targets each have more than 256 KiB of logprobs.
    let targets = TensorData::new(vec![7i64; 64 * 1040], &[64, 1040]).unwrap();
    let datum = Datum::new(ModelInput::from_tokens(vec![1; 64])).with("target_tokens", targets);
    let id = submit(&client, Pass::Forward, 1, datum);
    let (kind, body) = poll(&client, &id, true);
    assert_eq!(kind, "application/json");
    let head: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(head["status"], "complete_metadata");
    let (kind, body) = poll(&client, &id, false);
    assert_eq!(
        (kind.as_str(), head["response_payload_size"].as_u64()),
        (PROTO, Some(body.len() as u64))
    );
    let output: ForwardBackwardOutput = proto::from_vec(body).unwrap();
    assert_eq!(logprobs(&output).len(), 64 * 1040);
}

#[test]
fn config_endpoints_answer_with_the_defaults() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let ask = |path: &str| client.ok(path, json!({"sdk_version": "0.38.0"}));
    let config = ask("client/config");
    assert_eq!(config["fwdbwd_max_chunk_len"], 1024);
    assert_eq!(config["pjwt_auth_enabled"], false);
    assert_eq!(config["proto_compress_fwdbwd"], false);
    assert_eq!(ask("client/dynamic_config")["refresh_interval_sec"], 300.0);
}

#[test]
fn bodies_in_other_forms_are_refused() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let refused = |path: &str, body: &[u8], headers: &[(&str, &str)]| {
        let (status, _, body) = post(&client, path, body, headers);
        let body: Value = serde_json::from_slice(&body).unwrap();
        (status, text(&body["detail"]))
    };
    let (status, detail) = refused("forward_backward", &[0xff, 0xff], &[("Content-Type", PROTO)]);
    assert_eq!(status, 422, "{detail}");
    assert!(detail.contains("from protobuf"), "{detail}");
    let (status, detail) = refused("optim_step", &[], &[("Content-Type", PROTO)]);
    assert_eq!((status, detail.contains("JSON in every dialect")), (415, true));
    let zstd = [("Content-Type", PROTO), ("Content-Encoding", "zstd")];
    let (status, detail) = refused("forward_backward", &[], &zstd);
    assert_eq!((status, detail.contains("`zstd`")), (415, true));
}

#[test]
fn a_model_is_created_from_a_checkpoint() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let data = [datum("pack my box")];
    client.result("forward_backward", client.forward_backward(1, &data));
    client.result("optim_step", client.optim_step(2));
    let path = text(&client.result("save_weights", client.named(3, "first"))["path"]);
    let load =
        json!({"session_id": client.session, "model_seq_id": 1, "path": path, "optimizer": true});
    let made = client.result("load_weights", load);
    let twin = text(&made["model_id"]);
    assert_eq!(twin, format!("{}:train:1", client.session));
    assert_eq!(
        trainer.weights_digest(&twin).unwrap(),
        trainer.weights_digest(&client.model).unwrap()
    );
    // The optimizer came along: the same step takes both to the same place.
    client.result("forward_backward", client.forward_backward(4, &data));
    client.result("optim_step", client.optim_step(5));
    let twin = Client { model: twin, ..client };
    twin.result("forward_backward", twin.forward_backward(1, &data));
    twin.result("optim_step", twin.optim_step(2));
    let model = format!("{}:train:0", twin.session);
    assert_eq!(
        trainer.weights_digest(&twin.model).unwrap(),
        trainer.weights_digest(&model).unwrap()
    );
    let body = json!({
        "session_id": twin.session, "model_seq_id": 2, "path": path, "base_model": "small-qwen3",
    });
    let (status, detail) = twin.refused("load_weights", body);
    assert_eq!(
        (status, detail.contains("trained on `tiny-qwen3`, not on `small-qwen3`")),
        (400, true)
    );
}
