//! `cargo xtask soak`: thousands of steps through faults of every kind.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tinsmith_client::{Dialect, RequestOrder};
use tinsmith_tests::{
    Fault,
    soak::{Outcome, Soak},
};

use super::{Options, print_table, yes_or_no};

const NAMES: [&str; 5] = ["--steps", "--fault-rate", "--seed", "--dialect", "--server-order"];

/// Runs both runs and prints what came of them; an error unless all is well.
pub fn run(arguments: &[&str]) -> Result<()> {
    let options = Options::parse(arguments, &NAMES)?;
    let soak = Soak {
        steps: options.value("--steps", 5_000)?,
        seed: options.value("--seed", 1)?,
        dialect: match options.text("--dialect", "protobuf") {
            "json" => Dialect::Json,
            "protobuf" => Dialect::Protobuf,
            other => bail!("--dialect is json or protobuf, not `{other}`"),
        },
        order: match options.text("--server-order", "sequence") {
            "sequence" => RequestOrder::BySequence,
            "arrival" => RequestOrder::ByArrival,
            other => bail!("--server-order is sequence or arrival, not `{other}`"),
        },
        fault_rate: options.value("--fault-rate", 0.25)?,
        drip_pause: Duration::from_millis(1),
    };
    ensure!((0.0..1.0).contains(&soak.fault_rate), "--fault-rate is at least 0 and less than 1");
    let start = Instant::now();
    let outcome = soak.run(|run, step| {
        if step.is_multiple_of(1_000) {
            eprintln!("{run}: {step} steps after {:.0} s", start.elapsed().as_secs_f64());
        }
    })?;
    report(&soak, &outcome);
    println!("\n{:.0} s", start.elapsed().as_secs_f64());
    ensure!(outcome.is_well(soak.order), "the run did not end as an undisturbed one: {soak:?}");
    Ok(())
}

fn report(soak: &Soak, outcome: &Outcome) {
    let tally = &outcome.tally;
    let count = |fault: &Fault| tally.faults.get(fault).copied().unwrap_or_default();
    let faults = Fault::ALL.iter().filter(|&fault| count(fault) > 0);
    let rows: Vec<(String, String)> =
        faults.map(|fault| (fault.name().to_owned(), count(fault).to_string())).collect();
    print_table(["fault", "times"], &rows);

    let waits = outcome.waits.iter();
    let (asked, kept) = waits.fold((0, 0), |sum, wait| (sum.0 + wait.1, sum.1 + wait.2));
    let executed = outcome.found.stats.executed;
    let same_losses = outcome.expected.losses == outcome.found.losses;
    let same_samples = outcome.expected.samples == outcome.found.samples;
    let all: u64 = tally.faults.values().sum();
    let row = |name: &str, value: String| (name.to_owned(), value);
    print_table(
        ["", &format!("{:?}, {:?}, seed {}", soak.dialect, soak.order, soak.seed)],
        &[
            row("steps", outcome.found.losses.len().to_string()),
            row("requests", tally.requests.to_string()),
            row("faults", all.to_string()),
            row("kinds of faults", rows.len().to_string()),
            row("passes executed", (executed.forward + executed.forward_backward).to_string()),
            row("optimizer steps executed", executed.optim_step.to_string()),
            row("as planned", yes_or_no(executed == soak.planned())),
            row("lost", outcome.lost().to_string()),
            row("twice", outcome.twice(soak.order).to_string()),
            row("waits asked for, and kept", format!("{asked}, {kept}")),
            row("losses identical", yes_or_no(same_losses)),
            row("samples identical", yes_or_no(same_samples)),
            row(
                "weights and moments identical",
                yes_or_no(outcome.expected.state == outcome.found.state),
            ),
        ],
    );
}
