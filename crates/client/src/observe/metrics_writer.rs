use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{Error, Result};

/// Appends one line of JSON a step to a file: `{"step": 7, "time": .., ...}`, `time` in seconds
/// since 1970.
///
/// A line is written in one go before [`write`](Self::write) returns, so a crash loses at most the
/// line being written. What a crash left unfinished is cut off when the file is opened again, and
/// writing goes on after the last whole line.
///
/// ```
/// use tinsmith_client::{Metrics, MetricsWriter};
///
/// let file = std::env::temp_dir().join(format!("tinsmith-doc-{}.jsonl", std::process::id()));
/// let mut log = MetricsWriter::append(&file)?;
/// let metrics: Metrics = [("loss:sum", 1.5)].into_iter().collect();
/// log.write(1, &metrics)?; // or a StepReport, or any struct or map that serde can serialize
///
/// let line: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
/// assert_eq!((line["step"].as_u64(), line["loss:sum"].as_f64()), (Some(1), Some(1.5)));
/// # std::fs::remove_file(&file)?;
/// # anyhow::Ok(())
/// ```
#[derive(Debug)]
pub struct MetricsWriter {
    file: File,
    path: PathBuf,
}

#[derive(Serialize)]
struct Line<'a, T> {
    step: u64,
    time: f64,
    #[serde(flatten)]
    values: &'a T,
}

impl MetricsWriter {
    /// Opens `path`, or makes it. The folder must exist.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn append(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let open = || -> std::io::Result<File> {
            let mut options = OpenOptions::new();
            let mut file =
                options.read(true).write(true).create(true).truncate(false).open(&path)?;
            let end = end_of_last_line(&mut file)?;
            file.set_len(end)?;
            file.seek(SeekFrom::Start(end))?;
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(MetricsWriter { file, path }),
            Err(source) => Err(Error::File { path, source }),
        }
    }

    /// Appends the fields of `values` as the line of `step`.
    ///
    /// # Errors
    /// [`Error::File`]; also when `values` is no struct or map.
    pub fn write(&mut self, step: u64, values: &impl Serialize) -> Result<()> {
        let time =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let mut line = serde_json::to_vec(&Line { step, time, values })
            .map_err(|error| self.failed(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: std::io::Error) -> Error {
        let path = self.path.clone();
        Error::File { path, source }
    }
}

/// Searches backwards, since files of metrics grow long.
fn end_of_last_line(file: &mut File) -> std::io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.take(end - start).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;

    fn losses(path: &Path) -> Vec<(u64, f64)> {
        let text = fs::read_to_string(path).unwrap();
        let line = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            (value["step"].as_u64().unwrap(), value["loss"].as_f64().unwrap())
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn a_line_that_a_crash_cut_short_is_dropped_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let values = |loss: f64| BTreeMap::from([("loss", loss)]);
        let mut log = MetricsWriter::append(&path).unwrap();
        log.write(1, &values(0.5)).unwrap();
        log.write(2, &values(0.25)).unwrap();
        drop(log);
        let whole = fs::read(&path).unwrap();
        let first = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            MetricsWriter::append(&path).unwrap().write(3, &values(0.125)).unwrap();
            let mut expected = vec![(1, 0.5), (2, 0.25)];
            expected.truncate(usize::from(cut >= first) + usize::from(cut == whole.len()));
            expected.push((3, 0.125));
            assert_eq!(losses(&path), expected, "cut at {cut}");
        }
    }

    #[test]
    fn long_unfinished_lines_are_cut_off_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        fs::write(&path, format!("{{\"step\":1,\"loss\":2}}\n{}", "x".repeat(200_000))).unwrap();
        MetricsWriter::append(&path).unwrap().write(2, &BTreeMap::from([("loss", 1.0)])).unwrap();
        assert_eq!(losses(&path), [(1, 2.0), (2, 1.0)]);
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_named() {
        let error = MetricsWriter::append("/nowhere/at/all.jsonl").unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/at/all.jsonl: "), "{error}");
    }
}
