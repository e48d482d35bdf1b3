//! What was checked, as a table.

use anyhow::{Result, ensure};
use serde::Deserialize;

/// One line of the table.
#[derive(Debug, Clone, Deserialize)]
pub struct Check {
    /// What should be.
    #[serde(rename = "check")]
    pub name: String,
    pub ok: bool,
    /// What was seen, in short.
    pub seen: String,
}

impl Check {
    pub fn new(name: impl Into<String>, ok: bool, seen: impl Into<String>) -> Self {
        Self { name: name.into(), ok, seen: seen.into() }
    }
}

/// What a scenario checked. One that breaks off is a check that failed, so that the others go on.
pub fn guarded(name: &str, scenario: impl FnOnce() -> Result<Vec<Check>>) -> Vec<Check> {
    scenario().unwrap_or_else(|error| vec![Check::new(name, false, format!("{error:#}"))])
}

/// Prints the table under `title`.
pub fn print(title: &str, checks: &[Check]) {
    let width = checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
    println!("\n{title}");
    for Check { name, ok, seen } in checks {
        let verdict = if *ok { "ok" } else { "FAILED" };
        println!("  {verdict:6}  {name:width$}  {seen}");
    }
}

/// Fails when one of them has, or when there are none.
pub fn settle(checks: &[Check]) -> Result<()> {
    let failed = checks.iter().filter(|c| !c.ok).count();
    println!("\n{} passed, {failed} failed", checks.len() - failed);
    ensure!(!checks.is_empty(), "nothing was checked");
    ensure!(failed == 0, "{failed} of {} checks failed", checks.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_or_an_empty_table_is_an_error() {
        let good = Check::new("a", true, "1");
        let bad = Check::new("b", false, "2");
        assert!(settle(std::slice::from_ref(&good)).is_ok());
        assert!(settle(&[]).is_err());
        let error = settle(&[good, bad]).unwrap_err().to_string();
        assert_eq!(error, "1 of 2 checks failed");
    }
}
