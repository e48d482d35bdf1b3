//! Loading a decoder from a Hugging Face folder: `config.json`, `model.safetensors` whole or in
//! shards.

mod config;
mod shards;

use std::path::Path;

use tinsmith_grad::DType;

use self::shards::Shards;
use super::weights::Model;
use crate::Result;
use crate::vocabulary::Vocabulary;

impl Model {
    /// The Qwen3 or Llama model in `folder`, as `save_pretrained` and the Hugging Face hub lay it
    /// out: `config.json`, `model.safetensors` or the shards that `model.safetensors.index.json`
    /// lists, in float32, float16 or bfloat16. It computes in `dtype`.
    ///
    /// Token texts, which stop strings need, are read from a byte-level `tokenizer.json`, if there
    /// is one.
    ///
    /// # Errors
    /// [`Error::Unusable`](crate::Error::Unusable) for another architecture, a setting that would
    /// change the result and is not known here, a tensor that is missing, of another shape, or not
    /// part of the model; [`Error::Io`](crate::Error::Io) for a file that cannot be read.
    ///
    /// ```no_run
    /// use tinsmith_grad::DType;
    /// use tinsmith_trainer::model::Model;
    ///
    /// let model = Model::load("models/Qwen3-0.6B".as_ref(), DType::F32)?;
    /// println!("{} layers", model.config().num_hidden_layers);
    /// # Ok::<_, tinsmith_trainer::Error>(())
    /// ```
    pub fn load(folder: &Path, dtype: DType) -> Result<Self> {
        let config = config::read(folder)?;
        let mut shards = Shards::read(folder)?;
        let tied = config.tie_word_embeddings;
        let mut model = Self::from_tensors(config, dtype, |name, shape| shards.take(name, shape))?;
        shards.finish(|name| {
            name.ends_with("rotary_emb.inv_freq") || tied && name == "lm_head.weight"
        })?;
        model.vocabulary = Vocabulary::read(&folder.join("tokenizer.json"))?;
        Ok(model)
    }
}
