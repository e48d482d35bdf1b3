//! From `config.json` to a [`ModelConfig`]: what is absent takes the architecture's default, what
//! would change the result and is not known is refused.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::files::read_json;
use crate::model::{Architecture, ModelConfig, RopeScaling};
use crate::{Error, Result};

/// The fields that matter here, as `transformers` writes them.
#[derive(Deserialize)]
struct File {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    /// What `transformers` 5 writes in place of the two above.
    rope_parameters: Option<Map<String, Value>>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
    eos_token_id: Option<Ids>,
    hidden_act: Option<String>,
    #[serde(default)]
    use_sliding_window: bool,
    quantization_config: Option<Value>,
}

/// One id or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

#[derive(Deserialize)]
struct GenerationFile {
    eos_token_id: Option<Ids>,
}

/// Base of the rotary frequencies where a file names none.
const ROPE_THETA: f64 = 10_000.0;

/// The model that `folder` describes.
pub(super) fn read(folder: &Path) -> Result<ModelConfig> {
    let path = folder.join("config.json");
    let fail = |problem: String| Error::Unusable { path: path.clone(), problem };
    let file: File = read_json(&path)?.ok_or_else(|| fail("there is no such file".to_owned()))?;
    let generation: Option<GenerationFile> = read_json(&folder.join("generation_config.json"))?;
    let generation = generation.and_then(|generation| generation.eos_token_id);
    let config = file.convert(generation).map_err(fail)?;
    config.check().map_err(|e| fail(e.to_string()))?;
    Ok(config)
}

impl File {
    fn convert(self, generation: Option<Ids>) -> Result<ModelConfig, String> {
        let architecture = [Architecture::Qwen3, Architecture::Llama]
            .into_iter()
            .find(|known| known.name() == self.model_type)
            .ok_or_else(|| {
                format!("`model_type` is `{}`; this trainer runs qwen3 and llama", self.model_type)
            })?;
        if let Some(act) = self.hidden_act.filter(|act| act != "silu") {
            return Err(format!("`hidden_act` is `{act}`; only silu is known"));
        }
        if self.use_sliding_window {
            return Err("`use_sliding_window` is set; only full attention is known".to_owned());
        }
        if self.quantization_config.is_some() {
            return Err(
                "the weights are quantized; take the checkpoint in bfloat16, float16 or float32"
                    .to_owned(),
            );
        }
        let mut rope = self.rope_scaling.unwrap_or_default();
        rope.extend(self.rope_parameters.unwrap_or_default());
        let theta = self.rope_theta.or_else(|| rope.get("rope_theta").and_then(Value::as_f64));
        let heads = self.num_attention_heads;
        Ok(ModelConfig {
            architecture,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: self.num_key_value_heads.unwrap_or(heads),
            head_dim: match architecture {
                // The family's default, whatever the width.
                Architecture::Qwen3 => self.head_dim.unwrap_or(128),
                Architecture::Llama => self.head_dim.unwrap_or(self.hidden_size / heads.max(1)),
            },
            max_position_embeddings: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps,
            rope_theta: theta.unwrap_or(ROPE_THETA),
            rope_scaling: rope_scaling(&rope)?,
            attention_bias: self.attention_bias,
            mlp_bias: self.mlp_bias,
            tie_word_embeddings: self.tie_word_embeddings,
            eos_token_ids: match generation.or(self.eos_token_id) {
                Some(Ids::One(id)) => vec![id],
                Some(Ids::Many(ids)) => ids,
                None => Vec::new(),
            },
        })
    }
}

fn rope_scaling(rope: &Map<String, Value>) -> Result<RopeScaling, String> {
    let number = |name: &str| {
        rope.get(name)
            .and_then(Value::as_f64)
            .filter(|x| x.is_finite() && *x > 0.0)
            .ok_or_else(|| format!("`rope_scaling` needs a positive number `{name}`"))
    };
    // Before it was called `rope_type` it was called `type`.
    let kind = rope.get("rope_type").or_else(|| rope.get("type"));
    match kind.map_or(Some("default"), Value::as_str) {
        Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: number("factor")? }),
        Some("llama3") => {
            let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
            if low >= high {
                return Err(format!(
                    "`rope_scaling` has low_freq_factor {low} and high_freq_factor {high}; the first must be less"
                ));
            }
            Ok(RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: number("original_max_position_embeddings")?,
            })
        }
        _ => Err(format!(
            "`rope_scaling` is {}; default, linear and llama3 are known",
            Value::from(rope.clone())
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn convert(changes: Value) -> Result<ModelConfig, String> {
        let mut file = json!({
            "model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        });
        for (name, value) in changes.as_object().unwrap() {
            file[name] = value.clone();
        }
        serde_json::from_value::<File>(file).unwrap().convert(None)
    }

    #[test]
    fn absent_fields_take_the_architecture_s_defaults() {
        let llama = convert(json!({})).unwrap();
        assert_eq!((llama.num_key_value_heads, llama.head_dim), (4, 4));
        assert_eq!((llama.rope_theta, llama.eos_token_ids), (10_000.0, vec![]));
        let qwen = convert(json!({"model_type": "qwen3", "eos_token_id": [3, 4]})).unwrap();
        assert_eq!((qwen.head_dim, qwen.eos_token_ids), (128, vec![3, 4]));
    }

    #[test]
    fn rotary_settings_are_read_in_the_form_of_transformers_4_and_5() {
        let llama3 = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        });
        let old = convert(json!({"rope_theta": 5e5, "rope_scaling": llama3})).unwrap();
        let mut parameters = llama3.clone();
        parameters["rope_theta"] = 5e5.into();
        assert_eq!(convert(json!({"rope_parameters": parameters})).unwrap(), old);
        assert_eq!(old.rope_theta, 5e5);
        let linear = convert(json!({"rope_scaling": {"type": "linear", "factor": 2}})).unwrap();
        assert_eq!(linear.rope_scaling, RopeScaling::Linear { factor: 2.0 });
    }

    #[test]
    fn what_would_change_the_result_unseen_is_refused() {
        for (change, said) in [
            (json!({"model_type": "gemma2"}), "`model_type` is `gemma2`"),
            (json!({"hidden_act": "gelu"}), "only silu"),
            (json!({"use_sliding_window": true}), "only full attention"),
            (json!({"quantization_config": {"bits": 4}}), "quantized"),
            (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4}}), "yarn"),
            (json!({"rope_scaling": {"rope_type": "linear"}}), "number `factor`"),
        ] {
            let problem = convert(change).unwrap_err();
            assert!(problem.contains(said), "{problem}");
        }
    }
}
