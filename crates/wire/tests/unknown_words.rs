//! What a word that this version does not know becomes, in every enum and union that is read.
//!
//! In replies it is kept, since a message is of use without it. In requests it is refused, with the
//! path to it: a server that carried out the half that it understands would train another model.
//! The exceptions are words that the server may hand on or complain of itself.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tinsmith_wire::*;

fn read<T: DeserializeOwned>(text: Value) -> T {
    json::from_slice(text.to_string().as_bytes()).unwrap()
}

/// Reads as `wanted`, and is written as it was read.
fn kept<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(word: Value, wanted: T) {
    assert_eq!(read::<T>(word.clone()), wanted);
    assert_eq!(serde_json::from_slice::<Value>(&json::to_vec(&wanted).unwrap()).unwrap(), word);
}

#[test]
fn words_of_replies_are_kept() {
    kept(json!("eos"), StopReason::Other("eos".into()));
    kept(json!("quota"), ErrorCategory::Other("quota".into()));
    kept(json!("cancelled"), CompletionState::Other("cancelled".into()));
    kept(json!("archived"), CheckpointType::Other("archived".into()));
    let muon = [("type".to_owned(), json!("muon")), ("version".to_owned(), json!("2b"))];
    kept(json!({"type": "muon", "version": "2b"}), OptimizerConfig::Other(muon.into()));
    let untyped = [("name".to_owned(), json!("adam"))];
    kept(json!({"name": "adam"}), OptimizerConfig::Other(untyped.into()));
}

#[test]
fn words_of_replies_that_are_text_stay_text() {
    let reply: TryAgain = read(json!({"type": "try_again", "queue_state": "paused_weather"}));
    assert_eq!(reply.queue_state.as_deref(), Some("paused_weather"));
    assert_eq!(read::<Health>(json!({"status": "tired"})).status, "tired");
    let accepted: Submitted = read(json!({"request_id": "r", "status": "on its way"}));
    assert_eq!(accepted.request_id, "r");
    let config: ClientConfig = read(json!({"credential_default_source": "smartcard"}));
    assert_eq!(config.credential_default_source, "smartcard");
    let output: ForwardBackwardOutput =
        read(json!({"loss_fn_output_type": "Tree", "loss_fn_outputs": []}));
    assert_eq!(output.loss_fn_output_type, "Tree");
}

#[test]
fn a_stop_reason_may_be_missing_or_null() {
    for sequence in [json!({"tokens": [5]}), json!({"tokens": [5], "stop_reason": null})] {
        let read: SampledSequence = read(sequence);
        assert_eq!((&read.stop_reason, &read.tokens), (&StopReason::Unstated, &vec![5]));
        assert_eq!(json::to_vec(&read).unwrap(), br#"{"tokens":[5]}"#);
    }
    let response: SampleResponse = read(json!({"sequences": [
        {"tokens": [1], "stop_reason": "eos"}, {"tokens": [2], "stop_reason": "stop"},
    ]}));
    let reasons: Vec<_> = response.sequences.iter().map(|s| s.stop_reason.name()).collect();
    assert_eq!(reasons, ["eos", "stop"]);
    // Protobuf has numbers in place of words.
    let error = proto::to_vec(&response).unwrap_err().to_string();
    assert!(error.ends_with("at `sequences[0].stop_reason`: `eos` has no number"), "{error}");
}

#[test]
fn a_failure_of_any_category_is_a_failure() {
    type Reply = FutureReply<OptimStepResponse>;
    for (category, wanted) in [
        (json!("quota"), ErrorCategory::Other("quota".into())),
        (json!(null), ErrorCategory::Unknown),
        (json!(7), ErrorCategory::Unknown),
    ] {
        let body = json!({"error": "no", "category": category}).to_string();
        let failed = RequestFailed { error: "no".into(), category: wanted };
        assert_eq!(Reply::from_json(body.as_bytes()).unwrap(), Reply::Failed(failed));
    }
    let failed: RequestFailed = read(json!({"error": "no", "category": null}));
    assert_eq!(failed.category, ErrorCategory::Unknown);
}

#[test]
fn a_reply_of_an_unknown_type_is_an_error_that_names_the_type() {
    let read = |body: &str| FutureReply::<ForwardBackwardOutput>::from_json(body.as_bytes());
    for (body, said) in [
        (r#"{"type":"paused","until":3}"#, "of the type `paused`: missing field `loss_fn_outputs`"),
        (r#"{"status":"pending"}"#, "of the status `pending`: missing field `loss_fn_outputs`"),
    ] {
        let error = read(body).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn words_of_requests_that_a_server_can_complain_of_itself_are_kept() {
    kept(json!("stable_reinforce"), LossFn::Other("stable_reinforce".into()));
    // Whatever the chunk holds, under names that other chunks have for something else.
    let chunk = json!({"data": "not base64!", "expected_tokens": 9, "rate": 16, "type": "audio"});
    let input: ModelInput = read(json!({"chunks": [{"tokens": [1]}, chunk]}));
    let audio = Chunk::Other { kind: "audio".into(), expected_tokens: Some(9) };
    assert_eq!((&input.chunks[1], input.len()), (&audio, Some(10)));
    assert!(json::to_vec(&input).is_err());
    let error = json::from_slice::<Chunk>(br#"{"data":"not base64!","type":"image"}"#);
    assert!(error.unwrap_err().to_string().contains("`data` is not base64"));
}

#[test]
fn words_of_requests_that_change_what_is_done_are_refused_by_path() {
    fn refused<T: DeserializeOwned + std::fmt::Debug>(text: Value, word: &str) {
        let error = json::from_slice::<T>(text.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let step = |params: Value| {
        let mut step = json!({"model_id": "m", "seq_id": 1});
        step.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        step
    };
    // The dtype says what the numbers mean.
    refused::<TensorData>(
        json!({"dtype": "complex64", "data": []}),
        "`dtype`: unknown variant `complex64`",
    );
    refused::<OptimStepRequest>(
        step(json!({"optimizer_params": {"type": "muon"}})),
        "unknown variant `muon`",
    );
    refused::<OptimStepRequest>(
        step(json!({"grad_accumulation_normalization": "num_words"})),
        "`grad_accumulation_normalization`: unknown variant `num_words`",
    );
    refused::<OptimStepRequest>(
        step(json!({"adam_params": {"emit_grad_norm_metrics": "all"}})),
        "`adam_params.emit_grad_norm_metrics`: unknown variant `all`",
    );
    refused::<PassRequest>(
        step(json!({"backward_input": {}})),
        "missing field `forward_backward_input`",
    );
    refused::<SaveWeightsForSamplerRequest>(
        step(json!({"kind": "frozen"})),
        "`kind`: unknown variant `frozen`",
    );
    refused::<FinishSessionRequest>(
        json!({"reason": {"type": "bored"}}),
        "unknown variant `bored`",
    );
    refused::<RetrieveFuturesRequest>(
        json!({"target": {"type": "model", "model_id": "m"}, "prev_cursor": 0}),
        "unknown variant `model`",
    );
    refused::<SampleRequest>(
        json!({"prompt": {}, "sampling_params": {"stop": {"regex": "x"}}}),
        "`sampling_params.stop`: `stop` is a string, a list of strings or a list of token ids",
    );
    let node = |op: &str, args: Value| json!({"op": op, "name": "n", "target": "t", "args": args});
    refused::<GraphNode>(node("call_kernel", json!([])), "`op`: unknown variant `call_kernel`");
    refused::<GraphNode>(node("output", json!([{"set": []}])), "`args[0]`: an argument is null");
    refused::<GraphNode>(
        node("output", json!([{"float": "huge"}])),
        "`args[0]`: an argument is null",
    );
    refused::<LossFnConfig>(json!({"x": [1]}), "`x`: data did not match any variant");
}
