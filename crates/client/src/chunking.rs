//! Batches that are too large for one request.

use std::ops::Range;

use tinsmith_wire::{Chunk, Datum, TensorData};

/// How much one training request may hold; more goes in several, whose results are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLimits {
    /// Most data. 1024.
    pub max_len: usize,
    /// Most bytes, as estimated: 4 a token, 4 or 8 a tensor element. A larger datum goes alone. 5,000,000.
    pub max_bytes: usize,
}

impl Default for ChunkLimits {
    fn default() -> Self {
        ChunkLimits {
            max_len: 1024,
            max_bytes: 5_000_000,
        }
    }
}

impl ChunkLimits {
    /// The ranges of data that go together, in order.
    pub(crate) fn split(&self, data: &[Datum]) -> Vec<Range<usize>> {
        let mut chunks = Vec::new();
        let (mut start, mut bytes) = (0, 0usize);
        for (i, datum) in data.iter().enumerate() {
            let more = estimated_bytes(datum);
            if i > start
                && (bytes.saturating_add(more) > self.max_bytes || i - start >= self.max_len)
            {
                chunks.push(start..i);
                (start, bytes) = (i, 0);
            }
            bytes = bytes.saturating_add(more);
        }
        if start < data.len() {
            chunks.push(start..data.len());
        }
        chunks
    }
}

fn estimated_bytes(datum: &Datum) -> usize {
    let input = datum.model_input.chunks.iter().map(|chunk| match chunk {
        Chunk::EncodedText { tokens } => 4 * tokens.len(),
        Chunk::Image { data, .. } => data.len(),
        Chunk::ImageAssetPointer { location, .. } => location.len(),
        Chunk::Dmel { dmel } => dmel.len(),
        _ => 0,
    });
    let tensor = |tensor: &TensorData| {
        let indices = tensor
            .sparse()
            .map_or(0, |csr| csr.crow.len() + csr.col.len());
        tensor.data().len() * tensor.dtype().size() + 8 * indices
    };
    input.sum::<usize>() + datum.loss_fn_inputs.values().map(tensor).sum::<usize>()
}
