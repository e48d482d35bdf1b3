//! Our client against SkyRL-tx 0.3.0, a server of the JSON dialect whose engine computes with JAX.

mod scenarios;

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::checks;
use super::environment::{self, Packages, emptied};
use super::server::{Server, free_port};
use super::tiny_model;
use crate::repository;

/// Ranks beyond it are refused.
const MAX_RANK: u32 = 16;

pub fn run() -> Result<()> {
    let folder = environment::folder("skyrl")?;
    let packages = Packages {
        alone: &["skyrl-tx==0.3.0"],
        ..Packages::listed(include_str!("skyrl/requirements.txt"))
    };
    let python = environment::python(&folder, &packages)?;
    tiny_model::write(&python, &folder)?;
    let server = start(&folder, &python)?;
    let checks = scenarios::run(&server.url)?;
    checks::print("SkyRL-tx 0.3.0, by tinsmith-client", &checks);
    checks::settle(&checks)
}

fn start(folder: &Path, python: &Path) -> Result<Server> {
    let run = emptied(&folder.join("run"))?;
    let assets = repository().join("tools/src/interop/skyrl");
    let mut path = vec![assets.join("bin"), folder.join("venv/bin")];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let port = free_port()?;
    let limits = serde_json::json!({
        "max_lora_adapters": 16,
        "max_lora_rank": MAX_RANK,
        "train_micro_batch_size": 8,
        "sample_max_num_sequences": 8,
    });
    let mut command = Command::new(python);
    command
        .args(["-m", "tx.tinker.api", "--host", "127.0.0.1", "--port"])
        .arg(port.to_string())
        // A path, and its public name too.
        .args(["--base-model", tiny_model::NAME, "--backend", "jax"])
        .args(["--backend-config", &limits.to_string()])
        .arg("--database-url")
        .arg(format!("sqlite:///{}", run.join("tinker.db").display()))
        .arg("--checkpoints-base")
        .arg(emptied(&run.join("checkpoints"))?)
        .arg("--external-inference-lora-base")
        .arg(emptied(&run.join("lora"))?)
        .current_dir(folder)
        .env("PATH", env::join_paths(path)?)
        .env("PYTHONPATH", assets.join("site"))
        .env("JAX_PLATFORMS", "cpu")
        .env("JAX_COMPILATION_CACHE_DIR", folder.join("compiled"))
        .env("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
        .env("HF_HUB_OFFLINE", "1");
    Server::start(&mut command, port, run.join("server.log"))
}
