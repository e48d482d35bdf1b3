//! `cargo xtask kills`: hundreds of ends of a client and of a trainer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tinsmith_tests::kills::{Blow, Kills, Program, Victim, run_party};

use super::{Options, print_table, yes_or_no};

/// Is a client or a trainer.
pub fn party(arguments: &[&str]) -> Result<()> {
    run_party(arguments)
}

/// Deals the blows and prints what came of them; an error unless all is well.
pub fn run(arguments: &[&str]) -> Result<()> {
    let names = ["--client", "--trainer", "--stops", "--seed"];
    let options = Options::parse(arguments, &names)?;
    let kills = Kills {
        client: options.value("--client", 250)?,
        trainer: options.value("--trainer", 250)?,
        stops: options.value("--stops", 50)?,
        seed: options.value("--seed", 1)?,
        // About as long as a step and a save.
        step_delay: Duration::from_millis(12),
        save_delay: Duration::from_millis(4),
        stop: Duration::from_millis(200),
    };
    let program = Program {
        path: std::env::current_exe().context("finding this program")?,
        arguments: vec!["party".to_owned()],
    };
    let folder = tempfile::tempdir()?;
    let start = Instant::now();
    let outcome = kills.run(&program, folder.path(), |blows| {
        if blows.is_multiple_of(100) {
            eprintln!("{blows} blows after {:.0} s", start.elapsed().as_secs_f64());
        }
    })?;
    let name = |&(victim, blow)| match (victim, blow) {
        (Victim::Client, Blow::Kill) => "client killed, resumed identically",
        (Victim::Client, Blow::Stop) => "client stopped, went on identically",
        (Victim::Trainer, Blow::Kill) => "trainer killed, resumed identically",
        (Victim::Trainer, Blow::Stop) => "trainer stopped, went on identically",
    };
    let blows = outcome.blows.iter();
    let mut rows: Vec<(String, String)> = blows
        .map(|(key, (dealt, same))| (name(key).to_owned(), format!("{dealt}, {same}")))
        .collect();
    let row = |name: &str, value: String| (name.to_owned(), value);
    rows.extend([
        row("blows aimed at a save", outcome.aimed_at_saves.to_string()),
        row("saves left half written, beside their place", outcome.half_written.to_string()),
        row("checkpoints at the end", outcome.checkpoints.to_string()),
        row("of them wrong or unreadable", outcome.wrong.len().to_string()),
        row("steps", outcome.steps.to_string()),
        row("all is well", yes_or_no(outcome.is_well())),
    ]);
    print_table(["", &format!("seed {}", kills.seed)], &rows);
    println!("\n{:.0} s", start.elapsed().as_secs_f64());
    ensure!(outcome.is_well(), "not all was saved as by an undisturbed run: {outcome:?}");
    Ok(())
}
