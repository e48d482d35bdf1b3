//! Where the tokens of a datum come from.

/// Where the tokens of a [`Datum`](crate::Datum) come from, for servers that follow a sample from
/// its making into training. Travels in protobuf only.
///
/// ```
/// use std::sync::Arc;
/// use tinsmith_wire::{Datum, ModelInput, Provenance, ProvenanceSource, ProvenanceSpan};
/// let of = |source, offset, length| ProvenanceSpan { source, sequence_id: "r0:0".into(), offset, length };
/// // One prompt token, and two of three sampled ones; the targets are one further on.
/// let provenance = Provenance {
///     model_input: vec![of(ProvenanceSource::Prompt, 0, 1), of(ProvenanceSource::Sampled, 0, 2)],
///     loss_fn_inputs: vec![of(ProvenanceSource::Sampled, 0, 3)],
/// };
/// let mut datum = Datum::new(ModelInput::from_tokens(vec![1, 2, 3]));
/// datum.provenance = Some(Arc::new(provenance));
/// # assert_eq!(datum.model_input.len(), Some(1 + 2));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    /// The origin of the model's input, piece by piece.
    pub model_input: Vec<ProvenanceSpan>,
    /// The origin of the loss inputs, piece by piece.
    pub loss_fn_inputs: Vec<ProvenanceSpan>,
}

/// A piece of a sequence that the server has sampled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenanceSpan {
    /// Which part of the sequence it is.
    pub source: ProvenanceSource,
    /// The sequence: one of the `sample_sequence_ids` of [`Submitted`](crate::Submitted).
    pub sequence_id: String,
    /// The first token, counted within that part.
    pub offset: u64,
    /// The number of tokens.
    pub length: u64,
}

/// The two parts of a sampled sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProvenanceSource {
    /// What was given.
    Prompt,
    /// What was sampled.
    Sampled,
}
