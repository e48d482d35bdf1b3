//! The project's tasks: `cargo xtask ci | vectors | bench`. Each is one file; this one only dispatches.

mod bench;
mod ci;
mod vectors;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  ci [--no-tests]                everything CI runs: format, lints, tests, docs, golden vectors
  vectors PATH...                run the golden vectors in these files and folders
  bench [TARGET] [--json FILE] [--beside FILE].. [-- CRITERION..]
                                 run the benchmarks, all or one target's, and print a table of medians and ratios;
                                 what follows -- goes to criterion";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["ci", rest @ ..] => ci::run(rest),
        ["vectors", rest @ ..] => vectors::run(rest),
        ["bench", rest @ ..] => bench::run(rest),
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
