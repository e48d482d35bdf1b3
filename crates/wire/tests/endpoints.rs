//! The bodies of every other endpoint, as servers and the Python SDK write them: each is read, and
//! written as it was.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tinsmith_wire::*;

/// Reads a body and checks that it is written the same.
#[track_caller]
fn same<T: Serialize + DeserializeOwned>(body: Value) -> T {
    let read: T = json::from_slice(body.to_string().as_bytes()).unwrap();
    let written: Value = serde_json::from_slice(&json::to_vec(&read).unwrap()).unwrap();
    assert_eq!(written, body);
    read
}

#[track_caller]
fn read<T: DeserializeOwned>(body: Value) -> T {
    json::from_slice(body.to_string().as_bytes()).unwrap()
}

#[test]
fn an_empty_config_is_the_documented_one() {
    let config: ClientConfig = read(json!({}));
    let written = serde_json::from_slice::<Value>(&json::to_vec(&config).unwrap()).unwrap();
    assert_eq!(
        written,
        json!({
            "fwdbwd_max_chunk_len": 1024,
            "fwdbwd_max_chunk_bytes_count": 5_000_000,
            "parallel_fwdbwd_chunks": true,
            "proto_compress_fwdbwd": false,
            "fwdbwd_dispatch_bytes_semaphore_size": 50_000_000,
            "inflight_response_bytes_semaphore_size": 52_428_800,
            "sample_dispatch_bytes_semaphore_size": 10_485_760,
            "sample_max_concurrent_requests": 2000,
            "sample_no_retries": false,
            "sample_use_retrieve_futures": false,
            "sample_join_sampling_session": false,
            "sample_enable_stuck_detection": true,
            "custom_loss_server_side": false,
            "pjwt_auth_enabled": false,
            "credential_default_source": "api_key",
            "billing_exception_max_pause_duration_sec": 3600.0,
        })
    );
    let dynamic: DynamicConfig =
        read(json!({"refresh_interval_sec": 60, "sample_cancel_enabled": null}));
    assert_eq!(dynamic, DynamicConfig { refresh_interval_sec: 60.0, ..DynamicConfig::default() });
    assert_eq!(dynamic.sample_cancel_max_batch_size, 64);
}

#[test]
fn a_token_is_printed_nowhere() {
    let token: AuthTokenResponse = same(json!({"jwt": "eyJ.secret"}));
    assert_eq!(format!("{token:?}"), "AuthTokenResponse { jwt: (secret) }");
    same::<AuthTokenRequest>(json!({}));
}

#[test]
fn sessions() {
    same::<CreateSessionRequest>(json!({
        "type": "create_session", "tags": ["a"], "user_metadata": {}, "sdk_version": "0.38.0",
        "project_id": "p", "display_name": "mine",
    }));
    let finish: FinishSessionRequest =
        same(json!({"reason": {"type": "interrupted"}, "detail": null}));
    assert_eq!(finish.reason, FinishReason::Interrupted);
    same::<SessionsResponse>(json!({"sessions": ["s1", "s2"]}));
    same::<SessionInfo>(
        json!({"training_run_ids": ["r"], "sampler_ids": [], "display_name": "mine"}),
    );
}

#[test]
fn what_servers_know_of_a_model() {
    let name = |data: Value| {
        let info: GetInfoResponse = read(json!({"model_id": "m", "model_data": data}));
        info.model_data.model_name
    };
    // As SkyRL-tx 0.3.0 writes it.
    let lora = json!({"rank": 8, "seed": null});
    let skyrl = json!({"base_model": "tiny", "lora_config": lora, "model_name": "tiny"});
    assert_eq!(name(skyrl).as_deref(), Some("tiny"));
    assert_eq!(name(json!({"base_model": "tiny"})).as_deref(), Some("tiny"));
    assert_eq!(name(json!({"model_name": null})), None);
}

#[test]
fn optimizers() {
    let model: CreateModelRequest = same(json!({
        "type": "create_model", "session_id": "s", "model_seq_id": 0, "base_model": "m",
        "lora_config": {"rank": 8, "train_unembed": true, "train_mlp": true, "train_attn": true},
        "optimizer_config": {"type": "dimuon", "version": 1},
    }));
    assert_eq!(model.optimizer_config, Some(OptimizerConfig::Dimuon { version: 1 }));
    let info: GetInfoResponse =
        read(json!({"model_id": "m", "optimizer_config": {"type": "sgd", "momentum": 0.9}}));
    let sgd = [("type".to_owned(), json!("sgd")), ("momentum".to_owned(), json!(0.9))];
    assert_eq!(info.optimizer_config, Some(OptimizerConfig::Other(sgd.into())));
    assert_eq!(json::to_vec(&OptimizerConfig::AdamW).unwrap(), br#"{"type":"adamw"}"#);

    let step: OptimStepRequest = same(json!({
        "type": "optim_step", "model_id": "m", "seq_id": 4,
        "optimizer_params": {"type": "dimuon", "learning_rate": 0.5, "grad_clip_norm": 0.0, "beta1": 0.9},
        "grad_accumulation_normalization": "num_loss_tokens",
    }));
    let expected = DimuonParams { learning_rate: 0.5, ..DimuonParams::default() };
    assert_eq!(step.params, expected.into());
    let normalization = GradAccumulationNormalization::NumLossTokens;
    assert_eq!(step.grad_accumulation_normalization, Some(normalization));
    let adam: AdamParams = read(json!({"emit_grad_norm_metrics": "detailed"}));
    assert_eq!(adam.emit_grad_norm_metrics, Some(GradNormMetrics::Detailed));
    let bare: OptimStepRequest = read(json!({"model_id": "m", "seq_id": 4}));
    assert_eq!(bare.params, AdamParams::default().into());
}

#[test]
fn checkpoints() {
    same::<SaveWeightsForSamplerRequest>(json!({
        "type": "save_weights_for_sampler", "model_id": "m", "sampling_session_seq_id": 0, "seq_id": 5,
        "overwrite": true, "ttl_seconds": 3600, "user_metadata": {"note": 1}, "kind": "inflight",
    }));
    same::<SaveWeightsExternalRequest>(json!({
        "type": "save_weights_external", "model_id": "m", "path": "a", "seq_id": 6,
        "age_encryption_recipients": ["age1"],
    }));
    same::<SaveWeightsExternalResponse>(
        json!({"type": "save_weights_external", "path": "tinker://m/external_weights/a"}),
    );
    let into: LoadWeights = same(json!({
        "type": "load_weights", "model_id": "m", "seq_id": 7, "path": "tinker://r/weights/a", "optimizer": true,
        "weights_access_token": "t",
    }));
    assert!(matches!(into, LoadWeights::IntoModel(request) if request.optimizer));
    let new: LoadWeights = same(json!({
        "type": "load_weights", "session_id": "s", "model_seq_id": 1, "path": "tinker://r/weights/a", "optimizer": false,
        "base_model": "m", "optimizer_config": {"type": "adamw"},
    }));
    assert!(matches!(new, LoadWeights::NewModel(request) if request.model_seq_id == 1));
    let error = json::from_slice::<LoadWeights>(br#"{"path":"tinker://r/weights/a"}"#).unwrap_err();
    assert!(error.to_string().contains("missing field `session_id`"), "{error}");
    same::<WeightsInfoResponse>(json!({
        "base_model": "m", "is_lora": true, "lora_rank": 8, "optimizer_config": {"type": "adamw"},
    }));
    same::<SetTtlRequest>(json!({"ttl_seconds": null}));
    same::<ExternalWeightsUrls>(
        json!({"urls": {"adapter.safetensors": "https://x"}, "expires": "2026-01-01T00:00:00Z"}),
    );
    same::<CopyWeights>(json!({"tinker_path": "tinker://r/weights/a"}));
}

#[test]
fn lists() {
    let checkpoint = json!({
        "checkpoint_id": "weights/a", "checkpoint_type": "training", "time": "2026-01-01T00:00:00Z",
        "tinker_path": "tinker://r/weights/a", "size_bytes": 10, "public": false, "expires_at": "2027-01-01T00:00:00Z",
    });
    let runs: TrainingRunsResponse = same(json!({
        "training_runs": [{
            "training_run_id": "r", "base_model": "m", "model_owner": "o", "is_lora": true, "lora_rank": 8,
            "corrupted": false, "last_request_time": "2026-01-01T00:00:00Z", "last_checkpoint": checkpoint,
            "user_metadata": {"a": "b"},
        }],
        "cursor": {"offset": 0, "limit": 20, "total_count": 1},
    }));
    let last = runs.training_runs[0].last_checkpoint.as_ref().unwrap();
    assert_eq!(last.checkpoint_type, CheckpointType::Training);
    // SkyRL-tx leaves nearly everything out, and a later server may have kinds of its own.
    let all: CheckpointsResponse = read(json!({"checkpoints": [
        {"checkpoint_id": "a", "checkpoint_type": "archived", "tinker_path": "tinker://r/a", "public": null},
    ]}));
    assert_eq!(all.checkpoints[0].checkpoint_type.name(), "archived");
    assert_eq!(all.cursor, None);
}

#[test]
fn futures() {
    let submitted: Submitted = same(json!({"request_id": "r", "sample_sequence_ids": ["a", "b"]}));
    assert_eq!(submitted.sample_sequence_ids.unwrap().len(), 2);
    same::<CancelFutureRequest>(json!({"request_id": "r"}));
    same::<RetrieveFuturesRequest>(json!({
        "target": {"type": "sampling_session", "sampling_session_id": "s", "cloned_sampler_id": 0},
        "prev_cursor": 0, "timeout": 0.0, "retrieved_request_ids": ["r"],
    }));
    let done: RetrieveFuturesResponse = same(json!({
        "completions": [
            {"state": "finished", "request_id": "r", "response_payload_uncompressed_size": 64},
            {"state": "failed", "request_id": "q"},
        ],
        "cursor": 1,
    }));
    assert_eq!(done.completions[1].state, CompletionState::Failed);
}

#[test]
fn samples() {
    same::<SamplerInfo>(
        json!({"sampler_id": "s", "base_model": "m", "model_path": "tinker://r/sampler_weights/a"}),
    );
    same::<JoinSamplingSessionRequest>(
        json!({"type": "join_sampling_session", "sampling_session_id": "s"}),
    );
    same::<JoinSamplingSessionResponse>(json!({"client_counter": 3}));
    let plain = json!({
        "type": "sample", "num_samples": 1, "prompt": {"chunks": [{"type": "encoded_text", "tokens": [1]}]},
        "sampling_params": {"temperature": 1.0, "top_k": -1, "top_p": 1.0},
        "prompt_logprobs": false, "topk_prompt_logprobs": 0,
    });
    same::<SampleRequest>(plain.clone());
    let mut full = plain;
    full["topk_sample_logprobs"] = 2.into();
    full["target_prompt_logprobs"] = json!({"dtype": "int64", "shape": [1, 2], "data": [3, -1]});
    full["prompt_alt_tokens_k"] = 1.into();
    full["prompt_logprobs_last_n"] = 8.into();
    full["record_stability_info"] = true.into();
    same::<SampleRequest>(full);
    same::<SampleResponse>(json!({
        "type": "sample",
        "sequences": [{"stop_reason": "length", "tokens": [4], "logprobs": [-0.5], "topk_logprobs": [[[4, -0.5], [9, -1.5]]]}],
        "prompt_logprobs": [null, -0.25],
        "prompt_cache_hit_tokens": 12,
    }));
}

#[test]
fn custom_losses() {
    let request: CreateCustomLossRequest = same(json!({
        "type": "create_custom_loss", "session_id": "s", "custom_loss_seq_id": 0, "name": "mine",
        "inputs": [{"name": "logprobs", "rank": 1}],
        "graph": {"format": 1, "nodes": [
            {"op": "placeholder", "name": "logprobs", "target": "logprobs", "args": [], "kwargs": {}},
            {"op": "call_function", "name": "getitem", "target": "operator.getitem", "kwargs": {"posinf": {"float": "inf"}},
             "args": [{"ref": "logprobs"}, {"slice": [null, 1, null]}, {"ellipsis": true}, 2, 2.0, "x", true, [null],
                      {"dtype": "float32"}, {"device": "cpu"}]},
            {"op": "output", "name": "output", "target": "output", "kwargs": {},
             "args": [{"tuple": [{"ref": "getitem"}, {"dict": {}}]}]},
        ]},
    }));
    let args = &request.graph.nodes[1].args;
    assert_eq!(args[3..5], [Argument::Int(2), Argument::Float(2.0)]);
    assert_eq!(
        request.graph.nodes[1].kwargs["posinf"],
        Argument::Form(Form::Float(NonFinite::Inf))
    );
    let error = json::from_slice::<Argument>(br#"{"lambda": 1}"#).unwrap_err();
    assert!(error.to_string().contains("an object with one of the keys ref"), "{error}");
    same::<CreateCustomLossResponse>(json!({"type": "create_custom_loss", "loss_id": "loss-1"}));
}

#[test]
fn settings_of_a_loss_print_as_they_are_written() {
    let config: LossFnConfig = same(json!({"clip": 0.5, "mode": "token", "centred": true}));
    let texts: Vec<String> = config.values().map(ToString::to_string).collect();
    assert_eq!(texts, ["true", "0.5", "\"token\""]);
}
