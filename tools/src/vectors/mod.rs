//! `cargo xtask vectors PATH...`: runs golden vectors, which are values and gradients that PyTorch
//! computed, and what the Python SDK writes, reads and does.
//!
//! A file is told by its first key: `group` holds tensor ops, `loss` losses, and `loss: helpers`
//! pure functions. There a case passes when every executor gives the expected values in f64 and in
//! f32. What else there is belongs to the wire and is told by the fields of its cases. A `.json`
//! file of another kind counts as one failure, so that nothing is skipped in silence.

mod compare;
mod execute;
mod file;
mod formulas;
mod losses;
mod number;
mod ops;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tinsmith_grad::{DType, Executor, with_executor};

use execute::{Problem, evaluate};
use file::{Expectations, VectorFile};

const DTYPES: [DType; 2] = [DType::F64, DType::F32];
const EXECUTORS: [Executor; 2] = [Executor::Reference, Executor::Fused { threads: 1 }];

/// Runs every file in `arguments`, and in the folders among them.
pub fn run(arguments: &[&str]) -> Result<()> {
    ensure!(!arguments.is_empty(), "name at least one folder or file of vectors");
    run_paths(&arguments.iter().map(PathBuf::from).collect::<Vec<_>>())
}

/// As [`run`]. Prints each failure, then the line `N passed, N failed`.
pub fn run_paths(paths: &[PathBuf]) -> Result<()> {
    let mut tally = Tally::default();
    for path in paths {
        for file in json_files(path)? {
            run_file(&file, &mut tally);
        }
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    ensure!(tally.failed == 0, "{} of {} cases failed", tally.failed, tally.passed + tally.failed);
    ensure!(tally.passed > 0, "no case was found in {paths:?}");
    Ok(())
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    fn record(&mut self, file: &Path, case: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => {
                self.failed += 1;
                println!("FAILED {} {case}: {error:#}", file.display());
            }
        }
    }
}

fn json_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        ensure!(path.exists(), "{} does not exist", path.display());
        return Ok(vec![path.to_path_buf()]);
    }
    let mut entries = fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>())
        .with_context(|| format!("listing {}", path.display()))?;
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            files.extend(json_files(&entry)?);
        } else if entry.extension().is_some_and(|extension| extension == "json") {
            files.push(entry);
        }
    }
    Ok(files)
}

fn run_file(path: &Path, tally: &mut Tally) {
    match fs::read_to_string(path) {
        Ok(text) => run_text(&text, path, tally),
        Err(error) => tally.record(path, "(whole file)", Err(error.into())),
    }
}

fn run_text(text: &str, path: &Path, tally: &mut Tally) {
    match VectorFile::parse(text) {
        Ok(VectorFile::Ops(cases)) => {
            for case in cases {
                let outcome = check(&case.expected, |dtype| ops::problem(&case, dtype));
                tally.record(path, &case.id, outcome);
            }
        }
        Ok(VectorFile::Losses { loss, cases }) => {
            for case in cases {
                let outcome = check(&case.expected, |dtype| {
                    losses::evaluate(&loss, &case, dtype).map(Problem::from)
                });
                tally.record(path, &case.id, outcome);
            }
        }
        Ok(VectorFile::Wire(cases)) => {
            let folder = path.parent().unwrap_or(Path::new("."));
            for case in cases {
                tally.record(path, &case.id, case.run(folder));
            }
        }
        Ok(VectorFile::Helpers(cases)) => {
            for case in cases {
                let id = case.get("id").and_then(|id| id.as_str()).unwrap_or("(no id)");
                tally.record(path, id, losses::helper(&case));
            }
        }
        Err(error) => tally.record(path, "(whole file)", Err(error)),
    }
}

impl From<losses::Outcome> for Problem {
    fn from(outcome: losses::Outcome) -> Problem {
        Problem { out: outcome.loss, seed: None, leaves: outcome.leaves, metrics: outcome.metrics }
    }
}

/// Builds the case in each dtype, evaluates it on each executor, and compares.
fn check(expected: &Expectations, build: impl Fn(DType) -> Result<Problem>) -> Result<()> {
    for dtype in DTYPES {
        for executor in EXECUTORS {
            let answer = with_executor(executor, || evaluate(&build(dtype)?));
            let outcome = answer.and_then(|answer| compare::answer(&answer, expected, dtype));
            outcome.with_context(|| format!("[{}, {executor:?}]", dtype.as_str()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_in_the_repository_pass() {
        let golden = crate::repository().join("tests/vectors");
        run_paths(&["ops", "losses", "wire"].map(|folder| golden.join(folder))).unwrap();
    }

    fn tally(text: &str) -> (usize, usize) {
        let mut tally = Tally::default();
        run_text(text, Path::new("test.json"), &mut tally);
        (tally.passed, tally.failed)
    }

    #[test]
    fn what_is_not_understood_is_a_failure() {
        assert_eq!(tally("17"), (0, 1));
        assert_eq!(tally(r#"[{"name": "a", "surprise": 1}]"#), (0, 1));
        assert_eq!(tally(r#"{"about": "another format", "cases": []}"#), (0, 1));
        assert_eq!(tally(r#"{"group": "unary", "cases": [{"id": "no op"}]}"#), (0, 1));
    }

    #[test]
    fn each_case_counts_alone() {
        let case = |op: &str, out: f64| {
            let answer =
                format!(r#"{{"out": {{"shape": [], "data": [{out}]}}, "grads": [[-0.5]]}}"#);
            format!(
                r#"{{"id": "a", "op": "{op}", "args": [{{"shape": [], "data": [2]}}], "differentiable": [0],
                    "grad_out": {{"shape": [], "data": [0.5]}}, "f64": {answer}, "f32": {answer}}}"#
            )
        };
        let cases = [case("neg", -2.0), case("neg", -2.1), case("nonsense", -2.0)].join(",");
        assert_eq!(tally(&format!(r#"{{"group": "unary", "cases": [{cases}]}}"#)), (1, 2));
    }

    #[test]
    fn a_path_that_is_not_there_is_an_error() {
        assert!(run_paths(&[PathBuf::from("no such folder")]).is_err());
    }
}
