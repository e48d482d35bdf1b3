//! Training curves: one line of JSON per step, and one picture.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tinsmith_client::MetricsWriter;

#[path = "../../../cli/src/chart.rs"]
mod chart;

/// The metrics of each step, kept in a file as they come and drawn at the end.
pub struct Curves {
    picture: PathBuf,
    log: MetricsWriter,
    names: Vec<&'static str>,
    steps: Vec<Vec<f64>>,
}

impl Curves {
    /// Opens `target/<example>.jsonl`; [`finish`](Curves::finish) writes `target/<example>.svg`.
    pub fn create(example: &str, names: &[&'static str]) -> Result<Curves> {
        let folder = Path::new("target");
        fs::create_dir_all(folder)?;
        let log = folder.join(example).with_extension("jsonl");
        fs::write(&log, "").with_context(|| format!("emptying {}", log.display()))?;
        Ok(Curves {
            picture: log.with_extension("svg"),
            log: MetricsWriter::append(&log)?,
            names: names.to_vec(),
            steps: Vec::new(),
        })
    }

    /// Notes one step: a value for each name.
    pub fn push(&mut self, values: &[f64]) -> Result<()> {
        let line: BTreeMap<&str, f64> =
            self.names.iter().copied().zip(values.iter().copied()).collect();
        self.log.write(self.steps.len() as u64, &line)?;
        self.steps.push(values.to_vec());
        Ok(())
    }

    /// Draws one panel per name, one under the other, and returns the picture's path.
    pub fn finish(self) -> Result<PathBuf> {
        let panel = |(column, &name): (usize, &&str)| {
            let steps = self.steps.iter().enumerate();
            let points = steps.map(|(step, values)| (step as f64, values[column]));
            (name.to_owned(), points.collect())
        };
        let curves: Vec<chart::Curve> = self.names.iter().enumerate().map(panel).collect();
        chart::draw(&self.picture, &curves)?;
        Ok(self.picture)
    }
}
