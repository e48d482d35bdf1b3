//! Data from texts: shifting by one, truncation, weights.

use std::sync::Arc;

use crate::{Chunk, Datum, Error, ModelInput, Result};

/// How [`Datum::from_input_and_weights`] treats a text.
///
/// ```
/// use tinsmith_wire::{ShiftConfig, WeightReduction};
/// let config = ShiftConfig::default().max_length(4096).reduction(WeightReduction::Mean);
/// assert_eq!(config.max_length, Some(4096));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShiftConfig {
    /// Most tokens of the text; what is over is cut off at the end. Everything when absent.
    pub max_length: Option<usize>,
    /// What becomes of the weights.
    pub reduction: WeightReduction,
}

/// What becomes of a datum's weights.
///
/// ```
/// use tinsmith_wire::{Datum, ModelInput, ShiftConfig, WeightReduction};
/// let config = ShiftConfig::default().reduction(WeightReduction::Mean);
/// let text = ModelInput::from_tokens(vec![5, 6, 7]);
/// let datum = Datum::from_input_and_weights(&text, &[0.0, 1.0, 3.0], &config)?;
/// assert_eq!(datum.input("weights").unwrap().as_f32().unwrap(), [0.25, 0.75]);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum WeightReduction {
    /// They stay as they are.
    #[default]
    None,
    /// They are divided by their sum, if it is positive, so that every datum counts the same.
    Mean,
}

impl ShiftConfig {
    /// Sets `max_length`.
    #[must_use]
    pub fn max_length(mut self, tokens: usize) -> Self {
        self.max_length = Some(tokens);
        self
    }

    /// Sets `reduction`.
    #[must_use]
    pub fn reduction(mut self, reduction: WeightReduction) -> Self {
        self.reduction = reduction;
        self
    }
}

impl Datum {
    /// A text to learn, with a weight for each token: position t of the input predicts token t + 1
    /// at that token's weight. The result has the text without its last token as input, and
    /// `target_tokens` (`int64`) and `weights` (`float32`), both `[tokens - 1]`.
    ///
    /// # Errors
    /// [`Error::Datum`] when there are fewer than two tokens, or not one weight a token.
    ///
    /// ```
    /// use tinsmith_wire::Datum;
    /// let datum = Datum::from_tokens_and_weights(&[5, 6, 7], &[0.0, 0.0, 1.0])?; // learn 7 after 5, 6
    /// assert_eq!(datum.model_input.tokens().unwrap(), [5, 6]);
    /// assert_eq!(datum.input("target_tokens").unwrap().as_i64().unwrap(), [6, 7]);
    /// assert_eq!(datum.input("weights").unwrap().as_f32().unwrap(), [0.0, 1.0]);
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    pub fn from_tokens_and_weights(tokens: &[u32], weights: &[f32]) -> Result<Datum> {
        let input = ModelInput::from_tokens(tokens);
        Datum::from_input_and_weights(&input, weights, &ShiftConfig::default())
    }

    /// A text to predict, without weights: as
    /// [`from_tokens_and_weights`](Self::from_tokens_and_weights), with `target_tokens` alone.
    ///
    /// # Errors
    /// [`Error::Datum`] when there are fewer than two tokens.
    ///
    /// ```
    /// use tinsmith_wire::Datum;
    /// let datum = Datum::from_tokens(&[5, 6, 7])?;
    /// assert_eq!(datum.input("target_tokens").unwrap().as_i64().unwrap(), [6, 7]);
    /// assert!(datum.input("weights").is_none());
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    pub fn from_tokens(tokens: &[u32]) -> Result<Datum> {
        shifted(vec![Chunk::from_tokens(tokens)])
    }

    /// As [`from_tokens_and_weights`](Self::from_tokens_and_weights), of a text with images,
    /// truncated if need be: text is cut within a chunk, an image goes whole, and none is left at
    /// the end. The targets at an image's positions are 0.
    ///
    /// # Errors
    /// [`Error::Datum`] when fewer than two tokens are left, when there is not one weight a token
    /// of `input`, or when the length of a chunk is not known.
    ///
    /// ```
    /// use tinsmith_wire::{Datum, ModelInput, ShiftConfig, WeightReduction};
    /// let input = ModelInput::from_tokens(vec![5, 6, 7, 8, 9]);
    /// let config = ShiftConfig::default().max_length(4).reduction(WeightReduction::Mean);
    /// let datum = Datum::from_input_and_weights(&input, &[0.0, 0.0, 1.0, 3.0, 1.0], &config)?;
    /// assert_eq!(datum.model_input.tokens().unwrap(), [5, 6, 7]);
    /// assert_eq!(datum.input("weights").unwrap().as_f32().unwrap(), [0.0, 0.25, 0.75]);
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    pub fn from_input_and_weights(
        input: &ModelInput,
        weights: &[f32],
        config: &ShiftConfig,
    ) -> Result<Datum> {
        let lengths: Option<Vec<usize>> = input.chunks.iter().map(Chunk::len).collect();
        let lengths = lengths.ok_or_else(|| {
            fail("model_input", "a chunk does not tell its length: set expected_tokens")
        })?;
        let length: usize = lengths.iter().sum();
        if weights.len() != length {
            let reason = format!("{} weights for {length} tokens", weights.len());
            return Err(fail("weights", reason));
        }
        let excess = length.saturating_sub(config.max_length.unwrap_or(usize::MAX));
        let datum = shifted(truncated(&input.chunks, excess))?;
        let targets = datum.input("target_tokens").map_or(0, |targets| targets.elem_count());
        let mut weights = weights[1..=targets].to_vec();
        let sum: f32 = weights.iter().sum();
        if config.reduction == WeightReduction::Mean && sum > 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        Ok(datum.with("weights", weights))
    }
}

fn fail(field: &'static str, reason: impl Into<String>) -> Error {
    Error::Datum { field, reason: reason.into() }
}

/// Without the last `excess` tokens, empty texts, and whatever else than text is then at the end.
fn truncated(chunks: &[Chunk], mut excess: usize) -> Vec<Chunk> {
    let mut kept = chunks.to_vec();
    while excess > 0 {
        let Some(last) = kept.pop() else { break };
        match last {
            Chunk::EncodedText { tokens } if tokens.len() > excess => {
                kept.push(Chunk::from_tokens(&tokens[..tokens.len() - excess]));
                excess = 0;
            }
            whole => excess = excess.saturating_sub(whole.len().unwrap_or(0)),
        }
    }
    kept.retain(|chunk| !matches!(chunk, Chunk::EncodedText { tokens } if tokens.is_empty()));
    while kept.pop_if(|last| !matches!(last, Chunk::EncodedText { .. })).is_some() {}
    kept
}

/// Input and targets of a text.
fn shifted(mut chunks: Vec<Chunk>) -> Result<Datum> {
    let too_short = || fail("model_input", "it needs at least two tokens");
    let mut targets: Vec<i64> = Vec::new();
    for chunk in &chunks {
        match chunk {
            Chunk::EncodedText { tokens } => targets.extend(tokens.iter().map(|&id| i64::from(id))),
            other => targets.extend(std::iter::repeat_n(0, other.len().unwrap_or(0))),
        }
    }
    if targets.len() < 2 {
        return Err(too_short());
    }
    targets.remove(0);
    let Some(Chunk::EncodedText { tokens }) = chunks.pop() else {
        return Err(too_short());
    };
    let rest: Arc<[u32]> = tokens[..tokens.len() - 1].into();
    if !rest.is_empty() {
        chunks.push(Chunk::from_tokens(rest));
    }
    let input: ModelInput = chunks.into_iter().collect();
    Ok(Datum::new(input).with("target_tokens", targets))
}
