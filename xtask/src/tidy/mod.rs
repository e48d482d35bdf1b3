//! `cargo xtask tidy`: what no compiler checks of the repository. Each check is one file; what each
//! allows, with the reasons, stands in `known.rs`.

mod arrows;
mod foreign;
mod known;
mod length;
mod scope;
mod source;
mod width;
mod wrap;

use std::fmt;
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::repository;
use scope::Workspace;

/// What a check found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Complaint {
    path: String,
    line: usize,
    text: String,
}

impl Complaint {
    fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, text: text.into() }
    }

    /// An entry of `known.rs` that is so no longer.
    fn stale(entry: &str, text: &str) -> Self {
        let line = include_str!("known.rs").lines().position(|line| line.contains(entry));
        Self::new("xtask/src/tidy/known.rs", line.unwrap_or(0) + 1, text)
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// Prints what is not as it should be; with `--fix`, wraps comments first.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let fix = match arguments {
        [] => false,
        ["--fix"] => true,
        _ => bail!("tidy takes no argument but --fix; got {arguments:?}"),
    };
    let start = Instant::now();
    let mut sources = source::all(repository())?;
    if fix {
        for source in &sources {
            if let Some(text) = width::fixed(source, known::WIDE_COMMENTS) {
                let path = repository().join(&source.path);
                fs::write(path, text).with_context(|| format!("writing {}", source.path))?;
                println!("wrapped the comments of {}", source.path);
            }
        }
        sources = source::all(repository())?;
    }
    let workspace = Workspace::new(&sources);
    let mut complaints = [
        arrows::check(&workspace, &known::ARROWS),
        foreign::check(&workspace, known::FOREIGN_TYPES),
        length::check(&workspace, known::LONG_FILES),
        width::check(&sources, known::WIDE_COMMENTS),
    ]
    .concat();
    complaints.sort();
    complaints.iter().for_each(|complaint| println!("{complaint}"));
    ensure!(complaints.is_empty(), "tidy: {} complaints", complaints.len());
    let seconds = start.elapsed().as_secs_f64();
    println!("tidy: {} files ok in {seconds:.1} s", sources.len());
    Ok(())
}
