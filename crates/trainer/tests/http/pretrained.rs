//! Models from folders. `../pretrained` holds two small random checkpoints and the logprobs that
//! Hugging Face's implementation gives for them; `make.py` there wrote both.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tinsmith_trainer::{Error, Trainer};

use crate::support::{Client, floats};

fn folder(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pretrained");
    fixtures.join(name)
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(folder("expected.json")).unwrap()).unwrap()
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// `bf16`, one file, norms on queries and keys; and `f16`, two files, biases, tied embeddings,
/// `llama3` frequencies.
#[test]
fn checkpoints_give_the_logprobs_of_hugging_face() {
    let trainer = Trainer::builder()
        .model("qwen", folder("qwen3"))
        .model("llama", folder("llama"))
        .spawn()
        .unwrap();
    assert_eq!(trainer.base_models()[..2], ["qwen", "llama"]);
    let expected = expected();
    let tokens = expected["tokens"].as_array().unwrap();
    for (base, key) in [("qwen", "qwen3"), ("llama", "llama")] {
        let client = Client::on_base(&trainer, base, json!({"rank": 2}));
        let info = client.ok("get_info", json!({"model_id": client.model}));
        assert_eq!(info["model_data"]["arch"], key);
        let (input, targets) = (&tokens[..tokens.len() - 1], &tokens[1..]);
        let datum = json!({
            "model_input": {"chunks": [{"tokens": input}]},
            "loss_fn_inputs": {"target_tokens": {"data": targets, "dtype": "int64"}},
        });
        let result = client.result("forward", client.pass("forward", 1, &[datum]));
        let got = floats(&result["loss_fn_outputs"][0]["logprobs"]["data"]);
        for (t, (got, want)) in got.iter().zip(floats(&expected[key])).enumerate() {
            assert!((got - want).abs() < 1e-4, "{base} at {t}: {got}, not {want}");
        }
    }
}

/// A copy of a fixture, to be spoilt.
fn copy(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// What is said of `folder`.
fn problem(folder: &Path) -> String {
    let error = Trainer::builder().model("m", folder).spawn().err();
    assert!(matches!(error, Some(Error::Unusable { .. } | Error::Io { .. })));
    error.map(|e| e.to_string()).unwrap_or_default()
}

fn set(folder: &Path, field: &str, value: Value) {
    let path = folder.join("config.json");
    let mut config = read(&path);
    config[field] = value;
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn unsuitable_checkpoints_are_refused_by_file_tensor_and_shapes() {
    let cases: [(&str, Value, &[&str]); 5] = [
        (
            "vocab_size",
            json!(41),
            &["model.safetensors", "`model.embed_tokens.weight` has shape [40, 16]", "[41, 16]"],
        ),
        (
            "num_hidden_layers",
            json!(3),
            &["`model.layers.2.self_attn.q_proj.weight` [24, 16] is missing"],
        ),
        (
            "num_hidden_layers",
            json!(1),
            &["`model.layers.1.input_layernorm.weight` [16] is no part"],
        ),
        ("model_type", json!("gpt2"), &["config.json", "`gpt2`", "qwen3 and llama"]),
        ("head_dim", json!(5), &["head_dim: odd"]),
    ];
    for (field, value, said) in cases {
        let spoilt = copy("qwen3");
        set(spoilt.path(), field, value);
        let problem = problem(spoilt.path());
        for part in said {
            assert!(problem.contains(part), "{problem}");
        }
    }

    let empty = tempfile::tempdir().unwrap();
    assert!(problem(empty.path()).contains("there is no such file"));
    let cut = copy("qwen3");
    let weights = cut.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    assert!(problem(cut.path()).contains("damaged"));
    let lost = copy("llama");
    fs::remove_file(lost.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert!(problem(lost.path()).contains("model-00002-of-00002.safetensors"));
    let outside = copy("llama");
    let index = outside.path().join("model.safetensors.index.json");
    fs::write(&index, r#"{"weight_map": {"a": "../model.safetensors"}}"#).unwrap();
    assert!(problem(outside.path()).contains("is not a file of this folder"));
}
