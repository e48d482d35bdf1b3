//! Numbered files in a folder, one a step.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{Error, Result};

/// Where the files of a run's steps go, if they go anywhere.
#[derive(Debug, Default)]
pub(crate) struct StepFiles(Mutex<Option<Folder>>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    next: u64,
}

impl StepFiles {
    /// From now on into this folder, which is made if it is missing. Counting goes on after the
    /// files that are in it.
    pub fn start(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
        let next = step_files(folder)?.last().map_or(1, |(number, _)| number + 1);
        let path = folder.to_owned();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Folder { path, next });
        Ok(())
    }

    /// Writes the next file, whole or not at all. Without a folder `contents` is not asked for.
    pub fn write(&self, contents: impl FnOnce() -> io::Result<Vec<u8>>) -> Result<()> {
        let mut folder = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Folder { path, next }) = &mut *folder else {
            return Ok(());
        };
        let file = path.join(format!("step-{next:06}.json"));
        let unfinished = file.with_extension("unfinished");
        let write = || -> io::Result<()> {
            fs::write(&unfinished, contents()?)?;
            fs::rename(&unfinished, &file)
        };
        write().map_err(|source| failed(&file, source))?;
        *next += 1;
        Ok(())
    }
}

/// The files of a folder that have a number, by that number.
pub(crate) fn step_files(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = fs::read_dir(folder).map_err(|source| failed(folder, source))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| failed(folder, source))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix("step-").and_then(|rest| rest.strip_suffix(".json"));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

pub(crate) fn failed(path: &Path, source: io::Error) -> Error {
    let path = path.to_owned();
    Error::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_goes_on_after_the_files_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("step-000041.json"), "").unwrap();
        fs::write(folder.path().join("step-000099.unfinished"), "").unwrap();
        let files = StepFiles::default();
        files.write(|| panic!("there is no folder yet")).unwrap();
        files.start(folder.path()).unwrap();
        files.write(|| Ok(b"{}".to_vec())).unwrap();
        let numbers: Vec<u64> = step_files(folder.path()).unwrap().iter().map(|it| it.0).collect();
        assert_eq!(numbers, [41, 42]);
    }
}
