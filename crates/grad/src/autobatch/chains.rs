//! Chains of additions: how a loop adds the sequences up.

use super::classify::{Classes, Place};
use crate::graph::op::{BinaryOp, Op};
use crate::graph::var::Var;
use crate::graph::walk::Graph;

/// Additions and subtractions of single numbers, of which each is used by the next and by nothing
/// else.
pub(super) struct Chains {
    /// For each node the link before it.
    previous: Vec<Option<usize>>,
    goes_on: Vec<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Plus,
    Minus,
}

impl Chains {
    pub(super) fn new(graph: &Graph, classes: &Classes, roots: &[usize]) -> Chains {
        let mut uses = vec![0u32; graph.len()];
        let inputs = (0..graph.len()).flat_map(|at| graph.inputs(at));
        inputs.chain(roots.iter().copied()).for_each(|at| uses[at] += 1);

        let is_link = |at: usize| {
            classes.places[at] == Place::Alone && sign_of_second(graph.nodes[at]).is_some()
        };
        let mut chains =
            Chains { previous: vec![None; graph.len()], goes_on: vec![false; graph.len()] };
        for at in (0..graph.len()).filter(|&at| is_link(at)) {
            let is_subtraction = sign_of_second(graph.nodes[at]) == Some(Sign::Minus);
            let continued = graph.inputs(at).take(if is_subtraction { 1 } else { 2 });
            let previous = continued.into_iter().find(|&input| uses[input] == 1 && is_link(input));
            chains.previous[at] = previous;
            if let Some(previous) = previous {
                chains.goes_on[previous] = true;
            }
        }
        chains
    }

    /// Whether node `at` is a link with another after it.
    pub(super) fn goes_on(&self, at: usize) -> bool {
        self.goes_on[at]
    }

    /// The links of the chain that ends with node `at`, first to last, if there are several.
    pub(super) fn ending_at(&self, at: usize) -> Option<Vec<usize>> {
        self.previous[at]?;
        let mut links: Vec<usize> =
            std::iter::successors(Some(at), |&link| self.previous[link]).collect();
        links.reverse();
        Some(links)
    }

    /// What the `links` of a chain add and subtract.
    pub(super) fn terms(&self, graph: &Graph, links: &[usize]) -> Vec<(usize, Sign)> {
        let mut terms = Vec::with_capacity(links.len() + 1);
        for &link in links {
            let signs = [Sign::Plus, sign_of_second(graph.nodes[link]).unwrap_or(Sign::Plus)];
            let operands = graph.inputs(link).zip(signs);
            terms.extend(operands.filter(|&(operand, _)| Some(operand) != self.previous[link]));
        }
        terms
    }
}

/// The sign of the second operand of an addition or subtraction of numbers.
fn sign_of_second(var: &Var) -> Option<Sign> {
    match var.0.op {
        Op::Binary(BinaryOp::Add) if var.elem_count() == 1 => Some(Sign::Plus),
        Op::Binary(BinaryOp::Sub) if var.elem_count() == 1 => Some(Sign::Minus),
        _ => None,
    }
}
