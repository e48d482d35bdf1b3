//! The golden data in `tests/vectors/wire`, made by running the Python SDK's own encoders and
//! decoders.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::Value;
use tinsmith_wire::{
    Chunk, ConfigValue, Datum, ForwardBackwardOutput, ModelInput, Pass, PassRequest, Result,
    SampleResponse, TensorData, json, proto,
};

fn vectors(folder: &str) -> BTreeMap<String, Value> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/wire");
    let files = fs::read_dir(root.join(folder)).unwrap();
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
        })
        .collect()
}

/// The file beside the vectors that a case names.
fn bytes(folder: &str, file: &Value) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/wire");
    fs::read(root.join(folder).join(file.as_str().unwrap())).unwrap()
}

/// A number of the vectors; NaN and infinities are strings there.
fn number(v: &Value) -> f64 {
    match v.as_str() {
        Some("NaN") => f64::NAN,
        Some("Infinity") => f64::INFINITY,
        Some("-Infinity") => f64::NEG_INFINITY,
        _ => v.as_f64().unwrap(),
    }
}

fn integers(v: &Value) -> Vec<i64> {
    v.as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect()
}

fn tensor(spec: &Value) -> Result<TensorData> {
    let shape: Option<Vec<usize>> = serde_json::from_value(spec["shape"].clone()).unwrap();
    let data: tinsmith_wire::Data = match spec["dtype"].as_str().unwrap() {
        "float32" => {
            let data = spec["data"].as_array().unwrap();
            let values = data.iter().map(|x| number(x) as f32);
            values.collect::<Vec<f32>>().into()
        }
        "int64" => integers(&spec["data"]).into(),
        other => panic!("dtype {other}"),
    };
    match (spec.get("crow"), shape) {
        (Some(crow), Some(shape)) => {
            TensorData::csr(data, integers(crow), integers(&spec["col"]), [shape[0], shape[1]])
        }
        (None, Some(shape)) => TensorData::new(data, &shape),
        (_, None) => TensorData::from_parts(data, None, None),
    }
}

fn tensors(spec: &Value) -> BTreeMap<String, TensorData> {
    let spec = spec.as_object().unwrap();
    spec.iter().map(|(name, t)| (name.clone(), tensor(t).unwrap())).collect()
}

fn output(expected: &Value) -> ForwardBackwardOutput {
    let outputs = expected["loss_fn_outputs"].as_array().unwrap();
    let metrics = expected["metrics"].as_object().unwrap();
    ForwardBackwardOutput {
        loss_fn_output_type: expected["loss_fn_output_type"].as_str().unwrap().to_owned(),
        loss_fn_outputs: outputs.iter().map(tensors).collect(),
        metrics: metrics.iter().map(|(name, x)| (name, number(x))).collect(),
    }
}

/// The image bytes come as base64 already, so the chunk is read back from its JSON form.
fn chunk(spec: &Value) -> Chunk {
    let mut spec = spec.clone();
    if let Some(data) = spec.get("data_b64").cloned() {
        spec["data"] = data;
    }
    serde_json::from_value(spec).unwrap()
}

fn request(spec: &Value) -> PassRequest<'static> {
    let data = spec["data"].as_array().unwrap().iter().map(|datum| Datum {
        model_input: datum["chunks"].as_array().unwrap().iter().map(chunk).collect::<ModelInput>(),
        loss_fn_inputs: tensors(&datum["loss_fn_inputs"]),
        ..Datum::default()
    });
    let config = spec["loss_fn_config"].as_object().map(|config| {
        let value = |v: &Value| match v.as_str() {
            Some(text) => ConfigValue::from(text),
            None => ConfigValue::from(v.as_f64().unwrap()),
        };
        config.iter().map(|(name, v)| (name.clone(), value(v))).collect()
    });
    PassRequest {
        pass: match spec["forward_only"].as_bool().unwrap() {
            true => Pass::Forward,
            false => Pass::ForwardBackward,
        },
        data: data.collect::<Vec<_>>().into(),
        loss_fn: spec["loss_fn"].as_str().unwrap().to_owned().into(),
        loss_fn_config: config,
        model_id: spec["model_id"].as_str().unwrap().to_owned(),
        seq_id: spec["seq_id"].as_u64().unwrap(),
    }
}

fn body(spec: &Value) -> Result<Value> {
    let bytes = json::to_vec(&request(spec))?;
    Ok(serde_json::from_slice(&bytes).unwrap())
}

/// Numbers as the wire means them: integers exactly, others as f32, to the bit.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x == y,
            _ => {
                let narrow = |n: &serde_json::Number| (n.as_f64().unwrap() as f32).to_bits();
                narrow(x) == narrow(y)
            }
        },
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, x)| y.get(k).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

#[test]
fn requests_are_written_as_the_sdk_0_18_writes_them() {
    let mut compared = 0;
    for (name, case) in vectors("requests") {
        // The SDK sends this one and the server refuses; here the client refuses it (see
        // `client::preflight`).
        let Some(expected) = case["json"]["0.18.0"].get("body") else {
            continue;
        };
        let body = body(&case["spec"]).unwrap();
        assert!(same(&body, expected), "{name}:\n{body}\n{expected}");
        compared += 1;
    }
    assert_eq!(compared, 15);
}

#[test]
fn requests_of_either_sdk_read_as_what_was_meant() {
    let mut read = 0;
    for (name, case) in vectors("requests") {
        for version in ["0.3.0", "0.18.0"] {
            let Some(body) = case["json"][version].get("body") else {
                continue;
            };
            let bytes = serde_json::to_vec(body).unwrap();
            let got: PassRequest = json::from_slice(&bytes).unwrap();
            assert_eq!(got, request(&case["spec"]), "{name} {version}");
            read += 1;
        }
    }
    assert_eq!(read, 28);
}

#[test]
fn numbers_that_json_cannot_carry_are_refused_by_name() {
    let case = &vectors("requests")["nan_inf"];
    let error = body(&case["spec"]).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot write PassRequest as JSON: at `forward_backward_input.data[0].loss_fn_inputs.weights.data`: \
         element 0 is NaN, which JSON cannot carry"
    );
}

#[test]
fn protobuf_requests_are_those_of_the_sdk_to_the_byte() {
    let mut compared = 0;
    for (name, case) in vectors("requests") {
        let request = request(&case["spec"]);
        if case["proto"].get("error").is_some() {
            let error = proto::to_vec(&request).unwrap_err().to_string();
            assert_eq!(
                error,
                "cannot write PassRequest as protobuf: at `data[0].model_input[0].encoded_text.tokens`: \
                 token 0 is 2147483648, and ids end at 2147483647"
            );
            continue;
        }
        let expected = bytes("requests", &case["proto"]["file"]);
        let body = proto::to_vec(&request).unwrap();
        // The SDK writes a 0 in a map, which is the same as leaving it out.
        if name == "ppo_config_numbers" {
            assert_eq!(body.len(), expected.len() - 9);
        } else {
            assert_eq!(body, expected, "{name}");
        }
        compared += 1;
    }
    assert_eq!(compared, 17);
}

#[test]
fn protobuf_requests_read_as_what_was_meant() {
    for (name, case) in vectors("requests") {
        let Some(file) = case["proto"].get("file") else {
            continue;
        };
        let mut expected = request(&case["spec"]);
        for input in expected.data.to_mut().iter_mut() {
            // Protobuf cannot tell a scalar from a tensor without a stated shape.
            for tensor in input.loss_fn_inputs.values_mut() {
                if tensor.shape().is_empty() {
                    *tensor = TensorData::from_parts(tensor.data().clone(), None, None).unwrap();
                }
            }
        }
        let got: PassRequest = proto::from_vec(bytes("requests", file)).unwrap();
        if name == "nan_inf" {
            let weights = &got.data[0].loss_fn_inputs["weights"];
            let [nan, rest @ ..] = weights.as_f32().unwrap() else { panic!("no weights") };
            assert!(nan.is_nan());
            assert_eq!(rest, [f32::INFINITY, f32::NEG_INFINITY, 0.5]);
        } else {
            assert_eq!(got, expected, "{name}");
        }
    }
}

/// To the bit, NaN included.
fn same_outputs(got: &ForwardBackwardOutput, expected: &ForwardBackwardOutput) -> bool {
    format!("{got:?}") == format!("{expected:?}")
}

#[test]
fn protobuf_results_read_as_the_sdk_reads_them() {
    let mut compared = 0;
    for (name, case) in vectors("responses") {
        if case["kind"] != "ForwardBackwardOutput" {
            continue;
        }
        let got: ForwardBackwardOutput =
            proto::from_vec(bytes("responses", &case["proto_file"])).unwrap();
        let expected = output(&case["expected"]);
        assert!(same_outputs(&got, &expected), "{name}: {got:?}");
        let again = proto::from_vec(proto::to_vec(&got).unwrap()).unwrap();
        assert!(same_outputs(&again, &expected), "{name}: {again:?}");
        compared += 1;
    }
    assert_eq!(compared, 7);
}

#[test]
fn protobuf_samples_read_as_the_sdk_reads_them() {
    let mut compared = 0;
    for (name, case) in vectors("responses") {
        if case["kind"] != "SampleResponse" {
            continue;
        }
        let got = proto::from_vec::<SampleResponse>(bytes("responses", &case["proto_file"]));
        if case.get("expected_error").is_some() {
            let error = got.unwrap_err().to_string();
            assert!(error.ends_with("no stop reason"), "{name}: {error}");
            continue;
        }
        let got = got.unwrap();
        // The vectors name the CSR indices otherwise than JSON does.
        let mut expected = case["expected"].clone();
        let target = expected["target_prompt_logprobs"].take();
        let mut expected: SampleResponse = serde_json::from_value(expected).unwrap();
        expected.target_prompt_logprobs = (!target.is_null()).then(|| tensor(&target).unwrap());
        assert_eq!(got, expected, "{name}");
        let again: SampleResponse = proto::from_vec(proto::to_vec(&got).unwrap()).unwrap();
        assert_eq!(again, expected, "{name}");
        compared += 1;
    }
    assert_eq!(compared, 3);
}

#[test]
fn responses_read_as_the_sdk_reads_them() {
    let mut compared = 0;
    for (name, case) in vectors("responses") {
        let Some(body) = case.get("json_body").filter(|body| !body.is_null()) else {
            continue;
        };
        let got: ForwardBackwardOutput =
            json::from_slice(&serde_json::to_vec(body).unwrap()).unwrap();
        assert_eq!(got, output(&case["expected"]), "{name}");
        compared += 1;
    }
    assert_eq!(compared, 6);
}
