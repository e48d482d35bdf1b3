//! What bytes a token stands for, which is all that stop strings need to know of a tokenizer.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::files::read_json;
use crate::{Error, Result, tokenizer};

/// The texts of a model's tokens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Vocabulary {
    /// Those of [`tokenizer`].
    Bytes,
    /// By id.
    Table(HashMap<u32, Vec<u8>>),
    /// Not known; why.
    Unknown(String),
}

/// The parts of a `tokenizer.json` that are read here.
#[derive(Deserialize)]
struct File {
    model: Model,
    decoder: Option<Value>,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct Model {
    /// Ids by text; other tokenizers than BPE have other forms.
    #[serde(default)]
    vocab: Value,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

impl Vocabulary {
    /// The vocabulary of the `tokenizer.json` at `path`, if it is there and its decoder is byte
    /// level.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let Some(file) = read_json::<File>(path)? else {
            return Ok(Self::Unknown("it has no tokenizer.json".to_owned()));
        };
        let byte_level = file.decoder.is_some_and(|decoder| mentions_byte_level(&decoder));
        let vocab = serde_json::from_value::<HashMap<String, u32>>(file.model.vocab);
        let (Ok(vocab), true) = (vocab, byte_level) else {
            return Ok(Self::Unknown("its tokenizer is not byte-level BPE".to_owned()));
        };
        let alphabet: HashMap<char, u8> = (0..=255).map(|byte| (stand_in(byte), byte)).collect();
        let bytes = |text: &str| text.chars().filter_map(|c| alphabet.get(&c).copied()).collect();
        let mut table: HashMap<u32, Vec<u8>> =
            vocab.iter().map(|(text, &id)| (id, bytes(text))).collect();
        // Added tokens stand for their own text, not for bytes in disguise.
        table.extend(file.added_tokens.into_iter().map(|t| (t.id, t.content.into_bytes())));
        Ok(Self::Table(table))
    }

    /// The bytes of `tokens`; those without a text are left out.
    pub(crate) fn bytes(&self, tokens: &[u32]) -> Vec<u8> {
        match self {
            Self::Bytes => tokenizer::bytes(tokens),
            Self::Table(table) => {
                let texts = tokens.iter().filter_map(|id| table.get(id));
                texts.flatten().copied().collect()
            }
            Self::Unknown(_) => Vec::new(),
        }
    }

    /// Whether stop strings can be found, or why not.
    pub(crate) fn check_stop_strings(&self) -> Result<()> {
        match self {
            Self::Bytes | Self::Table(_) => Ok(()),
            Self::Unknown(why) => Err(Error::field(
                "sampling_params.stop",
                format!(
                    "the texts of this model's tokens are not known, since {why}; send token ids"
                ),
            )),
        }
    }
}

/// Whether a decoder, or one of a sequence of them, is `ByteLevel`.
fn mentions_byte_level(decoder: &Value) -> bool {
    let steps = decoder.get("decoders").and_then(Value::as_array);
    decoder["type"] == "ByteLevel" || steps.is_some_and(|all| all.iter().any(mentions_byte_level))
}

/// The printable character that a byte-level vocabulary writes for `byte`: the byte's own where
/// that is printable, else the next free one from U+0100 on.
///
/// Source: `bytes_to_unicode` of GPT-2,
/// <https://github.com/openai/gpt-2/blob/master/src/encoder.py>.
fn stand_in(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn read(json: &str) -> Vocabulary {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        fs::write(&path, json).unwrap();
        Vocabulary::read(&path).unwrap()
    }

    #[test]
    fn a_byte_level_vocabulary_gives_bytes() {
        // As GPT-2 and its kin write them: Ġ is a space, Ċ a new line, Ã© the two bytes of é.
        let vocabulary = read(
            r#"{"model": {"type": "BPE", "vocab": {"Ġthe": 0, "Ċ": 1, "Ã©": 2}, "merges": []},
                "decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel"}]},
                "added_tokens": [{"id": 3, "content": "<|é|>", "special": true}]}"#,
        );
        assert_eq!(vocabulary.bytes(&[2, 0, 1, 9, 3]), "é the\n<|é|>".as_bytes());
        assert!(vocabulary.check_stop_strings().is_ok());
    }

    #[test]
    fn without_one_stop_strings_are_refused_with_the_reason() {
        let unigram = read(r#"{"model": {"type": "Unigram", "vocab": [["a", -1.0]]}}"#);
        let error = unigram.check_stop_strings().unwrap_err().to_string();
        assert!(error.contains("not byte-level BPE; send token ids"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let none = Vocabulary::read(&folder.path().join("tokenizer.json")).unwrap();
        let error = none.check_stop_strings().unwrap_err().to_string();
        assert!(error.contains("no tokenizer.json"), "{error}");
    }
}
