//! How the tokens of several sequences are arranged for one pass.
//!
//! Rows of all sequences are packed one after another, so nothing is computed on padding; only
//! attention, which needs a rectangle, sees the sequences side by side, the shorter ones filled up.
//! The causal mask keeps that filling out of every real row.

use tinsmith_grad::{DType, Device, Var};

use super::config::ModelConfig;
use super::rope;

/// `exp` of it is zero, at no cost. Every row has its diagonal, so the maximum that softmax
/// subtracts is finite.
const MASKED: f64 = f64::NEG_INFINITY;

pub(crate) struct Layout {
    /// Number of sequences.
    pub(crate) batch: usize,
    /// Rows of the longest sequence.
    pub(crate) width: usize,
    /// Present when the sequences differ in length.
    pub(crate) fill: Option<Fill>,
    /// `[width, width]`, added to the scores; absent when a row may attend to every key.
    pub(crate) mask: Option<Var>,
    /// `[rows, 1, head_dim]`
    pub(crate) cos: Var,
    /// `[rows, 1, head_dim]`, negative in the first half (see `rope`).
    pub(crate) sin: Var,
}

/// Index vectors between packed rows and the rectangle.
pub(crate) struct Fill {
    /// `[batch * width]`: the packed row of each cell, the last one repeated where a sequence has
    /// ended.
    pub(crate) to_rectangle: Var,
    /// `[rows]`: the cell of each packed row.
    pub(crate) to_packed: Var,
}

impl Layout {
    /// Whole sequences of these lengths (none of them zero), from position 0.
    pub(crate) fn whole(lengths: &[usize], config: &ModelConfig, dtype: DType) -> Self {
        let width = lengths.iter().copied().max().unwrap_or(0);
        let (cos, sin) = rotary(lengths.iter().flat_map(|&n| 0..n), config, dtype);
        Self {
            batch: lengths.len(),
            width,
            fill: lengths.iter().any(|&n| n != width).then(|| fill(lengths, width)),
            mask: (width > 1).then(|| causal(width, dtype)),
            cos,
            sin,
        }
    }

    /// One more token for each of `batch` sequences, all of them `position` tokens long so far.
    pub(crate) fn step(batch: usize, position: usize, config: &ModelConfig, dtype: DType) -> Self {
        let (cos, sin) = rotary(std::iter::repeat_n(position, batch), config, dtype);
        Self { batch, width: 1, fill: None, mask: None, cos, sin }
    }
}

fn fill(lengths: &[usize], width: usize) -> Fill {
    let rows = lengths.iter().sum();
    let mut to_rectangle = Vec::with_capacity(lengths.len() * width);
    let mut to_packed: Vec<u32> = Vec::with_capacity(rows);
    let mut start = 0;
    for (i, &len) in lengths.iter().enumerate() {
        to_rectangle.extend((0..width).map(|t| (start + t.min(len - 1)) as u32));
        to_packed.extend((0..len).map(|t| (i * width + t) as u32));
        start += len;
    }
    let index = |v: Vec<u32>| {
        let shape = [v.len()];
        Var::from_vec(v, &shape, &Device::Cpu)
    };
    Fill { to_rectangle: index(to_rectangle), to_packed: index(to_packed) }
}

fn causal(width: usize, dtype: DType) -> Var {
    let cell = |i: usize| if i % width > i / width { MASKED } else { 0.0 };
    let mask = (0..width * width).map(cell).collect();
    constant(mask, &[width, width], dtype)
}

/// Cosines and signed sines of the rotary embedding.
fn rotary(
    positions: impl Iterator<Item = usize>,
    config: &ModelConfig,
    dtype: DType,
) -> (Var, Var) {
    let frequencies = rope::frequencies(config);
    let (mut cos, mut sin) = (Vec::new(), Vec::new());
    for position in positions {
        let angles = frequencies.iter().map(|f| f * position as f64);
        for sign in [-1.0, 1.0] {
            cos.extend(angles.clone().map(f64::cos));
            sin.extend(angles.clone().map(|angle| sign * angle.sin()));
        }
    }
    let shape = [cos.len() / config.head_dim, 1, config.head_dim];
    (constant(cos, &shape, dtype), constant(sin, &shape, dtype))
}

fn constant(data: Vec<f64>, shape: &[usize], dtype: DType) -> Var {
    match dtype {
        DType::F64 => Var::from_vec(data, shape, &Device::Cpu),
        _ => Var::from_vec(
            data.into_iter().map(|x| x as f32).collect::<Vec<f32>>(),
            shape,
            &Device::Cpu,
        ),
    }
}
