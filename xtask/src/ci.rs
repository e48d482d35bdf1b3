//! `cargo xtask ci`: each check that CI makes, in the order in which a mistake is found soonest.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::{repository, vectors};

/// Stops at the first step that fails. `--no-tests` leaves out `cargo test`, for callers that have just run it.
pub fn run(arguments: &[&str]) -> Result<()> {
    let tests = match arguments {
        [] => true,
        ["--no-tests"] => false,
        _ => bail!("ci takes no argument but --no-tests; got {arguments:?}"),
    };
    let golden = repository().join("tests/vectors");

    step("format", || cargo(&["fmt", "--all", "--check"], &[]))?;
    step("lints", || {
        cargo(
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
            &[],
        )
    })?;
    // Only what knows of the feature: all else is as it is without.
    let zstd = [
        "--workspace",
        "--features",
        "tinsmith-client/zstd",
        "--test",
        "zstd",
    ];
    step("lints of feature zstd", || {
        let arguments = [&["clippy"][..], &zstd, &["--lib", "--", "-D", "warnings"]];
        cargo(&arguments.concat(), &[])
    })?;
    if tests {
        step("tests", || cargo(&["test", "--workspace"], &[]))?;
        step("tests of feature zstd", || {
            cargo(&[&["test"][..], &zstd].concat(), &[])
        })?;
    }
    step("docs", || {
        cargo(
            &["doc", "--workspace", "--no-deps"],
            &[("RUSTDOCFLAGS", "-D warnings")],
        )
    })?;
    step("vectors", || {
        vectors::run_paths(&vectors::supported(&golden)?)
    })
}

fn step(name: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let start = Instant::now();
    let outcome = check();
    let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
    println!(
        "== {name}: {verdict} in {:.1} s\n",
        start.elapsed().as_secs_f64()
    );
    outcome.with_context(|| format!("step `{name}`"))
}

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(repository())
        .status()
        .context("starting cargo")?;
    ensure!(
        status.success(),
        "`cargo {}`: {status}",
        arguments.join(" ")
    );
    Ok(())
}
