use std::ops::Range;

use candle_core::DType;

use crate::graph::differentiable::is_differentiable;
use crate::graph::op::{Leaf, Op};
use crate::graph::var::Var;
use crate::graph::walk::Graph;

/// Which rows of `leaf` the gradient of `root` can reach, by the structure of the graph: sorted,
/// disjoint ranges of its first dimension. No values are computed, so a row whose gradient happens
/// to be 0 counts as reached.
///
/// With it a training step can tell a sequence that the loss forgot from one that has nothing to
/// learn.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var, reached_rows};
/// let packed = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0, 5.0], &[5], &Device::Cpu);
/// let seqs = Ragged::new(packed.clone(), &[2, 2, 1]).seqs();
/// let loss = seqs[0].sum() + seqs[2].exp().sum();
/// assert_eq!(reached_rows(&loss, &packed), [0..2, 4..5]);
/// ```
pub fn reached_rows(root: &Var, leaf: &Var) -> Vec<Range<usize>> {
    let graph = Graph::reaching([root]);
    let mut demand: Vec<Rows> = vec![Rows::default(); graph.len()];
    if let Some(last) = demand.last_mut() {
        *last = Rows::all(root);
    }
    for at in (0..graph.len()).rev() {
        let var = graph.nodes[at];
        let rows = std::mem::take(&mut demand[at]);
        if var.0.id == leaf.0.id {
            return rows.normalized();
        }
        for (i, input) in graph.inputs(at).enumerate() {
            if is_differentiable(var, i) && !rows.0.is_empty() {
                demand[input].join(through(var, i, &rows));
            }
        }
    }
    Vec::new()
}

/// A set of row numbers of one node's first dimension. A scalar has one row.
#[derive(Clone, Default)]
pub(crate) struct Rows(pub(crate) Vec<Range<usize>>);

impl Rows {
    fn all(var: &Var) -> Rows {
        let end = var.shape().first().copied().unwrap_or(1);
        Rows(std::iter::once(0..end).collect())
    }

    fn map(&self, f: impl Fn(&Range<usize>) -> Range<usize>) -> Rows {
        Rows(self.0.iter().map(f).filter(|r| !r.is_empty()).collect())
    }

    /// The rows inside of `window`, counted from its start.
    fn within(&self, window: Range<usize>) -> Rows {
        let clip = |row: usize| row.clamp(window.start, window.end) - window.start;
        self.map(|r| clip(r.start)..clip(r.end))
    }

    fn shifted(&self, by: usize) -> Rows {
        self.map(|r| r.start + by..r.end + by)
    }

    /// Adds the rows of `more`.
    pub(crate) fn join(&mut self, more: Rows) {
        self.0.extend(more.0);
        self.normalize();
    }

    fn normalize(&mut self) {
        self.0.retain(|r| !r.is_empty());
        self.0.sort_unstable_by_key(|r| r.start);
        self.0.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
    }

    fn normalized(mut self) -> Vec<Range<usize>> {
        self.normalize();
        self.0
    }
}

/// The rows of input `i` that the rows `rows` of `y` depend on; all of them where the op mixes
/// rows.
pub(crate) fn through(y: &Var, i: usize, rows: &Rows) -> Rows {
    let x = &y.0.inputs[i];
    let same = || {
        if x.shape().first() == y.shape().first() { rows.clone() } else { Rows::all(x) }
    };
    match &y.0.op {
        Op::Leaf(_) | Op::Full(_) | Op::Invalid(_) => Rows::default(),
        Op::Cast | Op::Unary(_) | Op::Reshape | Op::Detach => same(),
        Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Broadcast if x.rank() == y.rank() => {
            same()
        }
        Op::Reduce { dims, .. } if !dims.contains(&0) => same(),
        Op::Permute(dims) if dims.first() == Some(&0) => same(),
        Op::Flip(dims) if !dims.contains(&0) => same(),
        Op::MatMul if i == 0 && y.rank() == 2 => same(),
        Op::CumSum { dim } | Op::ScatterAdd { dim } | Op::IndexAdd { dim } | Op::Gather { dim }
            if *dim != 0 =>
        {
            same()
        }
        Op::Narrow { dim: 0, start } => rows.shifted(*start),
        Op::Pad { dim: 0, before } => rows.within(*before..before + x.shape()[0]),
        Op::Narrow { .. } | Op::Pad { .. } => same(),
        Op::Cat { dim: 0 } => {
            let start: usize = y.0.inputs[..i].iter().map(|v| v.shape()[0]).sum();
            rows.within(start..start + x.shape()[0])
        }
        Op::Cat { .. } => same(),
        Op::IndexSelect { dim: 0 } => {
            selected(&y.0.inputs[1], rows).unwrap_or_else(|| Rows::all(x))
        }
        Op::IndexSelect { .. } => same(),
        Op::SegmentReduce { segments, .. } => {
            let offsets = segments.offsets();
            rows.map(|r| offsets[r.start]..offsets[r.end])
        }
        Op::SegmentExpand(segments) => {
            rows.map(|r| segments.owner(r.start)..segments.owner(r.end - 1) + 1)
        }
        Op::Binary(_)
        | Op::Compare(_)
        | Op::Select
        | Op::Broadcast
        | Op::Reduce { .. }
        | Op::Permute(_)
        | Op::Flip(_)
        | Op::MatMul
        | Op::CumSum { .. }
        | Op::Gather { .. }
        | Op::ScatterAdd { .. }
        | Op::IndexAdd { .. }
        | Op::Custom(_) => Rows::all(x),
    }
}

/// The rows that a constant index picks at positions `rows`, if the index is a constant.
fn selected(index: &Var, rows: &Rows) -> Option<Rows> {
    let Op::Leaf(Leaf::Tensor(tensor)) = &index.0.op else {
        return None;
    };
    let index = tensor.0.to_dtype(DType::I64).ok()?.to_vec1::<i64>().ok()?;
    let picked =
        rows.0.iter().flat_map(|r| &index[r.clone()]).map(|&row| usize::try_from(row).ok());
    let picked = picked.map(|row| row.map(|row| row..row + 1)).collect::<Option<Vec<_>>>()?;
    Some(Rows(Rows(picked).normalized()))
}
