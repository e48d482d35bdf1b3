//! The project's tasks. `ci` and `tidy` are here and start in seconds; the others need the
//! project's crates built, and are in the package `tools`.

mod ci;
mod tidy;

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  ci                             everything CI runs: format, tidy, lints, tests, docs
  tidy [--fix]                   check what no compiler checks: circles of modules, long files, foreign types in public
                                 signatures, wide comments; --fix wraps the comments
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
                                 (all three need Python and a package index)
  soak --steps N --fault-rate P --seed S --dialect json|protobuf [--server-order sequence|arrival]
                                 train through faults of networks and gateways, and compare with an undisturbed run
  kills --client N --trainer N --stops N --seed S
                                 kill and stop a client and a trainer, and compare what they save with an undisturbed
                                 run (on Unix)
  crowd --threads N --models N --seconds S --seed S --fault-rate P
                                 train from many threads at once, and count requests, threads and files";

/// What `tools` does.
const TOOLS: [&str; 6] = ["vectors", "bench", "null-server", "cuda-check", "corpus", "interop"];
/// What `tools` does for minutes, and is built for as users build.
const LONG_TOOLS: [&str; 3] = ["soak", "kills", "crowd"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["ci"] => ci::run(),
        ["tidy", rest @ ..] => tidy::run(rest),
        [tool, ..] if TOOLS.contains(tool) => start(&[], arguments),
        [tool, ..] if LONG_TOOLS.contains(tool) => start(&["--release"], arguments),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown command {other:?}\n\n{USAGE}"),
    }
}

/// Runs a task of `tools`, where the user stands: the arguments may be paths.
fn start(build: &[&str], arguments: &[&str]) -> Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--package", "tools"]).args(build).arg("--").args(arguments);
    let status = cargo.status().context("starting cargo run")?;
    ensure!(status.success(), "`{}`: {status}", arguments.join(" "));
    Ok(())
}

/// The root of the repository, wherever the command was started.
fn repository() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask lies in the repository")
}
