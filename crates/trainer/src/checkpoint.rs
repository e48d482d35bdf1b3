//! Checkpoints on disk: one safetensors file each, written beside its place and moved into it.
//!
//! `{state_dir}/{run}/{kind}/{name}.safetensors` holds the adapter under its PEFT names, the optimiser's moments as
//! `{name}.exp_avg` and `{name}.exp_avg_sq`, and what the adapter belongs to in the file's metadata.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::model::{Adapter, LoraConfig, ModelConfig};
use crate::optim::AdamW;
use crate::{Error, Result};

/// What a checkpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// To train on from.
    Training,
    /// To sample from.
    Sampler,
}

impl Kind {
    /// Its part of a path.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Training => "weights",
            Self::Sampler => "sampler_weights",
        }
    }

    /// Its name in listings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Sampler => "sampler",
        }
    }
}

/// A checkpoint's name: `tinker://{run}/{weights|sampler_weights}/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    pub(crate) run: String,
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

impl Reference {
    /// A checkpoint of `run`; an error when `name` is not a plain name.
    pub(crate) fn new(run: &str, kind: Kind, name: &str) -> Result<Self> {
        check_name(name)?;
        Ok(Self {
            run: run.to_owned(),
            kind,
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tinker://{}/{}/{}",
            self.run,
            self.kind.folder(),
            self.name
        )
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(path: &str) -> Result<Self> {
        let parts: Vec<&str> = path
            .strip_prefix("tinker://")
            .unwrap_or_default()
            .split('/')
            .collect();
        let kind = |folder: &str| {
            [Kind::Training, Kind::Sampler]
                .into_iter()
                .find(|k| k.folder() == folder)
        };
        match parts[..] {
            [run, folder, name] if is_plain(&run_folder(run)) && kind(folder).is_some() => {
                Self::new(run, kind(folder).unwrap_or(Kind::Training), name)
            }
            _ => Err(Error::field(
                "path",
                format!(
                    "`{path}` is not a checkpoint; one is written tinker://RUN/weights/NAME or tinker://RUN/sampler_weights/NAME"
                ),
            )),
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    match is_plain(name) {
        true => Ok(()),
        false => Err(Error::field(
            "path",
            format!(
                "`{name}` is not a checkpoint name; use 1 to 255 letters, digits, `-`, `_` and `.`, not beginning with a dot"
            ),
        )),
    }
}

/// The folder of a run: model ids have colons, which some file systems do not take.
fn run_folder(run: &str) -> String {
    run.replace(':', "-")
}

/// Whether `name` can be a file's name and nothing else: no separators, no `..`, not hidden.
fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=255).contains(&name.len()) && !name.starts_with('.') && name.chars().all(allowed)
}

/// What the weights of a checkpoint belong to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Info {
    pub(crate) base_model: String,
    /// That of [`Base`](crate::bases::Base); the adapter fits no other.
    pub(crate) base_fingerprint: u64,
    pub(crate) lora: LoraConfig,
    /// Optimiser steps behind the moments in the file.
    pub(crate) steps: u64,
}

/// A checkpoint in memory.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    pub(crate) info: Info,
    pub(crate) adapter: Adapter,
    pub(crate) optim: AdamW,
}

/// Where checkpoints are kept.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    root: PathBuf,
}

/// The metadata key under which `Info` stands.
const INFO: &str = "tinsmith";

impl Store {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn folder(&self, run: &str, kind: Kind) -> PathBuf {
        self.root.join(run_folder(run)).join(kind.folder())
    }

    fn file(&self, at: &Reference) -> PathBuf {
        self.folder(&at.run, at.kind)
            .join(format!("{}.safetensors", at.name))
    }

    /// Writes a checkpoint, wholly or not at all.
    pub(crate) fn save(
        &self,
        at: &Reference,
        checkpoint: &Checkpoint,
        overwrite: bool,
    ) -> Result<()> {
        let path = self.file(at);
        if path.exists() && !overwrite {
            return Err(Error::Conflict(format!(
                "{at} exists; take another name, or set `overwrite`"
            )));
        }
        write_atomically(&path, &encode(checkpoint, &path)?)
    }

    /// Reads a checkpoint; `config` gives the shape of a base model by name.
    pub(crate) fn load(
        &self,
        at: &Reference,
        config: impl Fn(&str) -> Option<ModelConfig>,
    ) -> Result<Checkpoint> {
        let path = self.file(at);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(missing(at)),
            Err(e) => return Err(Error::io("read", path, &e)),
        };
        decode(&bytes, config).map_err(|problem| Error::Checkpoint { path, problem })
    }

    /// Names, sizes in bytes and times of a run's checkpoints, by name.
    pub(crate) fn list(&self, run: &str) -> Result<Vec<(Reference, fs::Metadata)>> {
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
                let entry = entry.map_err(|e| Error::io("list", &folder, &e))?;
                let file = entry.file_name();
                let name = file.to_str().and_then(|f| f.strip_suffix(".safetensors"));
                if let Some(Ok(at)) = name.map(|name| Reference::new(run, kind, name)) {
                    let metadata = entry
                        .metadata()
                        .map_err(|e| Error::io("read", entry.path(), &e))?;
                    found.push((at, metadata));
                }
            }
        }
        found.sort_by_key(|(at, _)| at.to_string());
        Ok(found)
    }

    /// Removes a checkpoint.
    pub(crate) fn delete(&self, at: &Reference) -> Result<()> {
        let path = self.file(at);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(missing(at)),
            Err(e) => Err(Error::io("delete", path, &e)),
        }
    }
}

fn missing(at: &Reference) -> Error {
    Error::NotFound {
        kind: "checkpoint",
        id: at.to_string(),
        hint: "save_weights and save_weights_for_sampler answer with the path to use".to_owned(),
    }
}

fn encode(checkpoint: &Checkpoint, path: &Path) -> Result<Vec<u8>> {
    let fail = |problem: String| Error::Checkpoint {
        path: path.to_owned(),
        problem,
    };
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (i, (name, tensor)) in checkpoint.adapter.named().enumerate() {
        let shape = tensor.dims().to_vec();
        if let Some([first, second]) = checkpoint.optim.moments.get(i) {
            for (moment, data) in MOMENTS.iter().zip([first, second]) {
                tensors.push((format!("{name}.{moment}"), shape.clone(), bytes(data)));
            }
        }
        tensors.push((name, shape, bytes(&tensor.flatten_all()?.to_vec1::<f32>()?)));
    }
    let views = tensors
        .iter()
        .map(|(name, shape, data)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|e| fail(e.to_string()))?;
    let info = serde_json::to_string(&checkpoint.info).map_err(|e| fail(e.to_string()))?;
    let metadata = HashMap::from([
        ("format".to_owned(), "pt".to_owned()),
        (INFO.to_owned(), info),
    ]);
    safetensors::serialize(views, Some(metadata)).map_err(|e| fail(e.to_string()))
}

/// The optimiser's two moments of a weight, as PyTorch calls them.
const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

fn decode(
    bytes: &[u8],
    config: impl Fn(&str) -> Option<ModelConfig>,
) -> Result<Checkpoint, String> {
    let damaged = |e: &dyn fmt::Display| format!("the file is damaged or no safetensors file: {e}");
    let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(&e))?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(&e))?;
    let info = header
        .metadata()
        .as_ref()
        .and_then(|m| m.get(INFO))
        .ok_or("it was not written by this trainer")?;
    let info: Info = serde_json::from_str(info).map_err(|e| damaged(&e))?;
    let config = config(&info.base_model).ok_or_else(|| {
        format!(
            "its base model `{}` is not on this trainer",
            info.base_model
        )
    })?;

    let read = |name: &str, shape: &[usize]| -> Result<Vec<f32>, String> {
        let view = file
            .tensor(name)
            .map_err(|e| format!("tensor `{name}`: {e}"))?;
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            return Err(format!(
                "tensor `{name}` is {:?} {:?}, not F32 {shape:?}",
                view.dtype(),
                view.shape()
            ));
        }
        Ok(floats(view.data()))
    };
    let mut adapter = Adapter::new(info.lora, &config).map_err(|e| e.to_string())?;
    let mut params = Vec::new();
    let mut optim = AdamW {
        steps: info.steps,
        moments: Vec::new(),
    };
    for (name, tensor) in adapter.named() {
        let shape = tensor.dims();
        let data = read(&name, shape)?;
        params.push(Tensor::from_vec(data, shape, &Device::Cpu).map_err(|e| e.to_string())?);
        if info.steps > 0 {
            let [first, second] = MOMENTS.map(|moment| read(&format!("{name}.{moment}"), shape));
            optim.moments.push([first?, second?]);
        }
    }
    adapter.set_params(params);
    Ok(Checkpoint {
        info,
        adapter,
        optim,
    })
}

fn bytes(data: &[f32]) -> Vec<u8> {
    data.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|&word| f32::from_le_bytes(word)).collect()
}

/// A reader sees the old file or the new one, also after a crash: the new one is complete on disk before it takes the name.
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
            info: Info {
                base_model: "tiny-qwen3".into(),
                base_fingerprint: 0,
                lora,
                steps: 3,
            },
            optim: AdamW {
                steps: 3,
                moments: moments.collect(),
            },
            adapter,
        }
    }

    fn values(adapter: &Adapter) -> Vec<Vec<f32>> {
        adapter
            .params()
            .iter()
            .map(|p| p.flatten_all().unwrap().to_vec1().unwrap())
            .collect()
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        let at = Reference::new("s:train:0", Kind::Training, "first").unwrap();
        let saved = example();
        store.save(&at, &saved, false).unwrap();
        let loaded = store.load(&at, config).unwrap();
        assert_eq!(loaded.info, saved.info);
        assert_eq!(loaded.optim, saved.optim);
        assert_eq!(values(&loaded.adapter), values(&saved.adapter));
        assert_eq!(store.list("s:train:0").unwrap()[0].0, at);

        assert!(matches!(
            store.save(&at, &saved, false),
            Err(Error::Conflict(_))
        ));
        store.save(&at, &saved, true).unwrap();
        store.delete(&at).unwrap();
        assert!(matches!(
            store.load(&at, config),
            Err(Error::NotFound { .. })
        ));
        let left = fs::read_dir(folder.path().join("s-train-0/weights"))
            .unwrap()
            .count();
        assert_eq!(left, 0, "nothing but checkpoints stays behind");
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
        assert!(
            decode(&bytes, |_| None)
                .unwrap_err()
                .contains("not on this trainer")
        );
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            ".hidden",
            "a b",
            "é",
            &"x".repeat(256),
        ] {
            assert!(
                Reference::new("run", Kind::Training, name).is_err(),
                "{name:?}"
            );
        }
        for path in [
            "tinker://../weights/x",
            "tinker://run/weights/..",
            "tinker://run/other/x",
            "/etc/passwd",
            "tinker://run/x",
        ] {
            assert!(path.parse::<Reference>().is_err(), "{path:?}");
        }
        let path = "tinker://s:train:0/sampler_weights/v1.2";
        assert_eq!(path.parse::<Reference>().unwrap().to_string(), path);
    }
}
