//! A small table for the terminal.

use std::fmt;

/// Figures measured before and after training.
#[derive(Default)]
pub struct Table {
    rows: Vec<[String; 3]>,
}

impl Table {
    pub fn row(mut self, what: &str, before: f64, after: f64) -> Table {
        self.rows.push([what.to_owned(), format!("{before:.3}"), format!("{after:.3}")]);
        self
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.rows.iter().map(|row| row[0].len()).max().unwrap_or_default();
        writeln!(f, "{:what$}  {:>9}  {:>9}", "", "before", "after")?;
        for [name, before, after] in &self.rows {
            writeln!(f, "{name:what$}  {before:>9}  {after:>9}")?;
        }
        Ok(())
    }
}
