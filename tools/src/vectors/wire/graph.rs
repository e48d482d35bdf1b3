//! Custom losses for the server: what is read is written again to the letter.

use std::path::Path;

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tinsmith_wire::{CreateCustomLossRequest, json};

use super::read;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    inputs: Value,
    graph: Value,
}

pub fn check(case: &Value, _: &Path) -> Result<()> {
    let case: Case = read(case)?;
    let body = json!({
        "type": "create_custom_loss",
        "session_id": "session",
        "custom_loss_seq_id": 0,
        "name": "loss",
        "inputs": case.inputs,
        "graph": case.graph,
    });
    let request: CreateCustomLossRequest = json::from_slice(&serde_json::to_vec(&body)?)?;
    let again: Value = serde_json::from_slice(&json::to_vec(&request)?)?;
    ensure!(again == body, "got {again}, want {body}");
    Ok(())
}
