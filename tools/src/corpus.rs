//! `cargo xtask corpus`: fills the corpora of the fuzz targets of `crates/wire/fuzz` with the
//! golden bodies.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::repository;

/// Where the bodies of `tests/vectors/wire` go, by the beginning of their files' names.
const BINARY: [(&str, &str, &str); 3] = [
    ("requests", "", "proto_request"),
    ("responses", "fb_", "proto_output"),
    ("responses", "sample_", "proto_sample"),
];

pub fn run(arguments: &[&str]) -> Result<()> {
    ensure!(arguments.is_empty(), "corpus takes no argument");
    let golden = repository().join("tests/vectors/wire");
    let corpus = repository().join("crates/wire/fuzz/corpus");
    let mut seeds = 0;
    let mut seed = |target: &str, name: &str, body: &[u8]| {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        seeds += 1;
        let file = folder.join(name);
        fs::write(&file, body).with_context(|| format!("writing {}", file.display()))
    };
    for (folder, prefix, target) in BINARY {
        for (name, body) in files(&golden.join(folder), "bin")? {
            if name.starts_with(prefix) {
                seed(target, &name, &body)?;
            }
        }
    }
    for folder in ["requests", "responses"] {
        for (name, text) in files(&golden.join(folder), "json")? {
            for (i, body) in bodies(&serde_json::from_slice(&text)?).into_iter().enumerate() {
                seed("json", &format!("{name}-{i}"), body.to_string().as_bytes())?;
            }
        }
    }
    let graphs: Vec<Value> =
        serde_json::from_slice(&fs::read(golden.join("custom_loss_graphs.json"))?)?;
    for mut graph in graphs {
        graph["session_id"] = "session".into();
        graph["custom_loss_seq_id"] = 0.into();
        let name = format!("graph-{}", graph["name"].as_str().unwrap_or_default());
        seed("json", &name, graph.to_string().as_bytes())?;
    }
    println!("{seeds} seeds in {}", corpus.display());
    Ok(())
}

/// The JSON bodies of a case.
fn bodies(case: &Value) -> Vec<&Value> {
    let requests = case["json"].as_object().into_iter().flat_map(|versions| versions.values());
    let bodies = requests.map(|request| &request["body"]).chain([&case["json_body"]]);
    bodies.filter(|body| !body.is_null()).collect()
}

/// Names and contents of the files with this extension.
fn files(folder: &Path, extension: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == extension) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            found.push((name, fs::read(&path)?));
        }
    }
    Ok(found)
}
