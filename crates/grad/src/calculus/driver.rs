use crate::calculus::vjp::{Cotangent, sum_to, vjp};
use crate::graph::caller::derivative;
use crate::graph::differentiable::is_differentiable;
use crate::graph::var::Var;
use crate::graph::walk::Graph;

/// The driver of every derivative: walks the graph once from the root and, of all it knows, only
/// where gradients add up and where they are needed. The rules are in `vjp.rs`.
pub(crate) fn differentiate(
    graph: &Graph,
    root: &Var,
    seed: &Var,
    wrt: &[&Var],
) -> Vec<Option<Var>> {
    let mut asked_for = vec![false; graph.len()];
    for at in wrt.iter().filter_map(|leaf| graph.position(leaf)) {
        asked_for[at] = true;
    }
    let mut needed = asked_for.clone();
    for at in 0..graph.len() {
        let var = graph.nodes[at];
        needed[at] = needed[at]
            || graph
                .inputs(at)
                .enumerate()
                .any(|(i, input)| needed[input] && is_differentiable(var, i));
    }

    let mut parts: Vec<Parts> = vec![Parts::default(); graph.len()];
    let mut gradients: Vec<Option<Var>> = vec![None; graph.len()];
    if let Some(root) = graph.position(root).filter(|&root| needed[root]) {
        parts[root].add(seed.clone());
    }
    for (at, var) in graph.nodes.iter().enumerate().rev() {
        let of = var.0.derivative_of.unwrap_or(var.0.op.name());
        let g = derivative(of, var.0.at, || {
            let g = std::mem::take(&mut parts[at]).sum(var.shape())?;
            if g.error().is_some() {
                return Some(g);
            }
            let inputs = graph.inputs(at).enumerate();
            for (i, input) in inputs.filter(|&(_, input)| needed[input]) {
                match vjp(var, i, &g) {
                    Some(Cotangent::Whole(part)) => {
                        parts[input].add(sum_to(&part, graph.nodes[input].shape()))
                    }
                    Some(Cotangent::Rows { dim, start, rows }) => {
                        parts[input].add_rows(dim, start, rows)
                    }
                    None => {}
                }
            }
            Some(g)
        });
        // Nothing follows from a gradient that was refused; it has not even a shape.
        if let Some(refused) = g.as_ref().filter(|g| g.error().is_some()) {
            return vec![Some(refused.clone()); wrt.len()];
        }
        if asked_for[at] {
            gradients[at] = g;
        }
    }
    wrt.iter().map(|leaf| graph.position(leaf).and_then(|at| gradients[at].clone())).collect()
}

/// The contributions to one gradient.
#[derive(Clone, Default)]
struct Parts {
    whole: Option<Var>,
    /// Rows that begin at an offset along a dimension. Kept apart, because a batch that was taken
    /// apart into a thousand sequences is put together by one `cat`, not by a thousand additions to
    /// the whole.
    rows: Vec<(usize, usize, Var)>,
}

impl Parts {
    fn add(&mut self, part: Var) {
        self.whole = Some(match self.whole.take() {
            Some(sum) => sum + part,
            None => part,
        });
    }

    fn add_rows(&mut self, dim: usize, start: usize, rows: Var) {
        self.rows.push((dim, start, rows));
    }

    /// The sum, in `shape`.
    fn sum(mut self, shape: &[usize]) -> Option<Var> {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by_key(|(dim, start, part)| (*dim, *start, part.shape()[*dim]));
        rows.dedup_by(|(dim, start, part), (last_dim, last_start, sum)| {
            let is_same = (*dim, *start) == (*last_dim, *last_start) && part.shape() == sum.shape();
            if is_same {
                *sum = &*sum + &*part;
            }
            is_same
        });
        // Layers of rows that do not overlap; mostly there is one.
        while let Some(&(dim, ..)) = rows.first() {
            let mut pieces = Vec::with_capacity(rows.len());
            let mut overlapping = Vec::new();
            let mut end = 0;
            let gap = |from: usize, to: usize, like: &Var| {
                let mut shape = shape.to_vec();
                shape[dim] = to - from;
                Var::literal(0.0, &shape, like.dtype(), like.device())
            };
            for (d, start, part) in rows {
                if d != dim || start < end {
                    overlapping.push((d, start, part));
                    continue;
                }
                if start > end {
                    pieces.push(gap(end, start, &part));
                }
                end = start + part.shape()[dim];
                pieces.push(part);
            }
            if end < shape[dim] {
                pieces.push(gap(end, shape[dim], &pieces[0]));
            }
            self.add(match pieces.len() {
                1 => pieces.remove(0),
                _ => Var::cat(&pieces, dim as isize),
            });
            rows = overlapping;
        }
        self.whole
    }
}
