//! Training curves: one line of JSON per step, and one picture.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plotters::prelude::*;
use tinsmith_client::MetricsWriter;

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
        let line: BTreeMap<&str, f64> = self
            .names
            .iter()
            .copied()
            .zip(values.iter().copied())
            .collect();
        self.log.write(self.steps.len() as u64, &line)?;
        self.steps.push(values.to_vec());
        Ok(())
    }

    /// Draws one panel per name, one under the other, and returns the picture's path.
    pub fn finish(self) -> Result<PathBuf> {
        self.draw()
            .with_context(|| format!("drawing {}", self.picture.display()))?;
        Ok(self.picture)
    }

    fn draw(&self) -> Result<()> {
        let size = (720, 40 + 200 * self.names.len() as u32);
        let root = SVGBackend::new(&self.picture, size).into_drawing_area();
        root.fill(&WHITE)?;
        let panels = root.split_evenly((self.names.len(), 1));
        for (column, (panel, name)) in panels.iter().zip(&self.names).enumerate() {
            let points: Vec<(f64, f64)> = self
                .steps
                .iter()
                .enumerate()
                .map(|(step, values)| (step as f64, values[column]))
                .collect();
            let mut chart = ChartBuilder::on(panel)
                .caption(name, ("sans-serif", 16))
                .margin(12)
                .x_label_area_size(24)
                .y_label_area_size(56)
                .build_cartesian_2d(0.0..points.len().max(2) as f64 - 1.0, bounds(&points))?;
            chart
                .configure_mesh()
                .x_label_formatter(&|step| format!("{step:.0}"))
                .light_line_style(TRANSPARENT)
                .bold_line_style(BLACK.mix(0.08))
                .draw()?;
            chart.draw_series(LineSeries::new(
                points,
                RGBColor(31, 119, 180).stroke_width(2),
            ))?;
        }
        root.present()?;
        Ok(())
    }
}

/// The range of the values, widened a little so that no line lies on the frame.
fn bounds(points: &[(f64, f64)]) -> Range<f64> {
    let finite = || points.iter().map(|&(_, y)| y).filter(|y| y.is_finite());
    let (low, high) = (
        finite().fold(f64::INFINITY, f64::min),
        finite().fold(f64::NEG_INFINITY, f64::max),
    );
    if low > high {
        return 0.0..1.0;
    }
    let margin = ((high - low) * 0.05).max(1e-3);
    low - margin..high + margin
}
