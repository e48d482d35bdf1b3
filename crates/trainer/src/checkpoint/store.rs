//! Checkpoints on disk: one safetensors file each, written beside its place and moved into it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::codec::{Checkpoint, decode, encode};
use super::notes::Notes;
use super::{Kind, Reference, is_plain, run_folder};
use crate::files::read_json;
use crate::model::ModelConfig;
use crate::{Error, Result};

/// Where checkpoints are kept.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    root: PathBuf,
}

/// A checkpoint in a listing.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    pub(crate) at: Reference,
    pub(crate) bytes: u64,
    pub(crate) time: SystemTime,
    pub(crate) notes: Notes,
}

impl Store {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn folder(&self, run: &str, kind: Kind) -> PathBuf {
        self.root.join(run_folder(run)).join(kind.folder())
    }

    /// Where a checkpoint lies, or would lie.
    pub(crate) fn file(&self, at: &Reference) -> PathBuf {
        self.folder(&at.run, at.kind).join(format!("{}.safetensors", at.name))
    }

    /// Writes a checkpoint, wholly or not at all.
    pub(crate) fn save(
        &self,
        at: &Reference,
        checkpoint: &Checkpoint,
        notes: &Notes,
        overwrite: bool,
    ) -> Result<()> {
        let path = self.file(at);
        if !overwrite && self.find(at)?.is_some() {
            return Err(Error::Conflict(format!(
                "{at} exists; take another name, or set `overwrite`"
            )));
        }
        let bytes = encode(checkpoint, &path)?;
        // The notes first: a checkpoint without its expiry would stay for good.
        self.annotate(at, notes)?;
        write_atomically(&path, &bytes)
    }

    /// Reads a checkpoint; `config` gives the shape of a base model by name.
    pub(crate) fn load(
        &self,
        at: &Reference,
        config: impl Fn(&str) -> Option<ModelConfig>,
    ) -> Result<Checkpoint> {
        self.find(at)?.ok_or_else(|| missing(at))?;
        let path = self.file(at);
        let bytes = fs::read(&path).map_err(|e| Error::io("read", &path, &e))?;
        decode(&bytes, config).map_err(|problem| Error::Checkpoint { path, problem })
    }

    /// The checkpoint at this place, if there is one that has not expired. One that has is deleted.
    pub(crate) fn find(&self, at: &Reference) -> Result<Option<Saved>> {
        let path = self.file(at);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read", path, &e)),
        };
        let notes: Notes = read_json(&notes_of(&path))?.unwrap_or_default();
        if notes.have_expired() {
            self.remove(at)?;
            return Ok(None);
        }
        Ok(Some(Saved {
            at: at.clone(),
            bytes: metadata.len(),
            time: metadata.modified().map_err(|e| Error::io("read", path, &e))?,
            notes,
        }))
    }

    /// A run's checkpoints, by path.
    pub(crate) fn list(&self, run: &str) -> Result<Vec<Saved>> {
        let mut found = Vec::new();
        if !is_plain(&run_folder(run)) {
            return Ok(found);
        }
        for kind in [Kind::Training, Kind::Sampler] {
            let folder = self.folder(run, kind);
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::io("list", folder, &e)),
            };
            for entry in entries {
                let file = entry.map_err(|e| Error::io("list", &folder, &e))?.file_name();
                let name = file.to_str().and_then(|f| f.strip_suffix(".safetensors"));
                if let Some(Ok(at)) = name.map(|name| Reference::new(run, kind, name)) {
                    found.extend(self.find(&at)?);
                }
            }
        }
        found.sort_by_key(|saved| saved.at.to_string());
        Ok(found)
    }

    /// Replaces what is noted of a checkpoint.
    pub(crate) fn annotate(&self, at: &Reference, notes: &Notes) -> Result<()> {
        let path = notes_of(&self.file(at));
        let bytes = serde_json::to_vec(notes)
            .map_err(|e| Error::Internal(format!("cannot write the notes of {at}: {e}")))?;
        write_atomically(&path, &bytes)
    }

    /// Removes a checkpoint.
    pub(crate) fn delete(&self, at: &Reference) -> Result<()> {
        self.find(at)?.ok_or_else(|| missing(at))?;
        self.remove(at)
    }

    fn remove(&self, at: &Reference) -> Result<()> {
        let path = self.file(at);
        for path in [notes_of(&path), path] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(Error::io("delete", path, &e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// `{name}.json` of `{name}.safetensors`.
fn notes_of(file: &Path) -> PathBuf {
    file.with_extension("json")
}

pub(crate) fn missing(at: &Reference) -> Error {
    Error::NotFound {
        kind: "checkpoint",
        id: at.to_string(),
        hint: "save_weights and save_weights_for_sampler answer with the path to use".to_owned(),
    }
}

/// A reader sees the old file or the new one, also after a crash: the new one is complete on disk
/// before it takes the name.
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, &e))?;
    let unique = (std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
    let scratch = path.with_extension(format!("{}-{}.partial", unique.0, unique.1));
    let write = || {
        let mut file = File::create_new(&scratch)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&scratch, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&scratch);
        Error::io("write", path, &e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Info;
    use crate::model::{Adapter, LoraConfig};
    use crate::optim::AdamW;

    fn config(name: &str) -> Option<ModelConfig> {
        ModelConfig::preset(name)
    }

    fn example() -> Checkpoint {
        let lora = LoraConfig {
            rank: 2,
            seed: 5,
            train_attn: true,
            train_mlp: false,
            train_unembed: true,
        };
        let adapter = Adapter::new(lora, &config("tiny-qwen3").unwrap()).unwrap();
        let moments = adapter
            .params()
            .iter()
            .map(|p| [vec![0.5; p.elem_count()], vec![0.25; p.elem_count()]]);
        Checkpoint {
            info: Info { base_model: "tiny-qwen3".into(), base_fingerprint: 0, lora, steps: 3 },
            optim: AdamW { steps: 3, moments: moments.collect() },
            adapter,
        }
    }

    fn values(adapter: &Adapter) -> Vec<Vec<f32>> {
        adapter.params().iter().map(|p| p.flatten_all().unwrap().to_vec1().unwrap()).collect()
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        let at = Reference::new("s:train:0", Kind::Training, "first").unwrap();
        let saved = example();
        store.save(&at, &saved, &Notes::default(), false).unwrap();
        let loaded = store.load(&at, config).unwrap();
        assert_eq!(loaded.info, saved.info);
        assert_eq!(loaded.optim, saved.optim);
        assert_eq!(values(&loaded.adapter), values(&saved.adapter));
        assert_eq!(store.list("s:train:0").unwrap()[0].at, at);

        assert!(matches!(
            store.save(&at, &saved, &Notes::default(), false),
            Err(Error::Conflict(_))
        ));
        store.save(&at, &saved, &Notes::default(), true).unwrap();
        store.delete(&at).unwrap();
        assert!(matches!(store.load(&at, config), Err(Error::NotFound { .. })));
        let left = fs::read_dir(folder.path().join("s-train-0/weights")).unwrap().count();
        assert_eq!(left, 0, "nothing but checkpoints stays behind");
    }

    #[test]
    fn an_expired_checkpoint_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        let at = Reference::new("run", Kind::Sampler, "v1.2").unwrap();
        let past: Notes = serde_json::from_str(r#"{"expires_at": 1000000000}"#).unwrap();
        store.save(&at, &example(), &past, false).unwrap();
        assert!(store.list("run").unwrap().is_empty());
        assert!(!store.file(&at).exists());
        store.save(&at, &example(), &Notes::default(), false).unwrap();
        assert_eq!(store.list("run").unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_file_is_an_error_at_every_length() {
        let bytes = encode(&example(), Path::new("test")).unwrap();
        for len in [0, 1, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
            let problem = decode(&bytes[..len], config).unwrap_err();
            assert!(problem.contains("damaged"), "{len}: {problem}");
        }
        let mut flipped = bytes.clone();
        flipped[10] ^= 0xff;
        assert!(decode(&flipped, config).is_err());
        assert!(decode(&bytes, |_| None).unwrap_err().contains("not on this trainer"));
    }
}
