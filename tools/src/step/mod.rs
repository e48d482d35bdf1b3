//! `cargo xtask bench step` and `cargo xtask null-server`: what one step of a custom loss costs the
//! client, beside a server that costs next to nothing.

mod client;
mod limit;
mod null_server;
mod table;
mod usage;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

pub use client::run as client;
pub use null_server::run as null_server;

use crate::{repository, target_folder};

/// How many sequences of how many tokens; the names are those of the loss benchmarks.
const WORKLOADS: [(&str, usize, usize); 3] =
    [("W2", 64, 1_024), ("W3", 256, 4_096), ("W4", 64, 16_384)];

/// Our client.
const OURS: &str = "tinsmith";
/// Bytes through a socket, and nothing else.
const LIMIT: &str = "limit";

/// What bodies are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Dialect {
    Json,
    Proto,
}

impl Dialect {
    const ALL: [Dialect; 2] = [Dialect::Json, Dialect::Proto];

    fn name(self) -> &'static str {
        match self {
            Dialect::Json => "json",
            Dialect::Proto => "proto",
        }
    }
}

impl FromStr for Dialect {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Dialect::ALL.into_iter().find(|dialect| dialect.name() == name);
        found.with_context(|| format!("`{name}` is no dialect; json and proto are"))
    }
}

/// What one client costs in one step: medians over steps of one process.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    /// [`OURS`], [`LIMIT`], or whom ours is compared with.
    client: String,
    dialect: Dialect,
    workload: String,
    steps: usize,
    /// User and system time of all threads.
    cpu_ms: f64,
    wall_ms: f64,
    phases: Vec<Phase>,
    /// Bodies, as the server counted them.
    bytes_to_server: u64,
    bytes_to_client: u64,
    /// Resident memory of the process: with the data made, before the first step; and at most.
    resident_before: u64,
    resident_peak: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Phase {
    name: String,
    cpu_ms: f64,
    wall_ms: f64,
}

/// Runs every workload in both dialects, each in a process of its own, and prints tables; `--json`
/// also writes the rows. `--beside` adds rows that another client measured (`sdk.py`).
pub fn bench(arguments: &[&str]) -> Result<()> {
    let mut json = None;
    let mut rows: Vec<Row> = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(&argument) = arguments.next() {
        match argument {
            "--json" => json = Some(*arguments.next().context("--json needs a file")?),
            "--beside" => {
                let path = arguments.next().context("--beside needs a file")?;
                let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
                let others: Vec<Row> =
                    serde_json::from_str(&text).with_context(|| format!("reading {path}"))?;
                rows.extend(others);
            }
            other => bail!("bench step takes no `{other}`"),
        }
    }
    let program = release_build()?;
    for dialect in Dialect::ALL {
        let server = NullServer::start(&program, dialect)?;
        let measured = WORKLOADS.map(|(workload, ..)| [(OURS, workload), (LIMIT, workload)]);
        for (client, workload) in measured.into_iter().flatten() {
            let output = Command::new(&program)
                .args(["step-client", client, &server.url, dialect.name(), workload])
                .stderr(Stdio::inherit())
                .output()
                .context("starting the client")?;
            ensure!(output.status.success(), "step-client: {}", output.status);
            let row = serde_json::from_slice(&output.stdout).context("reading its row")?;
            rows.push(row);
        }
    }
    print!("{}", table::markdown(&rows));
    if let Some(path) = json {
        fs::write(path, serde_json::to_string_pretty(&rows)? + "\n")
            .with_context(|| format!("writing {path}"))?;
    }
    Ok(())
}

/// This program, built as users build theirs. `--workspace` shares the features, and so the
/// artifacts, of other builds.
fn release_build() -> Result<PathBuf> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--workspace", "--bin", "tools"])
        .current_dir(repository())
        .status()
        .context("starting cargo build")?;
    ensure!(status.success(), "cargo build: {status}");
    Ok(target_folder()?.join("release/tools"))
}

/// A null server in a process of its own; it ends with this value.
struct NullServer {
    process: Child,
    url: String,
}

impl NullServer {
    fn start(program: &Path, dialect: Dialect) -> Result<Self> {
        let mut process = Command::new(program)
            .args(["null-server", "--port", "0", "--dialect", dialect.name()])
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the null server")?;
        let stdout = process.stdout.take().context("it has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let url = line.split_whitespace().find(|word| word.starts_with("http://"));
        let url = url.with_context(|| format!("the null server said {line:?}"))?;
        Ok(NullServer { url: url.to_owned(), process })
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
