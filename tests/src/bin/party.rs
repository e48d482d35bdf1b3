//! A client or a trainer in a process of its own, for the test that kills them.

use std::process::ExitCode;

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

#[cfg(unix)]
fn run(arguments: &[&str]) -> anyhow::Result<()> {
    tinsmith_tests::kills::run_party(arguments)
}

#[cfg(not(unix))]
fn run(_: &[&str]) -> anyhow::Result<()> {
    anyhow::bail!("processes are killed by signals, which this system has not")
}
