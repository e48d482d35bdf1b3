//! Our own trainer, as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};

use crate::repository;

/// A trainer that runs until it is dropped.
pub struct Trainer {
    process: Child,
    /// Held open: the trainer goes on writing.
    output: BufReader<ChildStdout>,
    pub url: String,
}

impl Trainer {
    /// Builds and starts it on a free port, with its checkpoints in `state`, and with these
    /// options.
    pub fn start(state: &Path, options: &[&str]) -> Result<Self> {
        let build = [
            "build",
            "--release",
            "--package",
            "tinsmith-trainer",
            "--message-format",
            "json-render-diagnostics",
        ];
        let built = Command::new(env!("CARGO"))
            .args(build)
            .current_dir(repository())
            .stderr(Stdio::inherit())
            .output()
            .context("building the trainer")?;
        let program = String::from_utf8_lossy(&built.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find_map(|message| message["executable"].as_str().map(str::to_owned))
            .context("building the trainer gave no program")?;
        let mut process = Command::new(program)
            .args(["--port", "0", "--state-dir"])
            .arg(state)
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the trainer")?;
        let output = process.stdout.take().context("the trainer has no output")?;
        let mut trainer = Self { process, output: BufReader::new(output), url: String::new() };
        let mut first = String::new();
        trainer.output.read_line(&mut first).context("reading from the trainer")?;
        let url = first.trim().strip_prefix("listening on ");
        trainer.url = url.with_context(|| format!("the trainer said {first:?}"))?.to_owned();
        Ok(trainer)
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
