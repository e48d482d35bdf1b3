//! Batches that are too large for one request.

use std::ops::Range;

use tinsmith_wire::{Chunk, Datum, TensorData};

use crate::settings::settings;

/// How a server counts the bytes of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteCount {
    /// What they take in memory.
    Memory,
    /// Ten bytes an element, as they are in JSON. Fireworks.
    TenAnElement,
}

settings! {
    /// How much one training request may hold; more goes in several, whose results are put
    /// together.
    ///
    /// ```
    /// use tinsmith_client::{ChunkLimits, ServiceClient};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// let service = ServiceClient::builder()
    ///     .base_url(trainer.url())
    ///     .chunk_limits(ChunkLimits::default().max_len(64))
    ///     .connect()?;
    /// # drop(service);
    /// # anyhow::Ok(())
    /// ```
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct ChunkLimits {
        /// Most data. 1024.
        pub max_len: usize,
        /// Most bytes, as estimated: 4 a token, 4 or 8 a tensor element. A larger datum goes alone.
        /// 5,000,000.
        pub max_bytes: usize,
    }
}

impl Default for ChunkLimits {
    fn default() -> Self {
        ChunkLimits { max_len: 1024, max_bytes: 5_000_000 }
    }
}

impl ChunkLimits {
    /// The ranges of data that go together, in order.
    pub(crate) fn split(&self, data: &[Datum], count: ByteCount) -> Vec<Range<usize>> {
        let mut chunks = Vec::new();
        let (mut start, mut bytes) = (0, 0usize);
        for (i, datum) in data.iter().enumerate() {
            let more = estimated_bytes(datum, count);
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

    /// The ranges of data that go together, in order, in requests to any service but Fireworks,
    /// which counts otherwise.
    ///
    /// ```
    /// use tinsmith_client::{ChunkLimits, Datum, ModelInput};
    /// let data = vec![Datum::new(ModelInput::from_tokens(vec![1, 2])); 3]; // 8 bytes each
    /// let limits = ChunkLimits::default().max_bytes(20);
    /// assert_eq!(limits.ranges(&data), [0..2, 2..3]);
    /// ```
    pub fn ranges(&self, data: &[Datum]) -> Vec<Range<usize>> {
        self.split(data, ByteCount::Memory)
    }

    /// What a datum counts there toward `max_bytes`: 4 a token, the bytes of images and sound, and
    /// of tensors those of values and sparse indices.
    ///
    /// ```
    /// use tinsmith_client::{ChunkLimits, Datum, ModelInput};
    /// let datum = Datum::new(ModelInput::from_tokens(vec![1, 2, 3])).with("target_tokens", vec![2i64, 3, 4]);
    /// assert_eq!(ChunkLimits::estimated_bytes(&datum), 3 * 4 + 3 * 8);
    /// ```
    pub fn estimated_bytes(datum: &Datum) -> usize {
        estimated_bytes(datum, ByteCount::Memory)
    }
}

/// What a datum counts toward [`ChunkLimits::max_bytes`]. Fireworks counts 10 bytes a tensor
/// element.
pub(crate) fn estimated_bytes(datum: &Datum, count: ByteCount) -> usize {
    let input = datum.model_input.chunks.iter().map(|chunk| match chunk {
        Chunk::EncodedText { tokens } => 4 * tokens.len(),
        Chunk::Image { data, .. } => data.len(),
        Chunk::ImageAssetPointer { location, .. } => location.len(),
        Chunk::Dmel { dmel } => dmel.len(),
        _ => 0,
    });
    let tensor = |tensor: &TensorData| {
        let indices = tensor.sparse().map_or(0, |csr| csr.crow.len() + csr.col.len());
        match count {
            ByteCount::Memory => tensor.data().len() * tensor.dtype().size() + 8 * indices,
            ByteCount::TenAnElement => 10 * (tensor.data().len() + indices),
        }
    };
    input.sum::<usize>() + datum.loss_fn_inputs.values().map(tensor).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tinsmith_wire::{Data, ModelInput};

    use super::*;

    fn values(dtype: &Value, n: usize) -> Data {
        match dtype.as_str() {
            Some("int64") => vec![0i64; n].into(),
            _ => vec![0.0f32; n].into(),
        }
    }

    fn size(v: &Value) -> usize {
        v.as_u64().unwrap() as usize
    }

    /// A datum of the sizes that `spec` gives.
    fn datum(spec: &Value) -> Datum {
        let text = Chunk::from_tokens(vec![0; size(&spec["tokens"])]);
        let image = spec["image_bytes"].as_u64().map(|n| Chunk::Image {
            data: vec![0; n as usize].into(),
            format: "png".into(),
            expected_tokens: None,
            override_dimensions: None,
        });
        let mut datum = Datum::new([text].into_iter().chain(image).collect::<ModelInput>());
        for (name, spec) in spec["dense"].as_object().into_iter().flatten() {
            let tensor = TensorData::from_parts(values(&spec[0], size(&spec[1])), None, None);
            datum = datum.with(name, tensor.unwrap());
        }
        for (name, spec) in spec["csr"].as_object().into_iter().flatten() {
            let (rows, cols, listed) = (size(&spec[1]), size(&spec[2]), size(&spec[3]));
            // Filled row by row, as far as the values go.
            let crow: Vec<i64> = (0..=rows).map(|row| (row * cols).min(listed) as i64).collect();
            let col: Vec<i64> = (0..listed).map(|i| (i % cols) as i64).collect();
            let tensor = TensorData::csr(values(&spec[0], listed), crow, col, [rows, cols]);
            datum = datum.with(name, tensor.unwrap());
        }
        datum
    }

    #[test]
    fn chunks_are_those_of_the_sdk() {
        let cases = include_str!("../../../../tests/vectors/wire/chunking.json");
        for case in serde_json::from_str::<Vec<Value>>(cases).unwrap() {
            let data: Vec<Datum> = case["datums"].as_array().unwrap().iter().map(datum).collect();
            let bytes: Vec<usize> =
                data.iter().map(|datum| estimated_bytes(datum, ByteCount::Memory)).collect();
            assert_eq!(Value::from(bytes), case["estimated_bytes"], "{}", case["name"]);
            let limits = ChunkLimits {
                max_len: size(&case["max_chunk_len"]),
                max_bytes: size(&case["max_chunk_bytes"]),
            };
            let lengths: Vec<usize> =
                limits.split(&data, ByteCount::Memory).iter().map(Range::len).collect();
            assert_eq!(Value::from(lengths), case["expected_chunk_lens"], "{}", case["name"]);
        }
    }
}
