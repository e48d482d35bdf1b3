//! The neutral form in which the vectors give data.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use tinsmith_wire::{
    Chunk, ConfigValue, Csr, Data, Datum, LossFnConfig, Pass, PassRequest, TensorData,
};

use crate::vectors::number::Number;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    dtype: String,
    shape: Option<Vec<usize>>,
    data: Vec<Element>,
    crow: Option<Vec<i64>>,
    col: Option<Vec<i64>>,
}

/// Integers beyond 2^53 must not pass through f64.
#[derive(Deserialize)]
#[serde(untagged)]
enum Element {
    Int(i64),
    Float(Number),
}

impl Tensor {
    pub fn build(&self) -> Result<TensorData> {
        let data: Data = match self.dtype.as_str() {
            "float32" => self.floats().into_iter().map(|x| x as f32).collect::<Vec<_>>().into(),
            "int64" => self.integers()?.into(),
            other => bail!("unknown dtype `{other}`"),
        };
        let sparse = match (&self.crow, &self.col) {
            (Some(crow), Some(col)) => {
                Some(Csr { crow: crow.as_slice().into(), col: col.as_slice().into() })
            }
            (None, None) => None,
            _ => bail!("one of `crow` and `col` is missing"),
        };
        let shape = self.shape.as_ref().map(|shape| shape.as_slice().into());
        Ok(TensorData::from_parts(data, shape, sparse)?)
    }

    fn floats(&self) -> Vec<f64> {
        let value = |element: &Element| match element {
            Element::Int(i) => *i as f64,
            Element::Float(x) => x.0,
        };
        self.data.iter().map(value).collect()
    }

    fn integers(&self) -> Result<Vec<i64>> {
        let value = |element: &Element| match element {
            Element::Int(i) => Ok(*i),
            Element::Float(x) => bail!("{} in an int64 tensor", x.0),
        };
        self.data.iter().map(value).collect()
    }
}

pub type Tensors = BTreeMap<String, Tensor>;

pub fn tensors(spec: &Tensors) -> Result<BTreeMap<String, TensorData>> {
    let build = |(name, tensor): (&String, &Tensor)| {
        let tensor = tensor.build().with_context(|| format!("tensor `{name}`"))?;
        Ok((name.clone(), tensor))
    };
    spec.iter().map(build).collect()
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum ChunkSpec {
    EncodedText { tokens: Vec<u32> },
    Image { format: String, data_b64: String, expected_tokens: Option<u32> },
}

impl ChunkSpec {
    fn build(&self) -> Result<Chunk> {
        Ok(match self {
            ChunkSpec::EncodedText { tokens } => Chunk::from_tokens(tokens.as_slice()),
            ChunkSpec::Image { format, data_b64, expected_tokens } => Chunk::Image {
                data: STANDARD.decode(data_b64)?.into(),
                format: format.clone(),
                expected_tokens: *expected_tokens,
                override_dimensions: None,
            },
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    model_id: String,
    seq_id: u64,
    forward_only: bool,
    loss_fn: String,
    loss_fn_config: Option<BTreeMap<String, Setting>>,
    data: Vec<DatumSpec>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Setting {
    Number(f64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DatumSpec {
    chunks: Vec<ChunkSpec>,
    loss_fn_inputs: Tensors,
}

impl Request {
    pub fn build(&self) -> Result<PassRequest<'static>> {
        let datum = |spec: &DatumSpec| {
            Ok(Datum {
                model_input: spec.chunks.iter().map(ChunkSpec::build).collect::<Result<_>>()?,
                loss_fn_inputs: tensors(&spec.loss_fn_inputs)?,
                ..Datum::default()
            })
        };
        Ok(PassRequest {
            pass: match self.forward_only {
                true => Pass::Forward,
                false => Pass::ForwardBackward,
            },
            data: self.data.iter().map(datum).collect::<Result<_>>()?,
            loss_fn: self.loss_fn.clone().into(),
            loss_fn_config: self.loss_fn_config.as_ref().map(|config| {
                let value = |setting: &Setting| match setting {
                    Setting::Number(x) => ConfigValue::Number(*x),
                    Setting::Text(text) => ConfigValue::Text(text.clone()),
                };
                let setting = |(name, setting): (&String, _)| (name.clone(), value(setting));
                config.iter().map(setting).collect::<LossFnConfig>()
            }),
            model_id: self.model_id.clone(),
            seq_id: self.seq_id,
        })
    }
}
