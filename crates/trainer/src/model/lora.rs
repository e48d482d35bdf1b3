//! LoRA: a trained low-rank correction beside each frozen matrix.
//!
//! A linear map with weight `W [out, in]` becomes `x Wᵀ + (alpha / rank) (x Aᵀ) Bᵀ` with
//! `A [rank, in]`, `B [out, rank]`. `B` starts at zero, so a new adapter leaves the model as it is;
//! `A` is uniform in `±1/sqrt(in)`. Source: Hu et al. 2021, <https://arxiv.org/abs/2106.09685>;
//! `alpha = 32` whatever the rank as in
//! <https://thinkingmachines.ai/blog/lora/>, so that one learning rate suits all ranks.

use serde::{Deserialize, Serialize};
use tinsmith_grad::{Device, Tensor, Var};

use super::config::ModelConfig;
use crate::{Error, Result, random};

/// Numerator of the LoRA scale: a correction is multiplied by `ALPHA / rank`.
pub const ALPHA: f64 = 32.0;

/// What a LoRA adapter trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Width of the correction, at least 1.
    pub rank: usize,
    /// Seed of the initial `A` matrices.
    pub seed: u64,
    /// Train the query, key, value and output projections.
    pub train_attn: bool,
    /// Train the gate, up and down projections.
    pub train_mlp: bool,
    /// Train the unembedding.
    pub train_unembed: bool,
}

/// A matrix of a decoder layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Projection {
    Query,
    Key,
    Value,
    Output,
    Gate,
    Up,
    Down,
}

impl Projection {
    pub(crate) const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// Its name inside a layer, as Hugging Face checkpoints spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// `[out, in]`.
    pub(crate) fn shape(self, config: &ModelConfig) -> [usize; 2] {
        let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
        let query = config.num_attention_heads * config.head_dim;
        let key = config.num_key_value_heads * config.head_dim;
        match self {
            Self::Query => [query, hidden],
            Self::Key | Self::Value => [key, hidden],
            Self::Output => [hidden, query],
            Self::Gate | Self::Up => [mlp, hidden],
            Self::Down => [hidden, mlp],
        }
    }

    pub(crate) fn has_bias(self, config: &ModelConfig) -> bool {
        match self.is_attention() {
            true => config.attention_bias,
            false => config.mlp_bias,
        }
    }

    fn is_attention(self) -> bool {
        matches!(self, Self::Query | Self::Key | Self::Value | Self::Output)
    }
}

/// A matrix of the model that LoRA can correct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Site {
    Layer(usize, Projection),
    Unembed,
}

impl Site {
    /// Its name in a Hugging Face checkpoint, without `.weight`.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Layer(layer, projection) => format!("model.layers.{layer}.{}", projection.name()),
            Self::Unembed => "lm_head".to_owned(),
        }
    }

    /// `[out, in]`.
    fn shape(self, config: &ModelConfig) -> [usize; 2] {
        match self {
            Self::Layer(_, projection) => projection.shape(config),
            Self::Unembed => [config.vocab_size, config.hidden_size],
        }
    }

    fn all(lora: &LoraConfig, config: &ModelConfig) -> Vec<Self> {
        let trained = |projection: &Projection| match projection.is_attention() {
            true => lora.train_attn,
            false => lora.train_mlp,
        };
        (0..config.num_hidden_layers)
            .flat_map(|layer| {
                Projection::ALL
                    .into_iter()
                    .filter(trained)
                    .map(move |projection| Self::Layer(layer, projection))
            })
            .chain(lora.train_unembed.then_some(Self::Unembed))
            .collect()
    }
}

/// The trained weights of one model: `A` and `B` of every site in turn. A clone shares the tensors.
#[derive(Debug, Clone)]
pub struct Adapter {
    config: LoraConfig,
    sites: Vec<Site>,
    params: Vec<Tensor>,
}

impl Adapter {
    /// A fresh adapter in float32: `A` from the seed, `B` zero.
    ///
    /// # Errors
    /// [`Error::Field`] for a rank of 0.
    pub fn new(config: LoraConfig, model: &ModelConfig) -> Result<Self> {
        if config.rank == 0 {
            return Err(Error::field("rank", "0 would train nothing; it must be at least 1"));
        }
        let sites = Site::all(&config, model);
        let mut params = Vec::with_capacity(2 * sites.len());
        for site in &sites {
            let [out, input] = site.shape(model);
            let mut rng = random::stream(config.seed, &site.name());
            let a = random::uniform(&mut rng, config.rank * input, 1.0 / (input as f64).sqrt());
            let b = vec![0f32; out * config.rank];
            params.push(Tensor::from_vec(a, (config.rank, input), &Device::Cpu)?);
            params.push(Tensor::from_vec(b, (out, config.rank), &Device::Cpu)?);
        }
        Ok(Self { config, sites, params })
    }

    /// What it trains.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The weights: `A [rank, in]` and `B [out, rank]` of every site in turn, in the order of
    /// [`names`](Self::names).
    pub fn params(&self) -> &[Tensor] {
        &self.params
    }

    /// Replaces the weights. The caller keeps their number and shapes.
    pub(crate) fn set_params(&mut self, params: Vec<Tensor>) {
        debug_assert_eq!(params.len(), self.params.len());
        self.params = params;
    }

    /// Names of the weights, as PEFT writes them.
    pub fn names(&self) -> Vec<String> {
        let prefix = "base_model.model";
        self.sites
            .iter()
            .flat_map(|site| {
                ["lora_A", "lora_B"].map(|ab| format!("{prefix}.{}.{ab}.weight", site.name()))
            })
            .collect()
    }

    /// Names and weights.
    pub(crate) fn named(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.names().into_iter().zip(&self.params)
    }

    /// The weights as leaves of a new graph.
    pub(crate) fn vars(&self) -> Vec<Var> {
        self.params.iter().cloned().map(Var::new).collect()
    }

    /// How `vars` (in the order of [`params`](Self::params)) correct the model.
    pub(crate) fn with_vars<'a>(&'a self, vars: &'a [Var]) -> Lora<'a> {
        Lora { sites: &self.sites, vars, scale: ALPHA / self.config.rank as f64 }
    }
}

/// The corrections in terms of a graph's leaves.
#[derive(Clone, Copy)]
pub(crate) struct Lora<'a> {
    sites: &'a [Site],
    vars: &'a [Var],
    scale: f64,
}

impl Lora<'_> {
    /// No correction: the base model.
    pub(crate) const NONE: Lora<'static> = Lora { sites: &[], vars: &[], scale: 0.0 };

    /// `x [rows, in]` through `weight [out, in]` and, when `site` is trained, its correction:
    /// `[rows, out]`.
    pub(crate) fn linear(&self, site: Site, weight: &Var, x: &Var) -> Var {
        let y = x.matmul(&weight.t());
        let Some(at) = self.sites.iter().position(|&s| s == site) else {
            return y;
        };
        let (a, b) = (&self.vars[2 * at], &self.vars[2 * at + 1]);
        y + (x.matmul(&a.t()) * self.scale).matmul(&b.t())
    }
}
