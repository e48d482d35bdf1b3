//! One training example: what the model reads, and the tensors its loss needs.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Provenance, TensorData, tolerant::or_default};

/// One training example. Clones share tokens and tensors.
///
/// ```
/// use tinsmith_wire::{Datum, ModelInput, TensorData};
/// // Position t predicts target t: for a text x, the input is x[..n-1] and the targets are x[1..].
/// let datum = Datum::new(ModelInput::from_tokens(vec![5, 6, 7]))
///     .with("target_tokens", TensorData::from(vec![6i64, 7, 8]))
///     .with("weights", TensorData::from(vec![0.0f32, 1.0, 1.0]));
/// assert_eq!(datum.input("weights").unwrap().elem_count(), 3);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Datum {
    /// What the model reads.
    pub model_input: ModelInput,
    /// Tensors by name. `target_tokens` (`int64`, `[T]` or `[T, K]`), `weights` (`float32`), and
    /// whatever the loss wants besides.
    #[serde(default, deserialize_with = "or_default")]
    pub loss_fn_inputs: BTreeMap<String, TensorData>,
    /// Where the tokens come from, where that is kept track of. Has no JSON form and is left out
    /// there.
    #[serde(skip)]
    pub provenance: Option<Arc<Provenance>>,
}

impl Datum {
    /// A datum without loss inputs.
    pub fn new(model_input: ModelInput) -> Self {
        Datum { model_input, ..Datum::default() }
    }

    /// Adds or replaces one loss input.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, tensor: impl Into<TensorData>) -> Self {
        self.loss_fn_inputs.insert(name.into(), tensor.into());
        self
    }

    /// The loss input of this name.
    pub fn input(&self, name: &str) -> Option<&TensorData> {
        self.loss_fn_inputs.get(name)
    }
}

/// What the model reads: text, and images or sound where the model takes them. Clones share the
/// chunks.
///
/// ```
/// use tinsmith_wire::{Chunk, ModelInput};
/// let image = Chunk::Image {
///     data: vec![0xff, 0xd8].into(),
///     format: "jpeg".into(),
///     expected_tokens: Some(256),
///     override_dimensions: None,
/// };
/// let input: ModelInput = [Chunk::from_tokens(vec![1, 2, 3]), image].into_iter().collect();
/// assert_eq!(input.len(), Some(3 + 256));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelInput {
    /// The pieces, in order.
    #[serde(default, deserialize_with = "chunks")]
    pub chunks: Arc<[Chunk]>,
}

fn chunks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[Chunk]>, D::Error> {
    or_default::<D, Vec<Chunk>>(deserializer).map(Into::into)
}

impl ModelInput {
    /// One chunk of text.
    pub fn from_tokens(tokens: impl Into<Arc<[u32]>>) -> Self {
        [Chunk::from_tokens(tokens)].into_iter().collect()
    }

    /// The tokens of all text chunks, or `None` when there are other chunks too.
    ///
    /// ```
    /// # use tinsmith_wire::{Chunk, ModelInput};
    /// let two: ModelInput = [Chunk::from_tokens(vec![1]), Chunk::from_tokens(vec![2, 3])].into_iter().collect();
    /// assert_eq!(two.tokens(), Some(vec![1, 2, 3]));
    /// ```
    pub fn tokens(&self) -> Option<Vec<u32>> {
        let mut all = Vec::new();
        for chunk in &*self.chunks {
            match chunk {
                Chunk::EncodedText { tokens } => all.extend_from_slice(tokens),
                _ => return None,
            }
        }
        Some(all)
    }

    /// Length in tokens, `None` when some chunk does not tell its own.
    pub fn len(&self) -> Option<usize> {
        self.chunks.iter().map(Chunk::len).sum()
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl FromIterator<Chunk> for ModelInput {
    fn from_iter<I: IntoIterator<Item = Chunk>>(chunks: I) -> Self {
        ModelInput { chunks: chunks.into_iter().collect() }
    }
}

/// A piece of a [`ModelInput`].
///
/// ```
/// use tinsmith_wire::{Chunk, json};
/// let it: Chunk = json::from_slice(br#"{"type":"image","data":"/9g=","format":"jpeg"}"#)?;
/// assert!(matches!(&it, Chunk::Image { data, .. } if data[..] == [0xff, 0xd8]));
/// assert_eq!(it.len(), None); // the trainer decides
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Chunk {
    /// Token ids. Trainers take them below 2^31.
    EncodedText {
        /// The ids.
        tokens: Arc<[u32]>,
    },
    /// An image, in the file format named.
    Image {
        /// The bytes of the file; base64 in JSON.
        #[serde(serialize_with = "to_base64")]
        data: Arc<[u8]>,
        /// `png` or `jpeg`.
        format: String,
        /// How many tokens the sender counts on.
        #[serde(skip_serializing_if = "Option::is_none")]
        expected_tokens: Option<u32>,
        /// The size to take the image at, in place of its own.
        #[serde(skip_serializing_if = "Option::is_none")]
        override_dimensions: Option<ImageDimensions>,
    },
    /// An image that the trainer has already. Has no protobuf form.
    ImageAssetPointer {
        /// Where it is.
        location: String,
        /// `png` or `jpeg`.
        format: String,
        /// How many tokens the sender counts on.
        #[serde(skip_serializing_if = "Option::is_none")]
        expected_tokens: Option<u32>,
    },
    /// Sound, as discretised mel spectrogram.
    Dmel {
        /// The bytes; base64 in JSON.
        #[serde(serialize_with = "to_base64")]
        dmel: Arc<[u8]>,
    },
    /// A chunk of a type that this version does not know. It is read, and not written.
    #[serde(skip_serializing)]
    Other {
        /// Its type.
        kind: String,
        /// How many tokens the sender counts on.
        expected_tokens: Option<u32>,
    },
}

/// The size of an image in pixels.
///
/// ```
/// use tinsmith_wire::{ImageDimensions, json};
/// let body = ImageDimensions { width: 640, height: 480 };
/// assert_eq!(json::to_vec(&body)?, br#"{"width":640,"height":480}"#);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageDimensions {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

impl Chunk {
    /// A chunk of text.
    pub fn from_tokens(tokens: impl Into<Arc<[u32]>>) -> Self {
        Chunk::EncodedText { tokens: tokens.into() }
    }

    /// Length in tokens, when the chunk tells.
    pub fn len(&self) -> Option<usize> {
        match self {
            Chunk::EncodedText { tokens } => Some(tokens.len()),
            Chunk::Image { expected_tokens, .. }
            | Chunk::ImageAssetPointer { expected_tokens, .. }
            | Chunk::Other { expected_tokens, .. } => expected_tokens.map(|n| n as usize),
            Chunk::Dmel { .. } => None,
        }
    }

    /// Whether the chunk says that it has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64.encode(bytes))
}

/// Bytes, or why a text is not base64; which does not matter in a chunk of an unknown type.
struct Base64(Result<Arc<[u8]>, base64::DecodeError>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Ok(Base64(BASE64.decode(text.as_bytes()).map(Into::into)))
    }
}

impl<'de> Deserialize<'de> for Chunk {
    /// The `type` tag may be missing: the fields tell the kinds apart.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Given {
            #[serde(rename = "type")]
            kind: Option<String>,
            tokens: Option<Vec<u32>>,
            data: Option<Base64>,
            format: Option<String>,
            expected_tokens: Option<u32>,
            override_dimensions: Option<ImageDimensions>,
            location: Option<String>,
            dmel: Option<Base64>,
        }
        let given = Given::deserialize(deserializer)?;
        let missing = de::Error::missing_field;
        let bytes = |given: Option<Base64>, field| {
            let bytes = given.ok_or_else(|| missing(field))?.0;
            bytes.map_err(|error| de::Error::custom(format!("`{field}` is not base64: {error}")))
        };
        let kind = match (&given.kind, &given) {
            (Some(kind), _) => kind.as_str(),
            (None, Given { location: Some(_), .. }) => "image_asset_pointer",
            (None, Given { data: Some(_), .. }) => "image",
            (None, Given { dmel: Some(_), .. }) => "dmel",
            (None, _) => "encoded_text",
        };
        let format = given.format.unwrap_or_default();
        match kind {
            "encoded_text" => Ok(Chunk::EncodedText {
                tokens: given.tokens.ok_or_else(|| missing("tokens"))?.into(),
            }),
            "image" => Ok(Chunk::Image {
                data: bytes(given.data, "data")?,
                format,
                expected_tokens: given.expected_tokens,
                override_dimensions: given.override_dimensions,
            }),
            "image_asset_pointer" => Ok(Chunk::ImageAssetPointer {
                location: given.location.ok_or_else(|| missing("location"))?,
                format,
                expected_tokens: given.expected_tokens,
            }),
            "dmel" => Ok(Chunk::Dmel { dmel: bytes(given.dmel, "dmel")? }),
            other => {
                Ok(Chunk::Other { kind: other.to_owned(), expected_tokens: given.expected_tokens })
            }
        }
    }
}
