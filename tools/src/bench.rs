//! `cargo xtask bench [TARGET] [--json FILE] [--beside FILE].. [-- CRITERION..]`: runs the
//! criterion benches and prints the medians they measured, and the ratios that say how good they
//! are.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{repository, target_folder};

/// One measurement.
#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Row {
    name: String,
    median_ns: f64,
}

/// Runs the benches, all or those of the bench target named, and prints a Markdown table; `--json`
/// also writes the rows to a file. A row is one measurement of this run: what an earlier run left
/// behind is not shown. `--beside` adds rows that another program measured, in the same format.
/// Arguments after `--` go to criterion: a filter, `--measurement-time 0.2`.
pub fn run(arguments: &[&str]) -> Result<()> {
    let (mut target, mut json) = (None, None);
    let mut others: Vec<Row> = Vec::new();
    let mut arguments = arguments.iter();
    let mut for_criterion: Vec<&str> = Vec::new();
    while let Some(&argument) = arguments.next() {
        match argument {
            "--json" => json = Some(*arguments.next().context("--json needs a file")?),
            "--beside" => {
                let path = arguments.next().context("--beside needs a file")?;
                let rows = serde_json::from_value(read(Path::new(path))?);
                others.extend::<Vec<Row>>(rows.with_context(|| format!("reading {path}"))?);
            }
            "--" => for_criterion.extend(arguments.by_ref()),
            flag if flag.starts_with('-') => bail!("bench takes no `{flag}`"),
            name => {
                ensure!(target.replace(name).is_none(), "name one bench target, or none for all")
            }
        }
    }

    ensure!(
        target.is_some() || for_criterion.is_empty(),
        "name the bench target that takes the arguments after --"
    );

    let start = SystemTime::now();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["bench", "--workspace"]).current_dir(repository());
    match target {
        Some(target) => cargo.args(["--bench", target]),
        None => cargo.args(["--benches"]),
    };
    cargo.arg("--").args(for_criterion);
    let status = cargo.status().context("starting cargo bench")?;
    ensure!(status.success(), "cargo bench: {status}");

    let mut rows = measured_since(start, &target_folder()?.join("criterion"))?;
    ensure!(!rows.is_empty(), "the benches left no measurement");
    rows.extend(others);
    print!("{}", markdown(&rows));
    if let Some(path) = json {
        fs::write(path, serde_json::to_string_pretty(&rows)? + "\n")
            .with_context(|| format!("writing {path}"))?;
    }
    Ok(())
}

/// Criterion writes `<bench>/new/{benchmark,estimates}.json`, at any depth.
fn measured_since(start: SystemTime, folder: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if !folder.is_dir() {
        return Ok(rows);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        let estimates = path.join("estimates.json");
        if path.ends_with("new") && estimates.is_file() {
            if fs::metadata(&estimates)?.modified()? >= start {
                rows.push(Row {
                    name: text(&path.join("benchmark.json"), "/full_id")?,
                    median_ns: median(&estimates)?,
                });
            }
        } else if path.is_dir() {
            rows.extend(measured_since(start, &path)?);
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

fn median(estimates: &Path) -> Result<f64> {
    let found = read(estimates)?;
    found
        .pointer("/median/point_estimate")
        .and_then(Value::as_f64)
        .with_context(|| format!("no median in {estimates:?}"))
}

fn text(path: &Path, pointer: &str) -> Result<String> {
    let found = read(path)?;
    let text = found.pointer(pointer).and_then(Value::as_str);
    Ok(text.with_context(|| format!("no {pointer} in {path:?}"))?.to_owned())
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))
}

/// A row `RIVAL/NAME` stands beside the row `NAME` of ours, as the ratio of both; what limits the
/// losses, `limit/fused/Wn` and `limit/triad/Wn`, beside all losses of that workload.
fn markdown(rows: &[Row]) -> String {
    let median = |name: &str| rows.iter().find(|row| row.name == name).map(|row| row.median_ns);
    let rival = |row: &Row| {
        let (rival, name) = row.name.split_once('/')?;
        median(name).map(|_| rival.to_owned())
    };
    let mut rivals: Vec<String> = rows.iter().filter_map(rival).collect();
    rivals.sort();
    rivals.dedup();

    let mut table = "\n| benchmark | median | / fused PPO | / triad |".to_owned();
    rivals.iter().for_each(|rival| table += &format!(" {rival} / ours |"));
    table += "\n| --- | ---: | ---: | ---: |";
    table += &" ---: |".repeat(rivals.len());
    table += "\n";
    let ratio = |over: Option<f64>, under: Option<f64>| match (over, under) {
        (Some(over), Some(under)) => format!(" {:.2} |", over / under),
        _ => "  |".to_owned(),
    };
    for row in rows.iter().filter(|row| rival(row).is_none()) {
        let Row { name, median_ns } = row;
        let workload = name.rsplit('/').next().unwrap_or_default();
        table += &format!("| {name} | {} |", duration(*median_ns));
        for limit in ["fused", "triad"] {
            table += &ratio(Some(*median_ns), median(&format!("limit/{limit}/{workload}")));
        }
        for rival in &rivals {
            table += &ratio(median(&format!("{rival}/{name}")), Some(*median_ns));
        }
        table += "\n";
    }
    table
}

fn duration(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.1} ns"),
        ns if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_the_unit_that_fits() {
        let shown = [0.25, 999.0, 1_500.0, 2_250_000.0, 3e9].map(duration);
        assert_eq!(shown, ["0.2 ns", "999.0 ns", "1.50 µs", "2.25 ms", "3.00 s"]);
    }

    #[test]
    fn a_loss_stands_beside_its_limits_and_its_rivals() {
        let row = |name: &str, median_ns| Row { name: name.into(), median_ns };
        let rows = [
            row("candle/ppo/loop/W1", 6_000.0),
            row("limit/fused/W1", 1_000.0),
            row("limit/triad/W1", 500.0),
            row("parse", 2.0),
            row("ppo/loop/W1", 1_500.0),
            row("torch-2/ppo/loop/W1", 15_000.0),
        ];
        let table = markdown(&rows);
        let lines: Vec<&str> = table.lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "| limit/fused/W1 | 1.00 µs | 1.00 | 2.00 |  |  |",
                "| limit/triad/W1 | 500.0 ns | 0.50 | 1.00 |  |  |",
                "| parse | 2.0 ns |  |  |  |  |",
                "| ppo/loop/W1 | 1.50 µs | 1.50 | 3.00 | 4.00 | 10.00 |",
            ]
        );
    }
}
