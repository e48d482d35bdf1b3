//! What is written, what is read, and what an error says.

use serde::de::DeserializeOwned;
use tinsmith_wire::*;

fn read<T: DeserializeOwned>(text: &str) -> T {
    json::from_slice(text.as_bytes()).unwrap()
}

fn refuse<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
    json::from_slice::<T>(text.as_bytes()).unwrap_err().to_string()
}

fn write<T: serde::Serialize>(value: &T) -> String {
    String::from_utf8(json::to_vec(value).unwrap()).unwrap()
}

#[test]
fn requests_carry_their_type_and_their_defaults_and_no_nulls() {
    let create = CreateModelRequest {
        session_id: "s".into(),
        model_seq_id: 0,
        base_model: "m".into(),
        lora_config: LoraConfig::rank(8),
        ..Default::default()
    };
    assert_eq!(
        write(&create),
        r#"{"type":"create_model","session_id":"s","model_seq_id":0,"base_model":"m","lora_config":{"rank":8,"train_unembed":true,"train_mlp":true,"train_attn":true}}"#
    );
    let session = CreateSessionRequest { sdk_version: "1".into(), ..Default::default() };
    assert_eq!(
        write(&session),
        r#"{"type":"create_session","tags":[],"user_metadata":{},"sdk_version":"1"}"#
    );
    let step = OptimStepRequest { model_id: "m".into(), seq_id: 3, ..Default::default() };
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&write(&step)).unwrap(),
        serde_json::json!({"type": "optim_step", "model_id": "m", "seq_id": 3, "adam_params": {
            "learning_rate": 1e-4, "beta1": 0.9, "beta2": 0.95, "eps": 1e-12, "weight_decay": 0.0, "grad_clip_norm": 0.0,
        }})
    );
}

#[test]
fn bare_null_and_unknown_fields_read_as_defaults() {
    let step: OptimStepRequest = read(
        r#"{"model_id":"m","seq_id":4,"adam_params":{"learning_rate":0.5,"beta2":null,"new":1},"extra":[]}"#,
    );
    assert_eq!(step.params, AdamParams::default().learning_rate(0.5).into());
    let create: CreateModelRequest = read(
        r#"{"session_id":"s","model_seq_id":1,"base_model":"m","lora_config":{"rank":4,"seed":null},"user_metadata":null}"#,
    );
    assert_eq!(create.lora_config, LoraConfig::rank(4));
    let session: CreateSessionRequest =
        read(r#"{"tags":null,"user_metadata":null,"sdk_version":null,"type":"anything"}"#);
    assert_eq!(session, CreateSessionRequest::default());
    let sample: SampleRequest =
        read(r#"{"prompt":{"chunks":[{"tokens":[1]}]},"sampling_params":{"stop":"\n"}}"#);
    assert_eq!(sample.num_samples, 1);
    assert_eq!(sample.sampling_params.stop, Some(Stop::Strings(vec!["\n".into()])));
    let out: ForwardBackwardOutput = read(r#"{"loss_fn_outputs":[],"metrics":null}"#);
    assert!(out.metrics.is_empty());
    let step: OptimStepResponse = read(r#"{"metrics":{"lr":1}}"#);
    assert_eq!(step.metrics, [("lr", 1.0)].into_iter().collect());
}

#[test]
fn chunks_without_a_type_are_told_apart_by_their_fields() {
    let input: ModelInput = read(
        r#"{"chunks":[{"tokens":[7]},{"data":"AQI=","format":"png"},{"location":"a","format":"jpeg"},{"dmel":"AA=="}]}"#,
    );
    let text = write(&input);
    for kind in ["encoded_text", "image", "image_asset_pointer", "dmel"] {
        assert!(text.contains(&format!(r#""type":"{kind}""#)), "{text}");
    }
    assert_eq!(read::<ModelInput>(&text), input);
    assert_eq!(input.len(), None);
    assert!(matches!(&input.chunks[1], Chunk::Image { data, .. } if **data == [1, 2]));
}

#[test]
fn tensor_fields_may_come_in_any_order() {
    let sdk: TensorData = read(r#"{"data":[1,2.5,3],"dtype":"float32","shape":[3]}"#);
    let ours: TensorData = read(r#"{"dtype":"float32","shape":[3],"data":[1,2.5,3]}"#);
    assert_eq!(sdk, ours);
    let whole: TensorData = read(r#"{"data":[1,2],"dtype":"float32","shape":null}"#);
    assert_eq!(whole.as_f32(), Some([1.0, 2.0].as_slice()));
    let exact: TensorData = read(r#"{"data":[9007199254740993],"dtype":"int64"}"#);
    assert_eq!(exact.as_i64(), Some([9007199254740993].as_slice()));
}

#[test]
fn errors_say_where() {
    let path = |message: String| message.split('`').nth(1).unwrap().to_owned();
    let datum = |weights: &str| {
        format!(
            r#"{{"forward_input":{{"data":[{{"model_input":{{}},"loss_fn_inputs":{{"weights":{weights}}}}}]}}}}"#
        )
    };
    let at = "forward_input.data[0].loss_fn_inputs.weights";
    for (weights, where_, why) in [
        (r#"{"dtype":"float16","data":[]}"#, format!("{at}.dtype"), "unknown variant `float16`"),
        (r#"{"dtype":"float32","data":[1,"x"]}"#, format!("{at}.data[1]"), "invalid type: string"),
        (
            r#"{"dtype":"float32","data":[1],"shape":[-1]}"#,
            format!("{at}.shape[0]"),
            "invalid value: integer `-1`",
        ),
        (r#"{"dtype":"float32"}"#, at.to_owned(), "missing field `data`"),
        (r#"{"data":[1.5]}"#, at.to_owned(), "missing field `dtype`"),
        (r#"{"data":[1.5],"dtype":"int64"}"#, at.to_owned(), "int64 tensor holds a fraction"),
        (
            r#"{"data":[1],"dtype":"int64","shape":[2,3]}"#,
            at.to_owned(),
            "`shape` [2, 3] holds 6 elements, `data` has 1",
        ),
        (
            r#"{"data":[1],"dtype":"int64","shape":[4294967296,4294967296,4294967296]}"#,
            at.to_owned(),
            "more than 2^64",
        ),
        (
            r#"{"data":[1],"dtype":"int64","shape":[1,1],"sparse_crow_indices":[0,1]}"#,
            at.to_owned(),
            "missing field `sparse_col_indices`",
        ),
    ] {
        let message = refuse::<PassRequest>(&datum(weights));
        assert!(message.contains(why), "{message}");
        assert_eq!(path(message), where_);
    }
    assert_eq!(path(refuse::<PassRequest>("<html>")), ".");
    assert!(refuse::<Submitted>(r#"{"request_id":"a"} trailing"#).contains("trailing characters"));
    assert!(refuse::<Submitted>("").contains("cannot read Submitted"));
}

#[test]
fn malformed_csr_is_refused_by_field() {
    let csr = |crow: Vec<i64>, col: Vec<i64>, shape| {
        TensorData::csr(vec![1.0f32, 2.0], crow, col, shape).unwrap_err().to_string()
    };
    for (error, part) in [
        (
            csr(vec![0, 2], vec![0, 1], [2, 2]),
            "`sparse_crow_indices` is not valid CSR: 2 rows need 2 + 1 offsets, got 2",
        ),
        (
            csr(vec![0, 1, 2], vec![0], [2, 2]),
            "`sparse_col_indices` is not valid CSR: 1 column indices for 2 values",
        ),
        (csr(vec![1, 1, 2], vec![0, 1], [2, 2]), "run from 1 to 2"),
        (csr(vec![0, 1, -2], vec![0, 1], [2, 2]), "run from 0 to -2"),
        (csr(vec![0, 9, 2], vec![0, 1], [2, 2]), "offsets of row 0 run from 0 to 9"),
        (csr(vec![0, 2, 1, 2], vec![0, 1], [3, 2]), "offsets of row 1 run from 2 to 1"),
        (csr(vec![0, 1, 2], vec![0, 2], [2, 2]), "column 2 in row 1"),
        (csr(vec![0, 1, 2], vec![-1, 1], [2, 2]), "column -1 in row 0"),
        (csr(vec![0, 2, 2], vec![1, 0], [2, 2]), "columns of row 0 are not ascending"),
        (csr(vec![0, 1, 2], vec![0, 1], [usize::MAX, 2]), "rows need"),
    ] {
        assert!(error.contains(part), "{error}");
    }
    // Few values, an absurd shape: it decodes, and making it dense is an error instead of an
    // allocation.
    let wide = TensorData::csr(vec![1.0f32], vec![0, 1], vec![7], [1, usize::MAX]).unwrap();
    assert!(matches!(wide.to_dense(), Err(Error::TooLarge { .. })));
}

#[test]
fn future_replies_are_told_apart() {
    type Reply = FutureReply<OptimStepResponse>;
    let reply = |text: &str| Reply::from_json(text.as_bytes()).unwrap();
    assert_eq!(reply(r#"{"type":"try_again"}"#), Reply::TryAgain(TryAgain::default()));
    assert_eq!(
        reply(r#"{"status":"complete_metadata","response_payload_size":9}"#),
        Reply::CompleteMetadata { response_payload_size: Some(9) }
    );
    for (text, category) in [
        (r#"{"error":"boom","category":"user"}"#, ErrorCategory::User),
        (r#"{"error":"boom","category":"Weird"}"#, ErrorCategory::Other("Weird".into())),
        (r#"{"error":"boom","category":null}"#, ErrorCategory::Unknown),
        (r#"{"error":"boom"}"#, ErrorCategory::Unknown),
    ] {
        let failed = RequestFailed { error: "boom".into(), category };
        assert_eq!(reply(text), Reply::Failed(failed));
    }
    let ready = Reply::Ready(OptimStepResponse::default());
    assert_eq!(reply(r#"{"metrics":null,"type":"optim_step","error":null}"#), ready);
    for reply in [
        Reply::TryAgain(TryAgain { queue_state: Some("active".into()), ..Default::default() }),
        Reply::CompleteMetadata { response_payload_size: None },
        Reply::Failed(RequestFailed { error: "x".into(), category: ErrorCategory::Server }),
        ready,
    ] {
        assert_eq!(Reply::from_json(write(&reply).as_bytes()).unwrap(), reply);
    }
}

#[test]
fn large_hashes_stay_exact() {
    let metrics: Metrics = read(r#"{"h:hash2":18446744073709551614,"x:sum":-3}"#);
    assert_eq!(metrics.exact_u64("h:hash2"), Some(u64::MAX - 1));
    assert_eq!(metrics["x:sum"], -3.0);
    assert!(write(&metrics).contains("18446744073709551614"));
    assert!(json::to_vec(&[("x", f64::INFINITY)].into_iter().collect::<Metrics>()).is_err());
}
