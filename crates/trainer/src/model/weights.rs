//! The frozen weights of a decoder, under their Hugging Face names.

use tinsmith_grad::{DType, Device, Tensor, Var};

use super::config::ModelConfig;
use super::lora::{Projection, Site};
use crate::{Result, random};

/// A frozen decoder: weights ready to take part in a graph.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) dtype: DType,
    /// `[vocab, hidden]`
    pub(crate) embed: Var,
    pub(crate) layers: Vec<Layer>,
    /// `[hidden]`
    pub(crate) norm: Var,
    /// `[vocab, hidden]`
    pub(crate) unembed: Var,
}

#[derive(Debug)]
pub(crate) struct Layer {
    /// `[hidden]`
    pub(crate) input_norm: Var,
    /// `[hidden]`
    pub(crate) mlp_norm: Var,
    /// `[head_dim]`
    pub(crate) query_norm: Var,
    /// `[head_dim]`
    pub(crate) key_norm: Var,
    /// `[out, in]` each, in the order of `Projection::ALL`
    projections: Vec<Var>,
}

impl Layer {
    pub(crate) fn weight(&self, projection: Projection) -> &Var {
        &self.projections[projection as usize]
    }
}

impl Model {
    /// A model with random weights: embeddings of standard deviation 1, matrices of `1/sqrt(in)`, norms one.
    ///
    /// The same seed gives the same weights; each tensor has a stream of its own, found by its name.
    ///
    /// ```
    /// use tinsmith_grad::DType;
    /// use tinsmith_trainer::model::{Model, ModelConfig};
    ///
    /// let model = Model::random(ModelConfig::preset("tiny-qwen3").unwrap(), 0, DType::F32)?;
    /// assert_eq!(model.config().vocab_size, 320);
    /// # Ok::<_, tinsmith_trainer::Error>(())
    /// ```
    pub fn random(config: ModelConfig, seed: u64, dtype: DType) -> Result<Self> {
        Self::from_tensors(config, dtype, |name, shape| {
            let n = shape.iter().product();
            let mut rng = random::stream(seed, name);
            let data = match shape {
                [_] => vec![1.0; n],
                _ if name == "model.embed_tokens.weight" => random::normal(&mut rng, n, 1.0),
                _ => random::normal(&mut rng, n, 1.0 / (shape[1] as f64).sqrt()),
            };
            Ok(Tensor::from_vec(data, shape, &Device::Cpu)?)
        })
    }

    /// A model whose weights come from `tensor(name, shape)`, asked once for each Hugging Face name, cast to `dtype`.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field) for a shape that cannot be; and those of `tensor`.
    pub fn from_tensors(
        config: ModelConfig,
        dtype: DType,
        mut tensor: impl FnMut(&str, &[usize]) -> Result<Tensor>,
    ) -> Result<Self> {
        config.check()?;
        let mut var = |name: &str, shape: &[usize]| -> Result<Var> {
            Ok(Var::new(
                tensor(&format!("{name}.weight"), shape)?.to_dtype(dtype)?,
            ))
        };
        let (hidden, head) = ([config.hidden_size], [config.head_dim]);
        let embed = var(
            "model.embed_tokens",
            &[config.vocab_size, config.hidden_size],
        )?;
        let layers = (0..config.num_hidden_layers)
            .map(|i| {
                let projections = Projection::ALL
                    .map(|p| var(&Site::Layer(i, p).name(), &p.shape(&config)))
                    .into_iter()
                    .collect::<Result<_>>()?;
                let at = format!("model.layers.{i}");
                Ok(Layer {
                    input_norm: var(&format!("{at}.input_layernorm"), &hidden)?,
                    mlp_norm: var(&format!("{at}.post_attention_layernorm"), &hidden)?,
                    query_norm: var(&format!("{at}.self_attn.q_norm"), &head)?,
                    key_norm: var(&format!("{at}.self_attn.k_norm"), &head)?,
                    projections,
                })
            })
            .collect::<Result<_>>()?;
        let norm = var("model.norm", &hidden)?;
        let unembed = match config.tie_word_embeddings {
            true => embed.clone(),
            false => var("lm_head", &[config.vocab_size, config.hidden_size])?,
        };
        Ok(Self {
            config,
            dtype,
            embed,
            layers,
            norm,
            unembed,
        })
    }

    /// Its shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The dtype it computes in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
}
