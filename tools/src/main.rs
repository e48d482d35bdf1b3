//! The project's tasks that need its crates built:
//! `cargo xtask vectors | bench | null-server | cuda-check | corpus | interop | soak | kills | crowd`
//! starts them here.
//! Each is one module; this one only dispatches.

mod bench;
mod corpus;
mod cuda;
mod interop;
mod reliability;
mod step;
mod vectors;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["vectors", rest @ ..] => vectors::run(rest),
        ["bench", "step", rest @ ..] => step::bench(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["null-server", rest @ ..] => step::null_server(rest),
        // What `bench step` starts for each workload.
        ["step-client", rest @ ..] => step::client(rest),
        ["cuda-check"] => cuda::check(),
        ["corpus", rest @ ..] => corpus::run(rest),
        ["interop", rest @ ..] => interop::run(rest),
        ["soak", rest @ ..] => reliability::soak(rest),
        ["crowd", rest @ ..] => reliability::crowd(rest),
        #[cfg(unix)]
        ["kills", rest @ ..] => reliability::kills(rest),
        // What `kills` starts, and kills.
        #[cfg(unix)]
        ["party", rest @ ..] => reliability::party(rest),
        other => Err(anyhow::anyhow!("no task {other:?}; `cargo xtask help` lists them")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository, wherever the command was started.
fn repository() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"));
    tools.parent().expect("tools lies in the repository").to_path_buf()
}

/// Where cargo puts what it builds.
fn target_folder() -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps"])
        .current_dir(repository())
        .output()
        .context("starting cargo metadata")?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok(metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?
        .into())
}
