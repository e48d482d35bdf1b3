//! Requests: written and read as protobuf, and as the JSON of each SDK version.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Number, Value};
use tinsmith_wire::{Chunk, ConfigValue, Data, Pass, PassRequest, TensorData, json, proto};

use super::{read, spec};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    spec: spec::Request,
    proto: Proto,
    json: BTreeMap<String, Json>,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Proto {
    Body {
        file: String,
        len: usize,
        decoded: Value,
    },
    Refused {
        #[serde(rename = "error")]
        _error: String,
        #[serde(rename = "message")]
        _message: String,
    },
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Json {
    Body {
        path: String,
        body: Value,
    },
    Refused {
        #[serde(rename = "error")]
        _error: String,
        #[serde(rename = "message")]
        _message: String,
    },
}

/// The version whose form is ours.
const WRITTEN: &str = "0.18.0";

pub fn check(case: &Value, folder: &Path) -> Result<()> {
    let case: Case = read(case)?;
    let request = case.spec.build()?;
    proto(&request, &case.proto, folder).context("protobuf")?;
    for (version, expected) in &case.json {
        json(&request, version, expected).with_context(|| format!("JSON of {version}"))?;
    }
    Ok(())
}

fn proto(request: &PassRequest, expected: &Proto, folder: &Path) -> Result<()> {
    let body = proto::to_vec(request);
    let (file, len, decoded) = match (expected, &body) {
        (Proto::Body { file, len, decoded }, _) => (file, len, decoded),
        (Proto::Refused { .. }, Err(_)) => return Ok(()),
        (Proto::Refused { .. }, Ok(_)) => bail!("the SDK refuses this, here it is written"),
    };
    let given = fs::read(folder.join(file)).with_context(|| format!("reading {file}"))?;
    ensure!(given.len() == *len, "{file} has {} bytes, not {len}", given.len());
    let meant = as_on_the_wire(request)?;
    for (what, body) in [("the SDK's body", given), ("our own body", body?)] {
        let got: PassRequest = proto::from_vec(body).context(what)?;
        // By their texts, since NaN differs from itself.
        ensure!(
            format!("{got:?}") == format!("{meant:?}"),
            "{what} reads as {got:?}, want {meant:?}"
        );
        let got = describe(&got);
        ensure!(same(&got, decoded), "{what} holds {got}, want {decoded}");
    }
    Ok(())
}

/// What protobuf cannot tell apart made equal: no settings and none at all, a scalar and a tensor
/// without a shape.
fn as_on_the_wire(request: &PassRequest) -> Result<PassRequest<'static>> {
    let mut data = request.data.to_vec();
    for tensor in data.iter_mut().flat_map(|datum| datum.loss_fn_inputs.values_mut()) {
        if tensor.shape().is_empty() {
            *tensor = TensorData::from_parts(tensor.data().clone(), None, None)?;
        }
    }
    Ok(PassRequest {
        pass: request.pass,
        data: data.into(),
        loss_fn: request.loss_fn.clone(),
        loss_fn_config: request.loss_fn_config.clone().filter(|config| !config.is_empty()),
        model_id: request.model_id.clone(),
        seq_id: request.seq_id,
    })
}

/// A request in the words of `decoded`.
fn describe(request: &PassRequest) -> Value {
    let config = || request.loss_fn_config.iter().flatten();
    let number = |(name, value): (&String, &ConfigValue)| match value {
        ConfigValue::Number(x) => Some((name.clone(), Value::from(*x))),
        _ => None,
    };
    let value = |(name, value): (&String, &ConfigValue)| {
        let value = match value {
            ConfigValue::Number(x) => serde_json::json!({"number": x}),
            ConfigValue::Text(text) => serde_json::json!({"text": text}),
            ConfigValue::Flag(flag) => serde_json::json!({"flag": flag}),
        };
        (name.clone(), value)
    };
    let data = request.data.iter().map(|datum| {
        let inputs = datum.loss_fn_inputs.iter().map(|(name, t)| (name.clone(), tensor(t)));
        serde_json::json!({
            "model_input": datum.model_input.chunks.iter().map(chunk).collect::<Vec<_>>(),
            "loss_fn_inputs": inputs.collect::<serde_json::Map<_, _>>(),
        })
    });
    serde_json::json!({
        "model_id": request.model_id,
        "seq_id": request.seq_id,
        "forward_only": request.pass == Pass::Forward,
        "loss_fn": request.loss_fn.name(),
        "loss_fn_config": config().filter_map(number).collect::<serde_json::Map<_, _>>(),
        "loss_fn_config_v2": config().map(value).collect::<serde_json::Map<_, _>>(),
        "data": data.collect::<Vec<_>>(),
    })
}

fn chunk(chunk: &Chunk) -> Value {
    match chunk {
        Chunk::EncodedText { tokens } => serde_json::json!({"encoded_text": **tokens}),
        Chunk::Image { data, format, expected_tokens, .. } => {
            serde_json::json!({"image": {"data_hex": hex(data), "format": format, "expected_tokens": expected_tokens}})
        }
        other => serde_json::json!({"other": format!("{other:?}")}),
    }
}

fn tensor(tensor: &TensorData) -> Value {
    let values = hex(&match tensor.data() {
        Data::F32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>(),
        Data::I64(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    });
    let indices =
        |indices: &[i64]| hex(&indices.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
    let dtype = format!("DTYPE_{}", tensor.dtype().to_string().to_uppercase());
    let shape = tensor.stated_shape().unwrap_or_default();
    match tensor.sparse() {
        None => {
            serde_json::json!({"dtype": dtype, "shape": shape, "encoding": "dense", "dense_hex": values})
        }
        Some(csr) => serde_json::json!({
            "dtype": dtype,
            "shape": shape,
            "encoding": "sparse_csr",
            "values_hex": values,
            "crow_hex": indices(&csr.crow),
            "col_hex": indices(&csr.col),
        }),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn json(request: &PassRequest, version: &str, expected: &Json) -> Result<()> {
    let written = json::to_vec(request);
    let Json::Body { path, body } = expected else {
        // What that SDK cannot say may have a form here; if so, it must be readable.
        if let Ok(written) = written {
            let again: PassRequest = json::from_slice(&written)?;
            ensure!(again == *request, "our own body reads as {again:?}");
        }
        return Ok(());
    };
    let wanted_path = match request.pass {
        Pass::Forward => "/api/v1/forward",
        Pass::ForwardBackward => "/api/v1/forward_backward",
    };
    ensure!(path == wanted_path, "path {path}, ours is {wanted_path}");
    let read: PassRequest = json::from_slice(&serde_json::to_vec(body)?)?;
    ensure!(read == *request, "it reads as {read:?}, want {request:?}");
    if version == WRITTEN {
        let ours: Value = serde_json::from_slice(&written?)?;
        ensure!(same(&ours, body), "ours is {ours}, want {body}");
    }
    Ok(())
}

/// Equal, with numbers as f32 or i64.
fn same(a: &Value, b: &Value) -> bool {
    let narrow = |n: &Number| n.as_f64().map(|x| (x as f32).to_bits());
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a == b,
            _ => narrow(a) == narrow(b),
        },
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}
