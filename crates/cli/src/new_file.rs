//! Files that are there whole or not at all.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;

/// Makes the file at `path` of what `fill` writes. If that fails nothing is left behind, and a file
/// that is there already stays as it is.
pub fn write<T>(path: &Path, fill: impl FnOnce(&mut BufWriter<&File>) -> Result<T>) -> Result<T> {
    let cannot = || format!("cannot write {}", path.display());
    ensure!(!path.exists(), "{}: it exists already", cannot());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let unfinished =
        NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).with_context(cannot)?;
    let mut writer = BufWriter::new(unfinished.as_file());
    let filled = fill(&mut writer)?;
    // What is still in the buffer may not fit on the disk.
    writer.flush().and_then(|()| unfinished.as_file().sync_all()).with_context(cannot)?;
    drop(writer);
    unfinished.persist_noclobber(path).map_err(io::Error::from).with_context(cannot)?;
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let cut = write(&path, |file| {
            file.write_all(&[1; 100_000])?;
            anyhow::bail!("the line went dead")
        });
        let error: Result<()> = cut;
        assert_eq!(error.unwrap_err().to_string(), "the line went dead");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        assert_eq!(write(&path, |file| Ok(file.write(b"whole")?)).unwrap(), 5);
        assert_eq!(fs::read(&path).unwrap(), b"whole");

        let again = write(&path, |file| Ok(file.write_all(b"other")?)).unwrap_err().to_string();
        assert!(again.ends_with("a.tar: it exists already"), "{again}");
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        let nowhere = write(&folder.path().join("no/a.tar"), |_| Ok(())).unwrap_err().to_string();
        assert!(nowhere.contains("cannot write") && nowhere.contains("no/a.tar"), "{nowhere}");
    }
}
