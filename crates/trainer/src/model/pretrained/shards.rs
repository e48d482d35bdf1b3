//! The tensors of a folder, from one file or from several.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use tinsmith_grad::{DType, Device, Tensor};

use crate::files::read_json;
use crate::{Error, Result};

/// All tensors of a folder in float32, until they are taken.
pub(super) struct Shards {
    /// Where the tensors are listed; for messages about what is missing.
    listing: PathBuf,
    tensors: HashMap<String, (PathBuf, Tensor)>,
}

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(INDEX);
        let Some(index) = read_json::<Index>(&path)? else {
            let path = folder.join(WHOLE);
            let tensors = read_file(&path)?;
            return Ok(Self { listing: path, tensors });
        };
        let mut shards = Self { listing: path, tensors: HashMap::new() };
        let files: BTreeSet<&String> = index.weight_map.values().collect();
        for file in files {
            let outside = Path::new(file).components().count() != 1 || file.starts_with("..");
            if outside {
                return Err(shards.fail(format!("`{file}` is not a file of this folder")));
            }
            shards.tensors.extend(read_file(&folder.join(file))?);
        }
        Ok(shards)
    }

    /// The tensor of this name, which must have this shape.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some((path, tensor)) = self.tensors.remove(name) else {
            return Err(self.fail(format!("tensor `{name}` {shape:?} is missing")));
        };
        match tensor.dims() == shape {
            true => Ok(tensor),
            false => Err(Error::Unusable {
                path,
                problem: format!(
                    "tensor `{name}` has shape {:?}; config.json makes it {shape:?}",
                    tensor.dims()
                ),
            }),
        }
    }

    /// Refuses what is left over, but for `ignored`: it would take part in a model that is not this
    /// one.
    pub(super) fn finish(self, ignored: impl Fn(&str) -> bool) -> Result<()> {
        let mut left: Vec<_> =
            self.tensors.into_iter().filter(|(name, _)| !ignored(name)).collect();
        left.sort_by(|a, b| a.0.cmp(&b.0));
        match left.into_iter().next() {
            None => Ok(()),
            Some((name, (path, tensor))) => Err(Error::Unusable {
                path,
                problem: format!(
                    "tensor `{name}` {:?} is no part of the model that config.json describes",
                    tensor.dims()
                ),
            }),
        }
    }

    fn fail(&self, problem: String) -> Error {
        Error::Unusable { path: self.listing.clone(), problem }
    }
}

fn read_file(path: &Path) -> Result<HashMap<String, (PathBuf, Tensor)>> {
    let fail = |problem: String| Error::Unusable { path: path.to_owned(), problem };
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, &e))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| fail(format!("the file is damaged or no safetensors file: {e}")))?;
    file.iter()
        .map(|(name, view)| {
            let dtype = match view.dtype() {
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::BF16 => DType::BF16,
                other => {
                    return Err(fail(format!(
                        "tensor `{name}` is {other:?}; F32, F16 and BF16 are known"
                    )));
                }
            };
            let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?
                .to_dtype(DType::F32)?;
            Ok((name.to_owned(), (path.to_owned(), tensor)))
        })
        .collect()
}
