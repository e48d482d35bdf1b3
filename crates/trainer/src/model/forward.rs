//! The decoder's forward pass, written once in `Var` math: training differentiates it, sampling
//! evaluates it step by step over a cache.

use tinsmith_grad::{Device, Var};

use super::layout::Layout;
use super::lora::{Lora, Projection, Site};
use super::weights::{Layer, Linear, Model};

/// Keys and values of one layer, `[batch, kv_heads, tokens, head_dim]` each, keys already rotated.
#[derive(Clone)]
pub(crate) struct KeyValues {
    pub(crate) keys: Var,
    pub(crate) values: Var,
}

impl Model {
    /// Hidden states after the last norm, `[rows, hidden]`, of packed `tokens`.
    ///
    /// `cache` holds one entry a layer once the first pass has filled it; each pass appends to it.
    pub(crate) fn hidden(
        &self,
        lora: Lora,
        tokens: &[u32],
        layout: &Layout,
        mut cache: Option<&mut Vec<KeyValues>>,
    ) -> Var {
        let ids = Var::from_vec(tokens.to_vec(), &[tokens.len()], &Device::Cpu);
        let mut x = self.embed.index_select(&ids, 0);
        for (i, layer) in self.layers.iter().enumerate() {
            let linear = |p, x: &Var| {
                let Linear { weight, bias } = layer.projection(p);
                let y = lora.linear(Site::Layer(i, p), weight, x);
                match bias {
                    Some(bias) => y + bias,
                    None => y,
                }
            };
            let normed = self.rms_norm(&x, &layer.input_norm);
            x = x + self.attention(layer, &linear, &normed, layout, i, cache.as_deref_mut());
            let normed = self.rms_norm(&x, &layer.mlp_norm);
            let gate = linear(Projection::Gate, &normed).silu();
            x = x + linear(Projection::Down, &(gate * linear(Projection::Up, &normed)));
        }
        self.rms_norm(&x, &self.norm)
    }

    /// Unnormalized log-probabilities of the next token, `[rows, vocab]`.
    pub(crate) fn logits(&self, lora: Lora, hidden: &Var) -> Var {
        lora.linear(Site::Unembed, &self.unembed, hidden)
    }

    fn attention(
        &self,
        layer: &Layer,
        linear: &impl Fn(Projection, &Var) -> Var,
        x: &Var,
        layout: &Layout,
        index: usize,
        cache: Option<&mut Vec<KeyValues>>,
    ) -> Var {
        let c = &self.config;
        let (heads, kv, dim, group) =
            (c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.group());
        let (batch, width, rows) = (layout.batch, layout.width, x.shape()[0]);

        let q = linear(Projection::Query, x).reshape(&[rows, heads, dim]);
        let k = linear(Projection::Key, x).reshape(&[rows, kv, dim]);
        let v = linear(Projection::Value, x);
        let (q, k) = match &layer.head_norms {
            Some(norms) => (self.rms_norm(&q, &norms.query), self.rms_norm(&k, &norms.key)),
            None => (q, k),
        };
        let q = rope(&q, layout) * (dim as f64).powf(-0.5);
        let k = rope(&k, layout);

        let rectangle = |packed: Var| match &layout.fill {
            Some(fill) => packed.index_select(&fill.to_rectangle, 0),
            None => packed,
        };
        // Query head h shares key head h / group, so the group's rows can stand below each other:
        // [batch, kv, group * width, dim].
        let q = rectangle(q)
            .reshape(&[batch, width, kv, group, dim])
            .permute(&[0, 2, 3, 1, 4])
            .reshape(&[batch, kv, group * width, dim]);
        let by_head =
            |packed: Var| rectangle(packed).reshape(&[batch, width, kv, dim]).transpose(1, 2);
        let mut all = KeyValues { keys: by_head(k), values: by_head(v) };
        if let Some(cache) = cache {
            match cache.get_mut(index) {
                Some(past) => {
                    all = KeyValues {
                        keys: Var::cat(&[past.keys.clone(), all.keys], 2),
                        values: Var::cat(&[past.values.clone(), all.values], 2),
                    };
                    *past = all.clone();
                }
                None => cache.push(all.clone()),
            }
        }

        let scores = q.matmul(&all.keys.transpose(2, 3));
        let probs = match &layout.mask {
            Some(mask) => (scores.reshape(&[batch, kv, group, width, width]) + mask)
                .softmax(-1)
                .reshape(&[batch, kv, group * width, width]),
            None => scores.softmax(-1),
        };
        let mixed = probs
            .matmul(&all.values)
            .reshape(&[batch, kv, group, width, dim])
            .permute(&[0, 3, 1, 2, 4])
            .reshape(&[batch * width, heads * dim]);
        let packed = match &layout.fill {
            Some(fill) => mixed.index_select(&fill.to_packed, 0),
            None => mixed,
        };
        linear(Projection::Output, &packed)
    }

    /// `x / sqrt(mean(x²) + eps) * weight` over the last dimension.
    fn rms_norm(&self, x: &Var, weight: &Var) -> Var {
        let mean_square = x.square().mean_keepdim(&[-1]);
        x * (mean_square + self.config.rms_norm_eps).rsqrt() * weight
    }
}

/// Rotary embedding of `x [rows, heads, head_dim]`: the pair `(x[i], x[i + half])` turns by its
/// position's angle `i`.
fn rope(x: &Var, layout: &Layout) -> Var {
    let half = x.shape().last().map_or(0, |dim| dim / 2) as isize;
    x * &layout.cos + x.roll(half, -1) * &layout.sin
}

/// Log-probabilities of `targets` under `logits [rows, vocab]`: `[rows, k]` for `rows * k` targets,
/// row-major.
pub(crate) fn logprobs(logits: &Var, targets: &[u32]) -> Var {
    let rows = logits.shape().first().copied().unwrap_or(0);
    let shape = [rows, targets.len() / rows.max(1)];
    let targets = Var::from_vec(targets.to_vec(), &shape, &Device::Cpu);
    logits.gather(&targets, -1) - logits.logsumexp_keepdim(-1)
}
