//! `cargo xtask crowd`: hundreds of threads on a few models.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tinsmith_tests::crowd::{Crowd, Open};

use super::{Options, print_table, yes_or_no};

/// Lets the threads loose and prints what came of it; an error unless all is well.
pub fn run(arguments: &[&str]) -> Result<()> {
    let names = ["--threads", "--models", "--seconds", "--seed", "--fault-rate"];
    let options = Options::parse(arguments, &names)?;
    let crowd = Crowd {
        threads: options.value("--threads", 200)?,
        models: options.value("--models", 8)?,
        seed: options.value("--seed", 1)?,
        fault_rate: options.value("--fault-rate", 0.0)?,
    };
    ensure!(crowd.threads > 0 && crowd.models > 0, "there is no crowd without threads and models");
    let limit = Duration::from_secs(options.value("--seconds", 30)?);
    let start = Instant::now();
    // Every thread makes one step at least.
    let outcome = crowd.run(|made| made == 0 || start.elapsed() < limit)?;
    let open = |it: Open| format!("{}, {}", it.threads, it.files);
    let row = |name: &str, value: String| (name.to_owned(), value);
    print_table(
        ["", &format!("{} threads, {} models, seed {}", crowd.threads, crowd.models, crowd.seed)],
        &[
            row("steps asked for", outcome.asked.optim_step.to_string()),
            row("forward passes executed", outcome.executed.forward.to_string()),
            row("backward passes executed", outcome.executed.forward_backward.to_string()),
            row("optimizer steps executed", outcome.executed.optim_step.to_string()),
            row("samples", outcome.samples.to_string()),
            row("requests, faults", format!("{}, {}", outcome.requests.0, outcome.requests.1)),
            row("errors", outcome.errors.len().to_string()),
            row("threads, files before", open(outcome.before)),
            row("threads, files with the crowd", open(outcome.within)),
            row("threads, files after", open(outcome.after)),
            row("all is well", yes_or_no(outcome.is_well())),
        ],
    );
    println!("\n{:.0} s", start.elapsed().as_secs_f64());
    ensure!(outcome.is_well(), "the crowd did harm: {:?}", outcome.errors.first());
    Ok(())
}
