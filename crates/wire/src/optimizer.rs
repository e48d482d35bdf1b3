//! Optimizers and their steps.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{
    Metrics,
    tolerant::{finite, or_default, with_defaults},
};

/// The optimizer of a model, for the model's life.
///
/// ```
/// use tinsmith_wire::{OptimizerConfig, json};
/// let body = [OptimizerConfig::AdamW, OptimizerConfig::Dimuon { version: 1 }];
/// assert_eq!(json::to_vec(&body)?, br#"[{"type":"adamw"},{"type":"dimuon","version":1}]"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum OptimizerConfig {
    /// Adam with decoupled weight decay.
    #[default]
    AdamW,
    /// Orthogonalised momentum.
    Dimuon {
        /// Version of the algorithm.
        #[serde(default = "first_version")]
        version: u32,
    },
    /// One that this version does not know, as it was written.
    #[serde(untagged)]
    Other(BTreeMap<String, Value>),
}

fn first_version() -> u32 {
    1
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
        /// Which gradient norms the step reports. Fireworks only.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub emit_grad_norm_metrics: Option<GradNormMetrics> = None,
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

/// Which gradient norms an optimizer step reports.
///
/// ```
/// use tinsmith_wire::{AdamParams, GradNormMetrics, json};
/// let emit_grad_norm_metrics = Some(GradNormMetrics::Basic);
/// let body = AdamParams { emit_grad_norm_metrics, ..AdamParams::default() };
/// assert!(json::to_vec(&body)?.ends_with(br#""emit_grad_norm_metrics":"basic"}"#));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GradNormMetrics {
    /// None.
    Off,
    /// That of the whole gradient.
    Basic,
    /// Those of groups of parameters too.
    Detailed,
}

with_defaults! {
    /// Dimuon's settings for one step.
    ///
    /// ```
    /// use tinsmith_wire::{DimuonParams, json};
    /// let body = DimuonParams { learning_rate: 0.5, ..DimuonParams::default() };
    /// assert_eq!(json::to_vec(&body)?, br#"{"learning_rate":0.5,"grad_clip_norm":0.0,"beta1":0.9}"#);
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    pub struct DimuonParams {
        /// Step size.
        #[serde(serialize_with = "finite")]
        pub learning_rate: f64 = 1e-4,
        /// Largest global gradient norm; 0 does not clip.
        #[serde(serialize_with = "finite")]
        pub grad_clip_norm: f64 = 0.0,
        /// Decay of the momentum.
        #[serde(serialize_with = "finite")]
        pub beta1: f64 = 0.9,
    }
}

/// The settings of one step, of the optimizer that the model has.
///
/// ```
/// use tinsmith_wire::{AdamParams, DimuonParams, OptimizerParams};
/// assert_eq!(OptimizerParams::default(), AdamParams::default().into());
/// assert!(matches!(OptimizerParams::from(DimuonParams::default()), OptimizerParams::Dimuon(_)));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OptimizerParams {
    /// Of AdamW.
    #[serde(rename = "adam_params")]
    AdamW(AdamParams),
    /// Of Dimuon.
    #[serde(rename = "optimizer_params", serialize_with = "tagged_dimuon")]
    Dimuon(DimuonParams),
}

impl Default for OptimizerParams {
    fn default() -> Self {
        OptimizerParams::AdamW(AdamParams::default())
    }
}

impl From<AdamParams> for OptimizerParams {
    fn from(params: AdamParams) -> Self {
        OptimizerParams::AdamW(params)
    }
}

impl From<DimuonParams> for OptimizerParams {
    fn from(params: DimuonParams) -> Self {
        OptimizerParams::Dimuon(params)
    }
}

/// What accumulated gradients are divided by, before they are clipped and the step is made.
///
/// Losses that are raw sums (reinforcement learning) want
/// [`NumLossTokens`](GradAccumulationNormalization::NumLossTokens); losses that are means already
/// (SFT, DPO, ORPO) want [`None`](GradAccumulationNormalization::None), or they would be normalized
/// twice. In the step's request it is Fireworks' only.
///
/// ```
/// use tinsmith_wire::{GradAccumulationNormalization::{NumLossTokens, NumSequences}, json};
/// assert_eq!(json::to_vec(&NumLossTokens)?, br#""num_loss_tokens""#);
///
/// let weights: [&[f32]; 3] = [&[0.0, 0.5, -1.0], &[0.0], &[2.0]]; // per sequence, of all requests
/// assert_eq!(NumLossTokens.count(weights), 3);
/// assert_eq!(NumSequences.count(weights), 2);
/// assert_eq!(NumSequences.factor(weights), 0.5);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradAccumulationNormalization {
    /// The number of tokens that have a gradient. A token that is masked, clipped or of advantage 0
    /// has none.
    NumLossTokens,
    /// The number of sequences with at least one such token.
    NumSequences,
    /// Nothing.
    None,
}

impl GradAccumulationNormalization {
    /// What to divide by, given the gradient of each token (or the weight that was sent for it), by
    /// sequence, of all requests of a step. 0 if no token has a gradient.
    pub fn count<'a>(self, gradients: impl IntoIterator<Item = &'a [f32]>) -> usize {
        let tokens = |gradient: &[f32]| gradient.iter().filter(|&&g| g != 0.0).count();
        let tokens = gradients.into_iter().map(tokens);
        match self {
            Self::None => 1,
            Self::NumLossTokens => tokens.sum(),
            Self::NumSequences => tokens.filter(|&tokens| tokens > 0).count(),
        }
    }

    /// What to multiply the gradients with: 1 over [`count`](Self::count), or 1 if that is 0.
    pub fn factor<'a>(self, gradients: impl IntoIterator<Item = &'a [f32]>) -> f64 {
        1.0 / self.count(gradients).max(1) as f64
    }
}

/// Body of `POST /api/v1/optim_step`.
///
/// ```
/// use tinsmith_wire::{OptimStepRequest, OptimizerParams, json};
/// let it: OptimStepRequest = json::from_slice(
///     br#"{"adam_params":{"learning_rate":0.1},"model_id":"m","seq_id":2}"#,
/// )?;
/// let OptimizerParams::AdamW(adam) = it.params else { panic!() };
/// assert_eq!((adam.learning_rate, adam.beta1), (0.1, 0.9));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(tag = "type", rename = "optim_step")]
pub struct OptimStepRequest {
    /// The optimizer's settings.
    #[serde(flatten)]
    pub params: OptimizerParams,
    /// The model.
    pub model_id: String,
    /// Place in the model's order of training requests.
    pub seq_id: u64,
    /// What accumulated gradients are divided by; left to the server when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_accumulation_normalization: Option<GradAccumulationNormalization>,
}

fn tagged_dimuon<S: serde::Serializer>(
    params: &DimuonParams,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(tag = "type", rename = "dimuon")]
    struct Tagged<'a> {
        #[serde(flatten)]
        params: &'a DimuonParams,
    }
    Tagged { params }.serialize(serializer)
}

impl<'de> Deserialize<'de> for OptimStepRequest {
    /// `optimizer_params` comes before `adam_params`; with neither, AdamW's defaults.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "lowercase")]
        enum Tagged {
            AdamW(AdamParams),
            Dimuon(DimuonParams),
        }
        #[derive(Deserialize)]
        struct Given {
            optimizer_params: Option<Tagged>,
            adam_params: Option<AdamParams>,
            model_id: String,
            seq_id: u64,
            grad_accumulation_normalization: Option<GradAccumulationNormalization>,
        }
        let given = Given::deserialize(deserializer)?;
        let params = match given.optimizer_params {
            Some(Tagged::AdamW(params)) => params.into(),
            Some(Tagged::Dimuon(params)) => params.into(),
            None => given.adam_params.unwrap_or_default().into(),
        };
        Ok(OptimStepRequest {
            params,
            model_id: given.model_id,
            seq_id: given.seq_id,
            grad_accumulation_normalization: given.grad_accumulation_normalization,
        })
    }
}

/// Result of an optimizer step.
///
/// ```
/// use tinsmith_wire::{OptimStepResponse, json};
/// let it: OptimStepResponse = json::from_slice(br#"{"metrics":null}"#)?;
/// assert!(it.metrics.is_empty());
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OptimStepResponse {
    /// Numbers about the step, such as `grad_norm`.
    #[serde(default, deserialize_with = "or_default")]
    pub metrics: Metrics,
}
