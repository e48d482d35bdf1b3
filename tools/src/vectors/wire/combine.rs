//! How the results of several requests become one.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};
use tinsmith_client::combine_outputs;
use tinsmith_wire::{ForwardBackwardOutput, Metrics, TensorData};

use super::read;
use crate::vectors::number::Number;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    chunks: Vec<Part>,
    expected: Option<Expected>,
    /// Python's exception, where the SDK raises. Here nothing is raised.
    #[serde(rename = "expected_error")]
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    n_outputs: usize,
    metrics: BTreeMap<String, Number>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    metrics: Map<String, Value>,
    loss_fn_output_type: String,
    output_order: Vec<i64>,
}

pub fn check(case: &Value, _: &Path) -> Result<()> {
    let case: Case = read(case)?;
    let combined = combine_outputs(case.chunks.iter().enumerate().map(part).collect());
    let Some(expected) = case.expected else {
        ensure!(case.error.is_some(), "it has neither `expected` nor `expected_error`");
        return invents_nothing(&combined, &case.chunks);
    };
    ensure!(
        combined.loss_fn_output_type == expected.loss_fn_output_type,
        "type {}, want {}",
        combined.loss_fn_output_type,
        expected.loss_fn_output_type
    );
    let order = order(&combined)?;
    ensure!(order == expected.output_order, "outputs {order:?}, want {:?}", expected.output_order);
    metrics(&combined.metrics, &expected.metrics)
}

/// Part `i` is of type `Ti`, and its output `j` is numbered `100 * i + j`.
fn part((i, part): (usize, &Part)) -> ForwardBackwardOutput {
    let output = |j| [("n".to_owned(), TensorData::from(vec![(100 * i + j) as i64]))].into();
    ForwardBackwardOutput {
        loss_fn_output_type: format!("T{i}"),
        loss_fn_outputs: (0..part.n_outputs).map(output).collect(),
        metrics: part.metrics.iter().map(|(name, x)| (name.clone(), x.0)).collect(),
    }
}

fn order(combined: &ForwardBackwardOutput) -> Result<Vec<i64>> {
    let number = |output: &BTreeMap<String, TensorData>| Some(*output.get("n")?.as_i64()?.first()?);
    let numbers: Option<Vec<i64>> = combined.loss_fn_outputs.iter().map(number).collect();
    numbers.context("an output has lost its number")
}

/// Compares every metric, to 1e-12; hashes to the unit.
pub fn metrics(got: &Metrics, want: &Map<String, Value>) -> Result<()> {
    for (name, want) in want {
        let value = got.get(name).with_context(|| format!("no metric `{name}`, want {want}"))?;
        if let Some(exact) = want.as_u64().filter(|_| name.ends_with(":hash2")) {
            let found = got.exact_u64(name);
            ensure!(found == Some(exact), "metric `{name}`: got {found:?}, want {exact}");
            continue;
        }
        let want = Number::deserialize(want)?.0;
        let near = value == want
            || value.is_nan() && want.is_nan()
            || (value - want).abs() <= 1e-12 * want.abs();
        ensure!(near, "metric `{name}`: got {value}, want {want}");
    }
    ensure!(got.len() == want.len(), "metrics {got:?}, want only {want:?}");
    Ok(())
}

/// Where the SDK raises, the outputs are there all the same, and of the metrics no others than the
/// first part has.
fn invents_nothing(combined: &ForwardBackwardOutput, parts: &[Part]) -> Result<()> {
    let outputs: usize = parts.iter().map(|part| part.n_outputs).sum();
    ensure!(order(combined)?.len() == outputs, "outputs are lost");
    for (name, _) in combined.metrics.iter() {
        let known = parts.first().is_some_and(|part| part.metrics.contains_key(name));
        ensure!(known, "metric `{name}` comes from nowhere");
    }
    Ok(())
}
