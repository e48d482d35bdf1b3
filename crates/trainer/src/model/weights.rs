//! The frozen weights of a decoder, under their Hugging Face names.

use tinsmith_grad::{DType, Device, Tensor, Var};

use super::config::{Architecture, ModelConfig};
use super::lora::{Projection, Site};
use crate::vocabulary::Vocabulary;
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
    /// What its tokens stand for.
    pub(crate) vocabulary: Vocabulary,
}

#[derive(Debug)]
pub(crate) struct Layer {
    /// `[hidden]`
    pub(crate) input_norm: Var,
    /// `[hidden]`
    pub(crate) mlp_norm: Var,
    /// Of queries and keys, where the architecture has them.
    pub(crate) head_norms: Option<HeadNorms>,
    /// In the order of `Projection::ALL`
    projections: Vec<Linear>,
}

#[derive(Debug)]
pub(crate) struct HeadNorms {
    /// `[head_dim]`
    pub(crate) query: Var,
    /// `[head_dim]`
    pub(crate) key: Var,
}

/// A matrix that LoRA can correct, and what is added to its product.
#[derive(Debug)]
pub(crate) struct Linear {
    /// `[out, in]`
    pub(crate) weight: Var,
    /// `[out]`
    pub(crate) bias: Option<Var>,
}

impl Layer {
    pub(crate) fn projection(&self, projection: Projection) -> &Linear {
        &self.projections[projection as usize]
    }

    fn weights(&self) -> impl Iterator<Item = &Var> {
        let norms = [&self.input_norm, &self.mlp_norm];
        let head_norms = self.head_norms.iter().flat_map(|n| [&n.query, &n.key]);
        let linears = self.projections.iter();
        let linears = linears.flat_map(|l| std::iter::once(&l.weight).chain(&l.bias));
        norms.into_iter().chain(head_norms).chain(linears)
    }
}

impl Model {
    /// A model with random weights: embeddings of standard deviation 1, matrices of `1/sqrt(in)`,
    /// norms one, biases zero.
    ///
    /// The same seed gives the same weights; each tensor has a stream of its own, found by its
    /// name.
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
                [_] if name.ends_with(".bias") => vec![0.0; n],
                [_] => vec![1.0; n],
                _ if name == "model.embed_tokens.weight" => random::normal(&mut rng, n, 1.0),
                _ => random::normal(&mut rng, n, 1.0 / (shape[1] as f64).sqrt()),
            };
            Ok(Tensor::from_vec(data, shape, &Device::Cpu)?)
        })
    }

    /// A model whose weights come from `tensor(name, shape)`, asked once for each Hugging Face
    /// name, cast to `dtype`.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field) for a shape that cannot be; and those of `tensor`.
    pub fn from_tensors(
        config: ModelConfig,
        dtype: DType,
        mut tensor: impl FnMut(&str, &[usize]) -> Result<Tensor>,
    ) -> Result<Self> {
        config.check()?;
        let mut var = |name: String, shape: &[usize]| -> Result<Var> {
            Ok(Var::new(tensor(&name, shape)?.to_dtype(dtype)?))
        };
        let (vocab, hidden, head) = (config.vocab_size, config.hidden_size, config.head_dim);
        let embed = var("model.embed_tokens.weight".to_owned(), &[vocab, hidden])?;
        let layer = |i| {
            let mut projection = |p: Projection| -> Result<Linear> {
                let (name, shape) = (Site::Layer(i, p).name(), p.shape(&config));
                let bias = p.has_bias(&config).then(|| var(format!("{name}.bias"), &shape[..1]));
                Ok(Linear {
                    bias: bias.transpose()?,
                    weight: var(format!("{name}.weight"), &shape)?,
                })
            };
            let projections =
                Projection::ALL.into_iter().map(&mut projection).collect::<Result<_>>()?;
            let mut norm =
                |name: &str, width| var(format!("model.layers.{i}.{name}.weight"), &[width]);
            let head_norms = match config.architecture {
                Architecture::Llama => None,
                Architecture::Qwen3 => Some(HeadNorms {
                    query: norm("self_attn.q_norm", head)?,
                    key: norm("self_attn.k_norm", head)?,
                }),
            };
            Ok(Layer {
                input_norm: norm("input_layernorm", hidden)?,
                mlp_norm: norm("post_attention_layernorm", hidden)?,
                head_norms,
                projections,
            })
        };
        let layers = (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?;
        let norm = var("model.norm.weight".to_owned(), &[hidden])?;
        let unembed = match config.tie_word_embeddings {
            true => embed.clone(),
            false => var("lm_head.weight".to_owned(), &[vocab, hidden])?,
        };
        Ok(Self { config, dtype, embed, layers, norm, unembed, vocabulary: Vocabulary::Bytes })
    }

    /// Its shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The dtype it computes in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// A digest of all weights, the same on every machine.
    pub(crate) fn fingerprint(&self) -> Result<u64> {
        let mut digest = 0;
        let layers = self.layers.iter().flat_map(Layer::weights);
        for weight in [&self.embed, &self.norm, &self.unembed].into_iter().chain(layers) {
            let bits: Vec<f32> = weight.to_dtype(DType::F32).to_vec()?;
            digest = random::digest(digest, bits.iter().flat_map(|x| x.to_le_bytes()));
        }
        Ok(digest)
    }
}
