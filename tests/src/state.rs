//! What a trainer has saved, to be compared bit for bit.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use safetensors::SafeTensors;

/// A checkpoint: weights, the optimizer's moments, and what they belong to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Saved {
    /// The bytes of each tensor.
    pub tensors: BTreeMap<String, Vec<u8>>,
    /// What the file says of itself. It is compared by key, as a file has its keys in any order.
    pub metadata: BTreeMap<String, String>,
}

/// Reads the checkpoint at `path`, a `tinker://` address, of the trainer with this state folder.
///
/// # Errors
/// When it is not there or no checkpoint.
///
/// ```
/// # use tinsmith_tests::{saved, train};
/// # use tinsmith_trainer::Trainer;
/// let folder = tempfile::tempdir()?;
/// let trainer = Trainer::builder().state_dir(folder.path()).spawn()?;
/// let path = train(&trainer.url())?.save_state("now")?.result()?.path;
/// assert!(saved(folder.path(), &path)?.metadata["tinsmith"].contains("\"steps\":0"));
/// # anyhow::Ok(())
/// ```
pub fn saved(state_dir: &Path, path: &str) -> Result<Saved> {
    read(&file_of(state_dir, path)?)
}

/// Reads a checkpoint's file.
pub(crate) fn read(file: &Path) -> Result<Saved> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    parse(&bytes).with_context(|| format!("in {}", file.display()))
}

impl Saved {
    /// Equal digests mean equal checkpoints, for all practical purposes.
    pub fn digest(&self) -> u64 {
        let mut digest = DefaultHasher::new();
        self.hash(&mut digest);
        digest.finish()
    }
}

fn file_of(state_dir: &Path, path: &str) -> Result<PathBuf> {
    let parts: Vec<&str> = path.strip_prefix("tinker://").unwrap_or_default().split('/').collect();
    let [run, kind, name] = parts[..] else {
        anyhow::bail!("`{path}` is no address of a checkpoint");
    };
    Ok(state_dir.join(run.replace(':', "-")).join(kind).join(format!("{name}.safetensors")))
}

fn parse(bytes: &[u8]) -> Result<Saved> {
    let file = SafeTensors::deserialize(bytes)?;
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let tensors = file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec()));
    let metadata = header.metadata().clone().unwrap_or_default();
    Ok(Saved { tensors: tensors.collect(), metadata: metadata.into_iter().collect() })
}
