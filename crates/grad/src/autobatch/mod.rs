//! Loops over sequences, rewritten as ops on the whole batch.
//!
//! Who writes a loss as a loop records the same ops once for each sequence, on rows narrowed out of
//! packed tensors. Here such nodes are found and replaced by one node over the packed tensors: an
//! elementwise op stays what it is, the sum of a sequence becomes a sum by segment, a number for
//! each sequence an element of a vector, and the chain of additions that joins the sequences one
//! sum. Then there is as little to differentiate, plan and run as if the loss had been written for
//! [`Ragged`](crate::Ragged) batches. In the field this is known as dynamic batching or
//! autobatching (Neubig, Goldberg, Dyer, "On-the-fly operation batching in dynamic computation
//! graphs", 2017).
//!
//! [`classify`] decides which nodes do the same, [`rewrite`] records what replaces them. What does
//! not fit, because a sequence is left out or treated in another way, stays as it was recorded.

mod chains;
mod classify;
mod rewrite;

use crate::graph::var::Var;
use crate::graph::walk::Graph;

/// A graph has to do the same this often to be rewritten.
const LEAST: usize = 4;

/// Positions of nodes in the graph.
type At = u32;

/// `roots` (positions in `graph`) with loops over sequences rewritten, or `None` if there are none.
/// The nodes `kept` (positions too) are the same nodes in the rewritten graph.
pub(crate) fn autobatch(graph: &Graph, roots: &[usize], kept: &[usize]) -> Option<Vec<Var>> {
    let classes = classify::classify(graph, kept)?;
    let rewritten = rewrite::rewrite(graph, &classes, roots);
    let is_new = |(now, &then): (&Var, &usize)| now.0.id != graph.nodes[then].0.id;
    rewritten.iter().zip(roots).any(is_new).then_some(rewritten)
}

#[cfg(test)]
#[path = "../../tests/unit/autobatch.rs"]
mod tests;
