//! The official Python SDK against our trainer: `python/scenario.py`, once for each version.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::checks::{self, Check};
use super::environment::{self, Packages};
use super::tiny_model;
use super::trainer::Trainer;
use crate::repository;

/// The last release that speaks JSON alone and is still in use, and the newest, which speaks
/// protobuf.
pub const VERSIONS: [&str; 2] = ["0.8.1", "0.38.0"];

/// That of the scenario.
const API_KEY: &str = "tml-local";

/// Newer releases then wait for all samples with one question, and exchange the key for tokens.
const CONFIG: &str = r#"{"sample_use_retrieve_futures": true, "pjwt_auth_enabled": true}"#;

pub fn run(versions: &[&str]) -> Result<()> {
    let state = environment::folder("state")?;
    let trainer = Trainer::start(&state, &["--api-key", API_KEY, "--client-config", CONFIG])?;
    let mut all = Vec::new();
    for version in versions {
        let checks = scenario(version, &trainer.url)?;
        checks::print(&format!("tinker {version}"), &checks);
        all.extend(checks);
    }
    checks::settle(&all)
}

fn scenario(version: &str, url: &str) -> Result<Vec<Check>> {
    let folder = environment::folder(&format!("python-{version}"))?;
    let sdk = format!("tinker=={version}");
    let packages = Packages { complete: vec![&sdk, "numpy", "torch"], ..Packages::default() };
    let python = environment::python(&folder, &packages)?;
    let script = repository().join("tools/src/interop/python/scenario.py");
    let mut process = Command::new(python)
        .arg(script)
        .args([url, tiny_model::NAME])
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the scenario")?;
    let output = process.stdout.take().context("the scenario has no output")?;
    let mut checks = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line.context("reading from the scenario")?;
        checks.push(
            serde_json::from_str(&line).with_context(|| format!("the scenario said {line:?}"))?,
        );
    }
    let status = process.wait().context("waiting for the scenario")?;
    checks.push(Check::new("the program ends well", status.success(), status.to_string()));
    Ok(checks)
}
