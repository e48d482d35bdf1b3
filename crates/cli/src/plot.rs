//! `tinsmith plot`: the curves of a file of metrics, a line of JSON a step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::chart::{self, Curve};

/// Draws the numbers of `file` named, or all but `step` and `time`, by step; beside it, or to
/// `output`. Prints where.
pub fn run(file: &Path, names: &[String], output: Option<PathBuf>) -> Result<()> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let curves = curves(&text).with_context(|| file.display().to_string())?;
    let chosen = choose(curves, names)?;
    let picture = output.unwrap_or_else(|| file.with_extension("svg"));
    ensure!(picture != file, "the picture would replace the metrics: name another with -o");
    chart::draw(&picture, &chosen)?;
    println!("{}", picture.display());
    Ok(())
}

/// Every number of the lines by its name; those within others have names such as `gradient.norm`.
fn curves(text: &str) -> Result<BTreeMap<String, Vec<(f64, f64)>>> {
    let mut curves: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let values: Value = match serde_json::from_str(line) {
            Ok(values) => values,
            // A run that is still writing, or was cut off.
            Err(_) if at + 1 == lines.len() && !text.ends_with('\n') => break,
            Err(error) => bail!("line {}: {error}", at + 1),
        };
        let step = values["step"].as_f64().unwrap_or(at as f64);
        let mut pending = vec![(String::new(), &values)];
        while let Some((name, value)) = pending.pop() {
            let within = |key: &str| {
                if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") }
            };
            match value {
                Value::Number(number) => {
                    let point = (step, number.as_f64().unwrap_or(f64::NAN));
                    curves.entry(name).or_default().push(point);
                }
                Value::Object(fields) => {
                    pending.extend(fields.iter().map(|(key, value)| (within(key), value)))
                }
                // The terms of a loss.
                Value::Array(items) => pending.extend(
                    items.iter().filter_map(|item| Some((within(item["name"].as_str()?), item))),
                ),
                _ => {}
            }
        }
    }
    Ok(curves)
}

fn choose(mut curves: BTreeMap<String, Vec<(f64, f64)>>, names: &[String]) -> Result<Vec<Curve>> {
    if names.is_empty() {
        curves.retain(|name, _| name != "step" && name != "time");
        ensure!(!curves.is_empty(), "there are no numbers to draw");
        return Ok(curves.into_iter().collect());
    }
    let known = curves.keys().cloned().collect::<Vec<_>>().join(", ");
    let chosen = names.iter().map(|name| match curves.remove(name) {
        Some(points) => Ok((name.clone(), points)),
        None => bail!("no number is called {name:?}; there are {known}"),
    });
    chosen.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "{\"step\":1,\"time\":9.5,\"loss\":2.0,\"gradient\":{\"norm\":0.5},\"terms\":[{\"name\":\"kl\",\"value\":3}],\"warnings\":[]}\n\
                         {\"step\":3,\"time\":9.6,\"loss\":1.5,\"gradient\":{\"norm\":0.25},\"drift\":null}\n";

    #[test]
    fn numbers_are_found_at_any_depth() {
        let found = curves(LINES).unwrap();
        assert_eq!(found["loss"], [(1.0, 2.0), (3.0, 1.5)]);
        assert_eq!(found["gradient.norm"], [(1.0, 0.5), (3.0, 0.25)]);
        assert_eq!(found["terms.kl.value"], [(1.0, 3.0)]);
    }

    #[test]
    fn an_unfinished_last_line_is_passed_over_and_any_other_is_named() {
        assert_eq!(curves(&format!("{LINES}{{\"step\":4,\"lo")).unwrap()["loss"].len(), 2);
        let error = curves(&format!("{LINES}oops\n{LINES}")).unwrap_err().to_string();
        assert!(error.starts_with("line 3: "), "{error}");
    }

    #[test]
    fn all_but_step_and_time_are_drawn_unless_named() {
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let chosen = choose(curves(LINES).unwrap(), &names)?;
            anyhow::Ok(chosen.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["gradient.norm", "loss", "terms.kl.value"]);
        assert_eq!(names(&["loss", "time"]).unwrap(), ["loss", "time"]);
        let error = names(&["los"]).unwrap_err().to_string();
        assert!(error.contains("\"los\"; there are gradient.norm, loss"), "{error}");
    }
}
