//! What a decoder looks like: the numbers of a Hugging Face `config.json`, and the built-in models.

use crate::{Error, Result};

/// A family of decoders. Both have RMSNorm, rotary positions, grouped-query attention and a gated
/// MLP with SiLU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Queries and keys are normalized head by head. Source: <https://arxiv.org/abs/2505.09388>.
    Qwen3,
    /// They are not. Source: <https://arxiv.org/abs/2407.21783>.
    Llama,
}

impl Architecture {
    /// Its `model_type` in a `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qwen3 => "qwen3",
            Self::Llama => "llama",
        }
    }
}

/// How the frequencies of the rotary embedding are changed. Names are those of `rope_type` in a
/// `config.json`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all (`default`).
    None,
    /// All are divided by `factor` (`linear`). Source: <https://arxiv.org/abs/2306.15595>.
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// Slow ones are divided by `factor`, fast ones are kept, those between are interpolated
    /// (`llama3`). Source: <https://github.com/meta-llama/llama-models>, `apply_scaling`.
    Llama3 {
        /// At least 1.
        factor: f64,
        /// A frequency is slow when it turns less than this often in the original context.
        low_freq_factor: f64,
        /// A frequency is fast when it turns more than this often in the original context.
        high_freq_factor: f64,
        /// The original context, in tokens.
        original_max_position_embeddings: f64,
    },
}

/// The shape of a decoder. Field names are those of a Hugging Face `config.json`.
///
/// ```
/// use tinsmith_trainer::model::ModelConfig;
///
/// let config = ModelConfig::preset("tiny-qwen3").unwrap();
/// assert_eq!((config.hidden_size, config.num_hidden_layers, config.vocab_size), (64, 2, 320));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Number of token ids; every id in a request must be below it.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP between its gate and down projections.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Number of query heads; a multiple of `num_key_value_heads`.
    pub num_attention_heads: usize,
    /// Number of key and value heads (grouped-query attention).
    pub num_key_value_heads: usize,
    /// Width of one head; even, for the rotary embedding.
    pub head_dim: usize,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square in every RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How they are stretched for long contexts.
    pub rope_scaling: RopeScaling,
    /// Whether the query, key, value and output projections add a bias.
    pub attention_bias: bool,
    /// Whether the gate, up and down projections add a bias.
    pub mlp_bias: bool,
    /// Whether the unembedding is the embedding matrix itself.
    pub tie_word_embeddings: bool,
    /// Tokens that end a sample when a request names no stop of its own.
    pub eos_token_ids: Vec<u32>,
}

/// Names of the built-in models, smallest first.
pub const PRESETS: [&str; 2] = ["tiny-qwen3", "small-qwen3"];

impl ModelConfig {
    /// The built-in model of this name (see [`PRESETS`]), or `None`.
    ///
    /// Both take byte tokens ([`crate::tokenizer`]) and have random weights: they are there to
    /// learn from, fast.
    pub fn preset(name: &str) -> Option<Self> {
        let (hidden, layers) = match name {
            "tiny-qwen3" => (64, 2),
            "small-qwen3" => (128, 4),
            _ => return None,
        };
        Some(Self {
            architecture: Architecture::Qwen3,
            vocab_size: 320,
            hidden_size: hidden,
            intermediate_size: 2 * hidden,
            num_hidden_layers: layers,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: hidden / 4,
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: false,
            eos_token_ids: vec![crate::tokenizer::IM_END],
        })
    }

    /// Whether the numbers fit together.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |field, problem: &str| Err(Error::field(field, problem));
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        if let Some((field, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return wrong(field, "0; it must be at least 1");
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return wrong("num_attention_heads", "not a multiple of num_key_value_heads");
        }
        if !self.head_dim.is_multiple_of(2) {
            return wrong("head_dim", "odd; the rotary embedding turns pairs");
        }
        Ok(())
    }

    /// Query heads per key and value head.
    pub(crate) fn group(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_sound_and_unsound_shapes_are_named() {
        for name in PRESETS {
            ModelConfig::preset(name).unwrap().check().unwrap();
        }
        let tiny = || ModelConfig::preset("tiny-qwen3").unwrap();
        let field = |config: ModelConfig| config.check().unwrap_err().to_string();
        assert!(field(ModelConfig { head_dim: 15, ..tiny() }).starts_with("head_dim: odd"));
        assert!(
            field(ModelConfig { num_key_value_heads: 3, ..tiny() })
                .starts_with("num_attention_heads: not a multiple")
        );
        assert!(
            field(ModelConfig { num_key_value_heads: 0, ..tiny() })
                .starts_with("num_key_value_heads: 0")
        );
    }
}
