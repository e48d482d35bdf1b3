//! The files' format.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tinsmith_grad::{DType, Device, Ragged, Var};

use super::number::Number;
use super::wire;

/// A parsed file.
pub enum VectorFile {
    Wire(Vec<wire::Case>),
    Ops(Vec<OpCase>),
    Losses { loss: String, cases: Vec<Case> },
    Helpers(Vec<Value>),
}

impl VectorFile {
    pub fn parse(text: &str) -> Result<VectorFile> {
        let mut file = match serde_json::from_str(text).context("not JSON")? {
            Value::Object(file) => file,
            Value::Array(cases) => return wire::of_array(cases).map(VectorFile::Wire),
            _ => bail!("neither an object nor a list of cases"),
        };
        if let Some(cases) = wire::of_object(&file) {
            return cases.map(VectorFile::Wire);
        }
        let cases = file.remove("cases").unwrap_or_default();
        match (file.get("group"), file.get("loss").and_then(Value::as_str)) {
            (Some(_), None) => Ok(VectorFile::Ops(serde_json::from_value(cases)?)),
            (None, Some("helpers")) => Ok(VectorFile::Helpers(serde_json::from_value(cases)?)),
            (None, Some(loss)) => {
                Ok(VectorFile::Losses { loss: loss.into(), cases: serde_json::from_value(cases)? })
            }
            _ => bail!(
                "unknown kind of file: expected `group` (tensor ops), `loss`, or a case of the wire"
            ),
        }
    }
}

/// One tensor op, its arguments, and the cotangent that its gradients are taken with.
#[derive(Deserialize)]
pub struct OpCase {
    pub id: String,
    pub op: String,
    #[serde(default)]
    pub attrs: Map<String, Value>,
    pub args: Vec<Array>,
    /// The arguments that get gradients.
    pub differentiable: Vec<usize>,
    pub grad_out: Array,
    #[serde(flatten)]
    pub expected: Expectations,
}

/// One loss over ragged logprobs, with its constants.
#[derive(Deserialize)]
pub struct Case {
    pub id: String,
    #[serde(default)]
    pub params: Map<String, Value>,
    pub logprobs: Vec<Array>,
    #[serde(default)]
    inputs: BTreeMap<String, Input>,
    #[serde(flatten)]
    pub expected: Expectations,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    PerSequence(Vec<Array>),
    Whole(Array),
}

impl Case {
    /// The differentiable tensors, one per sequence. Call it once: each call makes new leaves.
    pub fn leaves(&self, dtype: DType) -> Vec<Var> {
        self.logprobs.iter().map(|array| array.var(dtype)).collect()
    }

    /// Whether the input `name` is given.
    pub fn has(&self, name: &str) -> bool {
        self.inputs.contains_key(name)
    }

    /// The inputs that are given.
    pub fn input_names(&self) -> impl Iterator<Item = &String> {
        self.inputs.keys()
    }

    /// The input `name`, one tensor per sequence.
    pub fn ragged(&self, name: &str, dtype: DType) -> Result<Ragged> {
        match self.inputs.get(name) {
            Some(Input::PerSequence(arrays)) => {
                let sequences: Vec<Var> = arrays.iter().map(|array| array.var(dtype)).collect();
                Ok(Ragged::from_seqs(&sequences))
            }
            Some(Input::Whole(_)) => bail!("input `{name}` is one tensor, not one per sequence"),
            None => bail!("no input `{name}`"),
        }
    }

    /// The input `name`, one number per sequence: `[n]`.
    pub fn per_seq(&self, name: &str, dtype: DType) -> Result<Var> {
        match self.inputs.get(name) {
            Some(Input::PerSequence(arrays)) => {
                let numbers: Vec<Var> = arrays.iter().map(|array| array.var(dtype)).collect();
                Ok(Var::stack(&numbers, 0))
            }
            Some(Input::Whole(_)) => bail!("input `{name}` is one tensor, not one per sequence"),
            None => bail!("no input `{name}`"),
        }
    }

    /// The input `name`, one tensor for the whole batch.
    pub fn tensor(&self, name: &str, dtype: DType) -> Result<Var> {
        match self.inputs.get(name) {
            Some(Input::Whole(array)) => Ok(array.var(dtype)),
            Some(Input::PerSequence(_)) => {
                bail!("input `{name}` is one tensor per sequence, not one")
            }
            None => bail!("no input `{name}`"),
        }
    }
}

/// What a case may give: PyTorch's answer, and where there are any, the other right ones.
#[derive(Deserialize)]
pub struct Expectations {
    #[serde(flatten)]
    torch: Precisions,
    /// The gradients of older PyTorch versions at the bounds of a clamp.
    alt: Option<Precisions>,
    /// The well-posed answer where PyTorch gives NaN or infinity.
    safe: Option<Precisions>,
}

impl Expectations {
    /// Every acceptable answer in this precision, the one to strive for first.
    pub fn acceptable(&self, dtype: DType) -> Vec<&Expected> {
        let all = [self.safe.as_ref(), Some(&self.torch), self.alt.as_ref()];
        let answers = all.into_iter().flatten();
        answers
            .map(|answers| if dtype == DType::F64 { &answers.f64 } else { &answers.f32 })
            .collect()
    }
}

#[derive(Deserialize)]
struct Precisions {
    f64: Expected,
    f32: Expected,
}

/// The value, one flat list of gradients per differentiable tensor, and for losses in f64 the
/// metrics.
#[derive(Deserialize)]
pub struct Expected {
    #[serde(alias = "loss", deserialize_with = "array_or_scalar")]
    pub out: Array,
    pub grads: Vec<Vec<Number>>,
    #[serde(default)]
    pub metrics: BTreeMap<String, Number>,
}

fn array_or_scalar<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Array, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Array(Array),
        Scalar(Number),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Array(array) => array,
        Either::Scalar(number) => Array { shape: vec![], data: vec![number], dtype: None },
    })
}

/// A tensor, row-major.
#[derive(Deserialize)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<Number>,
    dtype: Option<String>,
}

impl Array {
    /// A leaf: floats in `dtype`, `int64` as i64, `bool` as a u8 mask.
    pub fn var(&self, dtype: DType) -> Var {
        let data = self.data.iter().map(|number| number.0);
        let device = &Device::Cpu;
        match (self.dtype.as_deref(), dtype) {
            (Some("int64"), _) => {
                Var::from_vec(data.map(|x| x as i64).collect(), &self.shape, device)
            }
            (Some("bool"), _) => {
                Var::from_vec(data.map(|x| u8::from(x != 0.0)).collect(), &self.shape, device)
            }
            (_, DType::F32) => Var::from_vec(data.map(|x| x as f32).collect(), &self.shape, device),
            _ => Var::from_vec(data.collect::<Vec<f64>>(), &self.shape, device),
        }
    }
}
