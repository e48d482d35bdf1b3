//! Forward, forward_backward and optim_step.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Datum, Metrics, TensorData,
    tolerant::{finite, or_default, with_defaults},
};

/// A loss that the trainer computes. Each sums over tokens and sequences.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum LossFn {
    /// `sum(-logprobs * weights)`.
    CrossEntropy,
    /// `sum(-ratio * advantages)`.
    ImportanceSampling,
    /// Clipped surrogate.
    Ppo,
    /// Clipped importance weights, gradient through the logprobs.
    Cispo,
    /// Direct reward optimisation: quadratic penalty on the log ratio.
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

/// A setting of a server loss. JSON servers of the Tinker line take numbers only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ConfigValue {
    /// A number.
    Number(#[serde(serialize_with = "finite")] f64),
    /// A string.
    Text(String),
}

impl From<f64> for ConfigValue {
    fn from(x: f64) -> Self {
        ConfigValue::Number(x)
    }
}

impl From<&str> for ConfigValue {
    fn from(text: &str) -> Self {
        ConfigValue::Text(text.to_owned())
    }
}

/// Settings of a server loss by name, such as `clip_low_threshold`.
pub type LossFnConfig = BTreeMap<String, ConfigValue>;

/// The data of a forward or forward_backward pass, and the loss to run on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForwardBackwardInput {
    /// The examples.
    pub data: Vec<Datum>,
    /// The loss.
    pub loss_fn: LossFn,
    /// Its settings, when not the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_fn_config: Option<LossFnConfig>,
}

/// Body of `POST /api/v1/forward_backward`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForwardBackwardRequest {
    /// Data and loss.
    pub forward_backward_input: ForwardBackwardInput,
    /// The model.
    pub model_id: String,
    /// Place in the model's order of training requests, from 1.
    pub seq_id: u64,
}

/// Body of `POST /api/v1/forward`: as forward_backward, without a gradient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForwardRequest {
    /// Data and loss.
    pub forward_input: ForwardBackwardInput,
    /// The model.
    pub model_id: String,
    /// Place in the model's order of training requests, from 1.
    pub seq_id: u64,
}

/// Result of forward and forward_backward.
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

with_defaults! {
    /// AdamW's settings for one step.
    ///
    /// ```
    /// use tinsmith_wire::AdamParams;
    /// let adam = AdamParams::default().learning_rate(1e-5).grad_clip_norm(1.0);
    /// assert_eq!((adam.learning_rate, adam.beta2), (1e-5, 0.95));
    /// ```
    pub struct AdamParams {
        /// Step size.
        #[serde(serialize_with = "finite")]
        pub learning_rate: f64 = 1e-4,
        /// Decay of the mean of gradients.
        #[serde(serialize_with = "finite")]
        pub beta1: f64 = 0.9,
        /// Decay of the mean of squared gradients.
        #[serde(serialize_with = "finite")]
        pub beta2: f64 = 0.95,
        /// Added to the root of the second moment.
        #[serde(serialize_with = "finite")]
        pub eps: f64 = 1e-12,
        /// Decoupled weight decay.
        #[serde(serialize_with = "finite")]
        pub weight_decay: f64 = 0.0,
        /// Largest global gradient norm; 0 does not clip.
        #[serde(serialize_with = "finite")]
        pub grad_clip_norm: f64 = 0.0,
    }
}

macro_rules! setters {
    ($($field:ident)*) => {
        impl AdamParams {
            $(
                #[doc = concat!("Sets `", stringify!($field), "`.")]
                #[must_use]
                pub fn $field(mut self, $field: f64) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}
setters!(learning_rate beta1 beta2 eps weight_decay grad_clip_norm);

/// Body of `POST /api/v1/optim_step`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "optim_step")]
pub struct OptimStepRequest {
    /// The optimiser's settings.
    #[serde(default, deserialize_with = "or_default")]
    pub adam_params: AdamParams,
    /// The model.
    pub model_id: String,
    /// Place in the model's order of training requests.
    pub seq_id: u64,
}

/// Result of an optimiser step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OptimStepResponse {
    /// Numbers about the step, such as `grad_norm`.
    #[serde(default, deserialize_with = "or_default")]
    pub metrics: Metrics,
}
