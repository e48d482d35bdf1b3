//! A bar with the newest metrics beside it.

use indicatif::{ProgressBar, ProgressStyle};

pub struct Progress(ProgressBar);

impl Progress {
    /// A bar of `steps` steps.
    pub fn new(name: &'static str, steps: usize) -> Progress {
        let template = "{prefix:>6} {bar:30} {pos:>3}/{len} {elapsed:>4}  {msg}";
        let style =
            ProgressStyle::with_template(template).expect("the template is a constant and valid");
        Progress(ProgressBar::new(steps as u64).with_style(style).with_prefix(name))
    }

    /// One step is done; `metrics` are shown until the next.
    pub fn step(&self, metrics: &[(&str, f64)]) {
        let shown: Vec<String> =
            metrics.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
        self.0.set_message(shown.join("  "));
        self.0.inc(1);
    }

    /// Leaves the finished bar on the screen.
    pub fn finish(self) {
        self.0.abandon();
    }
}
