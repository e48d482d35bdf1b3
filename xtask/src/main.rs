//! The project's tasks: `cargo xtask ci | vectors | bench | null-server | cuda-check | corpus | interop`. Each is one file; this
//! one only dispatches.

mod bench;
mod ci;
mod corpus;
mod cuda;
mod interop;
mod step;
mod vectors;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  ci [--no-tests]                everything CI runs: format, lints, tests, docs, golden vectors
  vectors PATH...                run the golden vectors in these files and folders
  bench [TARGET] [--json FILE] [--beside FILE].. [-- CRITERION..]
                                 run the benchmarks, all or one target's, and print a table of medians and ratios;
                                 what follows -- goes to criterion
  bench step [--json FILE] [--beside FILE]..
                                 measure a whole step of a custom loss against a server that answers at once
  null-server --port P --dialect json|proto
                                 run that server alone, for another client to be timed against
  cuda-check                     type-check the feature `cuda`, on a machine that may have neither CUDA nor a GPU
  corpus                         seed the fuzz targets of crates/wire/fuzz with the golden bodies
  interop skyrl                  run the client against SkyRL-tx and print a table of checks
  interop tuft                   train by the client on TuFT and on the local trainer, and compare each step
  interop python [VERSION..]     train on the local trainer with these releases of the official Python SDK
                                 (all three need Python and a package index)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["ci", rest @ ..] => ci::run(rest),
        ["vectors", rest @ ..] => vectors::run(rest),
        ["bench", "step", rest @ ..] => step::bench(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["null-server", rest @ ..] => step::null_server(rest),
        // What `bench step` starts for each workload.
        ["step-client", rest @ ..] => step::client(rest),
        ["cuda-check"] => cuda::check(),
        ["corpus", rest @ ..] => corpus::run(rest),
        ["interop", rest @ ..] => interop::run(rest),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        [other, ..] => Err(anyhow::anyhow!("unknown command `{other}`\n\n{USAGE}")),
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
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask
        .parent()
        .expect("xtask lies in the repository")
        .to_path_buf()
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
