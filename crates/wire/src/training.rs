//! Forward and forward_backward.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct};

use crate::{
    Datum, Metrics, TensorData,
    tolerant::{finite, or_default},
};

/// A loss that the trainer computes. Each sums over tokens and sequences.
///
/// ```
/// use tinsmith_wire::LossFn;
/// assert_eq!(LossFn::from("ppo".to_owned()), LossFn::Ppo);
/// assert_eq!(LossFn::from("stable_reinforce".to_owned()).name(), "stable_reinforce");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum LossFn {
    /// `sum(-logprobs * weights)`.
    #[default]
    CrossEntropy,
    /// `sum(-ratio * advantages)`.
    ImportanceSampling,
    /// Clipped surrogate.
    Ppo,
    /// Clipped importance weights, gradient through the logprobs.
    Cispo,
    /// Direct reward optimization: quadratic penalty on the log ratio.
    Dro,
    /// PPO with a ratio per sequence.
    Gspo,
    /// Any other name that the trainer knows.
    Other(String),
}

impl LossFn {
    /// The name on the wire.
    pub fn name(&self) -> &str {
        match self {
            LossFn::CrossEntropy => "cross_entropy",
            LossFn::ImportanceSampling => "importance_sampling",
            LossFn::Ppo => "ppo",
            LossFn::Cispo => "cispo",
            LossFn::Dro => "dro",
            LossFn::Gspo => "gspo",
            LossFn::Other(name) => name,
        }
    }
}

impl From<String> for LossFn {
    fn from(name: String) -> Self {
        match name.as_str() {
            "cross_entropy" => LossFn::CrossEntropy,
            "importance_sampling" => LossFn::ImportanceSampling,
            "ppo" => LossFn::Ppo,
            "cispo" => LossFn::Cispo,
            "dro" => LossFn::Dro,
            "gspo" => LossFn::Gspo,
            _ => LossFn::Other(name),
        }
    }
}

impl From<LossFn> for String {
    fn from(loss: LossFn) -> Self {
        loss.name().to_owned()
    }
}

/// A setting of a server loss. Servers that speak JSON take numbers only, except for Fireworks.
///
/// ```
/// use tinsmith_wire::{ConfigValue, LossFnConfig};
/// let config: LossFnConfig = [("clip_low_threshold".to_owned(), ConfigValue::from(0.8))].into();
/// assert_eq!(config["clip_low_threshold"].to_string(), "0.8");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ConfigValue {
    /// A number.
    Number(#[serde(serialize_with = "finite")] f64),
    /// A string.
    Text(String),
    /// Yes or no. Fireworks only.
    Flag(bool),
}

impl fmt::Display for ConfigValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigValue::Number(x) => x.fmt(f),
            ConfigValue::Text(text) => write!(f, "{text:?}"),
            ConfigValue::Flag(flag) => flag.fmt(f),
        }
    }
}

impl From<f64> for ConfigValue {
    fn from(x: f64) -> Self {
        ConfigValue::Number(x)
    }
}

impl From<bool> for ConfigValue {
    fn from(flag: bool) -> Self {
        ConfigValue::Flag(flag)
    }
}

impl From<&str> for ConfigValue {
    fn from(text: &str) -> Self {
        ConfigValue::Text(text.to_owned())
    }
}

/// Settings of a server loss by name, such as `clip_low_threshold`.
pub type LossFnConfig = BTreeMap<String, ConfigValue>;

/// The two passes over data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pass {
    /// Values only.
    Forward,
    /// Values, and the gradient is added to the model's.
    ForwardBackward,
}

/// A request for either pass, over data that the sender may keep. In JSON the passes have paths of
/// their own, `POST
/// /api/v1/forward` and `/forward_backward`, and data and loss lie in `forward_input` or `forward_backward_input`; in
/// [`proto`](crate::proto) it is one message for both, and goes to `/forward_backward`.
///
/// ```
/// use tinsmith_wire::{Datum, LossFn, ModelInput, Pass, PassRequest, json};
/// let data = [Datum::new(ModelInput::from_tokens(vec![1])).with("target_tokens", vec![2i64])];
/// let request = PassRequest {
///     pass: Pass::Forward,
///     data: (&data).into(), // lent, not copied
///     loss_fn: LossFn::CrossEntropy,
///     loss_fn_config: None,
///     model_id: "m".into(),
///     seq_id: 1,
/// };
/// assert!(json::to_vec(&request)?.starts_with(br#"{"forward_input":{"data":[{"model_input":"#));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PassRequest<'a> {
    /// Which pass.
    pub pass: Pass,
    /// The examples.
    pub data: Cow<'a, [Datum]>,
    /// The loss.
    pub loss_fn: LossFn,
    /// Its settings, when not the defaults.
    pub loss_fn_config: Option<LossFnConfig>,
    /// The model.
    pub model_id: String,
    /// Place in the model's order of training requests, from 1.
    pub seq_id: u64,
}

impl Serialize for PassRequest<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Input<'a> {
            data: &'a [Datum],
            loss_fn: &'a LossFn,
            #[serde(skip_serializing_if = "Option::is_none")]
            loss_fn_config: Option<&'a LossFnConfig>,
        }
        let input = Input {
            data: &self.data,
            loss_fn: &self.loss_fn,
            loss_fn_config: self.loss_fn_config.as_ref(),
        };
        let field = match self.pass {
            Pass::Forward => "forward_input",
            Pass::ForwardBackward => "forward_backward_input",
        };
        let mut body = serializer.serialize_struct("PassRequest", 3)?;
        body.serialize_field(field, &input)?;
        body.serialize_field("model_id", &self.model_id)?;
        body.serialize_field("seq_id", &self.seq_id)?;
        body.end()
    }
}

impl<'de> Deserialize<'de> for PassRequest<'static> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Input {
            data: Vec<Datum>,
            loss_fn: LossFn,
            loss_fn_config: Option<LossFnConfig>,
        }
        #[derive(Deserialize)]
        struct Body {
            forward_input: Option<Input>,
            forward_backward_input: Option<Input>,
            model_id: String,
            seq_id: u64,
        }
        let body = Body::deserialize(deserializer)?;
        let (pass, input) = match (body.forward_input, body.forward_backward_input) {
            (Some(input), None) => (Pass::Forward, input),
            (None, Some(input)) => (Pass::ForwardBackward, input),
            (None, None) => return Err(de::Error::missing_field("forward_backward_input")),
            (Some(_), Some(_)) => return Err(de::Error::custom("it asks for both passes at once")),
        };
        Ok(PassRequest {
            pass,
            data: Cow::Owned(input.data),
            loss_fn: input.loss_fn,
            loss_fn_config: input.loss_fn_config,
            model_id: body.model_id,
            seq_id: body.seq_id,
        })
    }
}

/// Result of forward and forward_backward.
///
/// ```
/// use tinsmith_wire::{ForwardBackwardOutput, json};
/// let it: ForwardBackwardOutput = json::from_slice(
///     br#"{"loss_fn_outputs":[{"logprobs":{"dtype":"float32","data":[-1.0],"shape":[1]}}],
///          "metrics":{"loss:sum":1.0}}"#,
/// )?;
/// assert_eq!(it.loss_fn_outputs[0]["logprobs"].as_f32().unwrap(), [-1.0]);
/// assert_eq!(it.metrics["loss:sum"], 1.0);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ForwardBackwardOutput {
    /// What kind of record the outputs are; informative.
    #[serde(default, deserialize_with = "or_default")]
    pub loss_fn_output_type: String,
    /// One record a datum, such as `logprobs` (`float32`, shaped as the targets).
    pub loss_fn_outputs: Vec<BTreeMap<String, TensorData>>,
    /// Numbers over the whole batch, such as `loss:sum`.
    #[serde(default, deserialize_with = "or_default")]
    pub metrics: Metrics,
}
