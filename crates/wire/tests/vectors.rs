//! The golden data in `tests/vectors/wire`, made by running the Python SDK's own encoders and decoders.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::Value;
use tinsmith_wire::{
    Chunk, ConfigValue, Datum, ForwardBackwardInput, ForwardBackwardOutput, ForwardBackwardRequest,
    ForwardRequest, ModelInput, Result, TensorData, json,
};

fn vectors(folder: &str) -> BTreeMap<String, Value> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/wire");
    let files = fs::read_dir(root.join(folder)).unwrap();
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (
                name,
                serde_json::from_slice(&fs::read(path).unwrap()).unwrap(),
            )
        })
        .collect()
}

/// A number of the vectors; NaN and infinities are strings there.
fn number(v: &Value) -> f32 {
    match v.as_str() {
        Some("NaN") => f32::NAN,
        Some("Infinity") => f32::INFINITY,
        Some("-Infinity") => f32::NEG_INFINITY,
        _ => v.as_f64().unwrap() as f32,
    }
}

fn integers(v: &Value) -> Vec<i64> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_i64().unwrap())
        .collect()
}

fn tensor(spec: &Value) -> Result<TensorData> {
    let shape: Option<Vec<usize>> = serde_json::from_value(spec["shape"].clone()).unwrap();
    let data: tinsmith_wire::Data = match spec["dtype"].as_str().unwrap() {
        "float32" => {
            let data = spec["data"].as_array().unwrap();
            data.iter().map(number).collect::<Vec<f32>>().into()
        }
        "int64" => integers(&spec["data"]).into(),
        other => panic!("dtype {other}"),
    };
    match (spec.get("crow"), shape) {
        (Some(crow), Some(shape)) => TensorData::csr(
            data,
            integers(crow),
            integers(&spec["col"]),
            [shape[0], shape[1]],
        ),
        (None, Some(shape)) => TensorData::new(data, &shape),
        (_, None) => TensorData::from_parts(data, None, None),
    }
}

fn tensors(spec: &Value) -> BTreeMap<String, TensorData> {
    let spec = spec.as_object().unwrap();
    spec.iter()
        .map(|(name, t)| (name.clone(), tensor(t).unwrap()))
        .collect()
}

/// The image bytes come as base64 already, so the chunk is read back from its JSON form.
fn chunk(spec: &Value) -> Chunk {
    let mut spec = spec.clone();
    if let Some(data) = spec.get("data_b64").cloned() {
        spec["data"] = data;
    }
    serde_json::from_value(spec).unwrap()
}

fn input(spec: &Value) -> ForwardBackwardInput {
    let data = spec["data"].as_array().unwrap().iter().map(|datum| Datum {
        model_input: datum["chunks"]
            .as_array()
            .unwrap()
            .iter()
            .map(chunk)
            .collect::<ModelInput>(),
        loss_fn_inputs: tensors(&datum["loss_fn_inputs"]),
    });
    let config = spec["loss_fn_config"].as_object().map(|config| {
        let value = |v: &Value| match v.as_str() {
            Some(text) => ConfigValue::from(text),
            None => ConfigValue::from(v.as_f64().unwrap()),
        };
        config
            .iter()
            .map(|(name, v)| (name.clone(), value(v)))
            .collect()
    });
    ForwardBackwardInput {
        data: data.collect(),
        loss_fn: spec["loss_fn"].as_str().unwrap().to_owned().into(),
        loss_fn_config: config,
    }
}

fn body(spec: &Value) -> Result<Value> {
    let (input, seq_id) = (input(spec), spec["seq_id"].as_u64().unwrap());
    let model_id = spec["model_id"].as_str().unwrap().to_owned();
    let bytes = if spec["forward_only"].as_bool().unwrap() {
        json::to_vec(&ForwardRequest {
            forward_input: input,
            model_id,
            seq_id,
        })
    } else {
        json::to_vec(&ForwardBackwardRequest {
            forward_backward_input: input,
            model_id,
            seq_id,
        })
    }?;
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
        // The SDK sends this one and the server refuses; here the client refuses it (see `client::preflight`).
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
            let got = if case["spec"]["forward_only"] == true {
                json::from_slice::<ForwardRequest>(&bytes).map(|r| r.forward_input)
            } else {
                json::from_slice::<ForwardBackwardRequest>(&bytes).map(|r| r.forward_backward_input)
            };
            assert_eq!(got.unwrap(), input(&case["spec"]), "{name} {version}");
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
        "cannot write ForwardBackwardRequest as JSON: at `forward_backward_input.data[0].loss_fn_inputs.weights.data`: \
         element 0 is NaN, which JSON cannot carry"
    );
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
        let expected = &case["expected"];
        assert_eq!(
            got.loss_fn_output_type, expected["loss_fn_output_type"],
            "{name}"
        );
        let outputs: Vec<_> = expected["loss_fn_outputs"]
            .as_array()
            .unwrap()
            .iter()
            .map(tensors)
            .collect();
        assert_eq!(got.loss_fn_outputs, outputs, "{name}");
        let metrics = expected["metrics"].as_object().unwrap();
        let metrics = metrics
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_f64().unwrap()))
            .collect();
        assert_eq!(got.metrics, metrics, "{name}");
        compared += 1;
    }
    assert_eq!(compared, 6);
}
