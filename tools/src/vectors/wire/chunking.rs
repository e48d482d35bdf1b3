//! Where a batch is divided into requests.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use tinsmith_client::ChunkLimits;
use tinsmith_wire::{Chunk, Data, Datum, ModelInput, TensorData};

use super::read;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    max_chunk_len: usize,
    max_chunk_bytes: usize,
    datums: Vec<Sizes>,
    estimated_bytes: Vec<usize>,
    expected_chunk_lens: Vec<usize>,
    expected_chunk_bytes: Vec<usize>,
}

/// A datum by its sizes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sizes {
    tokens: usize,
    image_bytes: Option<usize>,
    #[serde(default)]
    dense: BTreeMap<String, (String, usize)>,
    /// dtype, rows, columns, listed values
    #[serde(default)]
    csr: BTreeMap<String, (String, usize, usize, usize)>,
}

pub fn check(case: &Value, _: &Path) -> Result<()> {
    let case: Case = read(case)?;
    let data = case.datums.iter().map(datum).collect::<Result<Vec<_>>>()?;
    let bytes: Vec<usize> = data.iter().map(ChunkLimits::estimated_bytes).collect();
    ensure!(
        bytes == case.estimated_bytes,
        "estimated bytes {bytes:?}, want {:?}",
        case.estimated_bytes
    );
    let limits = ChunkLimits::default().max_len(case.max_chunk_len).max_bytes(case.max_chunk_bytes);
    let chunks = limits.ranges(&data);
    ensure!(
        chunks.iter().flat_map(Clone::clone).eq(0..data.len()),
        "chunks {chunks:?} do not cover the data in order"
    );
    let lens: Vec<usize> = chunks.iter().map(ExactSizeIterator::len).collect();
    ensure!(
        lens == case.expected_chunk_lens,
        "lengths {lens:?}, want {:?}",
        case.expected_chunk_lens
    );
    let sums: Vec<usize> = chunks.into_iter().map(|chunk| bytes[chunk].iter().sum()).collect();
    ensure!(
        sums == case.expected_chunk_bytes,
        "bytes {sums:?}, want {:?}",
        case.expected_chunk_bytes
    );
    Ok(())
}

fn datum(sizes: &Sizes) -> Result<Datum> {
    let text = Chunk::from_tokens(vec![0; sizes.tokens]);
    let image = sizes.image_bytes.map(|n| Chunk::Image {
        data: vec![0; n].into(),
        format: "png".into(),
        expected_tokens: None,
        override_dimensions: None,
    });
    let mut datum = Datum::new([text].into_iter().chain(image).collect::<ModelInput>());
    for (name, (dtype, n)) in &sizes.dense {
        datum = datum.with(name, TensorData::from(zeros(dtype, *n)?));
    }
    for (name, (dtype, rows, cols, listed)) in &sizes.csr {
        // Filled row by row, as far as the values go.
        let crow: Vec<i64> = (0..=*rows).map(|row| (row * cols).min(*listed) as i64).collect();
        let col: Vec<i64> = (0..*listed).map(|i| (i % cols) as i64).collect();
        let tensor = TensorData::csr(zeros(dtype, *listed)?, crow, col, [*rows, *cols])?;
        datum = datum.with(name, tensor);
    }
    Ok(datum)
}

fn zeros(dtype: &str, n: usize) -> Result<Data> {
    Ok(match dtype {
        "int64" => vec![0i64; n].into(),
        "float32" => vec![0.0f32; n].into(),
        other => bail!("unknown dtype `{other}`"),
    })
}
