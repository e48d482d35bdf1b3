//! The model that the servers train: small, random, the same on every machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::environment::run;
use crate::repository;

/// Its name on every server. Token ids below 256 are bytes.
pub const NAME: &str = "tiny-qwen3";

/// Writes it into `folder`, under its name, by a `python` that has numpy, safetensors and
/// tokenizers.
pub fn write(python: &Path, folder: &Path) -> Result<PathBuf> {
    let model = folder.join(NAME);
    let script = repository().join("tools/src/interop/tiny_model.py");
    run(Command::new(python).arg(script).arg(&model))?;
    Ok(model)
}
