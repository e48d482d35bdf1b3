//! Curves as a picture, one panel under the other. The examples of the client draw with this file
//! too.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use plotters::prelude::*;

/// One panel: its title, and its points from left to right.
pub type Curve = (String, Vec<(f64, f64)>);

/// Writes an SVG of the curves, which share the range of their x.
pub fn draw(picture: &Path, curves: &[Curve]) -> Result<()> {
    drawn(picture, curves).with_context(|| format!("drawing {}", picture.display()))
}

fn drawn(picture: &Path, curves: &[Curve]) -> Result<()> {
    let size = (720, 40 + 200 * curves.len() as u32);
    let root = SVGBackend::new(picture, size).into_drawing_area();
    root.fill(&WHITE)?;
    let all = || curves.iter().flat_map(|(_, points)| points).map(|&(x, _)| x);
    let first = all().fold(f64::INFINITY, f64::min).min(f64::MAX);
    let last = all().fold(first + 1.0, f64::max);
    for (panel, (title, points)) in root.split_evenly((curves.len(), 1)).iter().zip(curves) {
        let mut chart = ChartBuilder::on(panel)
            .caption(title, ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(24)
            .y_label_area_size(56)
            .build_cartesian_2d(first..last, bounds(points))?;
        chart
            .configure_mesh()
            .x_label_formatter(&|step| format!("{step:.0}"))
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.08))
            .draw()?;
        let finite = points.iter().copied().filter(|(_, y)| y.is_finite());
        chart.draw_series(LineSeries::new(finite, RGBColor(31, 119, 180).stroke_width(2)))?;
    }
    root.present()?;
    Ok(())
}

/// The range of the values, widened a little so that no line lies on the frame.
fn bounds(points: &[(f64, f64)]) -> Range<f64> {
    let finite = || points.iter().map(|&(_, y)| y).filter(|y| y.is_finite());
    let (low, high) =
        (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    if low > high {
        return 0.0..1.0;
    }
    let margin = ((high - low) * 0.05).max(1e-3);
    low - margin..high + margin
}
