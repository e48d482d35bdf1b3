//! `cargo xtask ci`: each check that CI makes, in the order in which a mistake is found soonest.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{repository, tidy};

/// What knows of features. The rest of the workspace is as it is without, and is not built again.
const FEATURES: [&str; 7] = [
    "--workspace",
    "--features",
    "tinsmith-client/zstd,tinsmith-client/tracing",
    "--test",
    "zstd",
    "--test",
    "tracing",
];

/// Stops at the first step that fails.
pub fn run() -> Result<()> {
    step("format", || cargo(&["fmt", "--all", "--check"], &[]))?;
    step("tidy", || tidy::run(&[]))?;

    let strict = ["--", "-D", "warnings"];
    step("lints", || {
        let clippy = ["clippy", "--workspace", "--all-targets"];
        cargo(&[&clippy[..], &strict].concat(), &[])
    })?;
    step("lints of features", || {
        cargo(&[&["clippy"], &FEATURES[..], &["--lib"], &strict].concat(), &[])
    })?;
    // Golden vectors are among them.
    step("tests", || cargo(&["test", "--workspace"], &[]))?;
    step("tests of features", || cargo(&[&["test"], &FEATURES[..]].concat(), &[]))?;
    step("docs", || {
        let warnings_are_errors = [("RUSTDOCFLAGS", "-D warnings")];
        cargo(&["doc", "--workspace", "--no-deps"], &warnings_are_errors)
    })
}

fn step(name: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let start = Instant::now();
    let outcome = check();
    let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
    println!("== {name}: {verdict} in {:.1} s\n", start.elapsed().as_secs_f64());
    outcome.with_context(|| format!("step `{name}`"))
}

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(repository())
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "`cargo {}`: {status}", arguments.join(" "));
    Ok(())
}
