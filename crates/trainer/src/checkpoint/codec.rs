//! A checkpoint as bytes: a safetensors file.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::model::{Adapter, LoraConfig, ModelConfig};
use crate::optim::AdamW;
use crate::{Error, Result};

/// What the weights of a checkpoint belong to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Info {
    pub(crate) base_model: String,
    /// That of [`Base`](crate::bases::Base); the adapter fits no other.
    pub(crate) base_fingerprint: u64,
    pub(crate) lora: LoraConfig,
    /// Optimizer steps behind the moments in the file.
    pub(crate) steps: u64,
}

/// A checkpoint in memory.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    pub(crate) info: Info,
    pub(crate) adapter: Adapter,
    pub(crate) optim: AdamW,
}

/// The metadata key under which `Info` stands.
const INFO: &str = "tinsmith";

pub(super) fn encode(checkpoint: &Checkpoint, path: &Path) -> Result<Vec<u8>> {
    let fail = |problem: String| Error::Checkpoint { path: path.to_owned(), problem };
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
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned()), (INFO.to_owned(), info)]);
    safetensors::serialize(views, Some(metadata)).map_err(|e| fail(e.to_string()))
}

/// The optimizer's two moments of a weight, as PyTorch calls them.
const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

pub(super) fn decode(
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
    let config = config(&info.base_model)
        .ok_or_else(|| format!("its base model `{}` is not on this trainer", info.base_model))?;

    let read = |name: &str, shape: &[usize]| -> Result<Vec<f32>, String> {
        let view = file.tensor(name).map_err(|e| format!("tensor `{name}`: {e}"))?;
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
    let mut optim = AdamW { steps: info.steps, moments: Vec::new() };
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
    Ok(Checkpoint { info, adapter, optim })
}

fn bytes(data: &[f32]) -> Vec<u8> {
    data.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|&word| f32::from_le_bytes(word)).collect()
}
