//! What replaces the nodes of a class, and what is left of the others.

use candle_core::{DType, Device};

use super::LEAST;
use super::chains::{Chains, Sign};
use super::classify::{Class, Classes, Kind, Operand, Place};
use crate::graph::caller::attribute;
use crate::graph::dims::Dims;
use crate::graph::op::Op;
use crate::graph::var::{Inputs, Var};
use crate::graph::walk::Graph;

pub(super) fn rewrite(graph: &Graph, classes: &Classes, roots: &[usize]) -> Vec<Var> {
    let mut rewriter = Rewriter {
        graph,
        classes,
        batched: vec![None; classes.classes.len()],
        alone: vec![None; graph.len()],
        chains: Chains::new(graph, classes, roots),
    };
    for at in 0..graph.len() {
        match classes.places[at] {
            Place::Member { class, .. } if rewriter.batched[class].is_none() => {
                let whole = attribute(graph.nodes[at].0.at, || rewriter.batch(at, class));
                rewriter.batched[class] = Some(whole);
            }
            Place::Member { .. } => {}
            Place::Kept | Place::Constant(_) => rewriter.alone[at] = Some(graph.nodes[at].clone()),
            Place::Alone if rewriter.chains.goes_on(at) => {}
            Place::Alone => {
                let single =
                    attribute(graph.nodes[at].0.at, || match rewriter.chains.ending_at(at) {
                        Some(links) => rewriter.add_up(at, &links),
                        None => rewriter.again(at),
                    });
                rewriter.alone[at] = Some(single);
            }
        }
    }
    roots.iter().map(|&root| rewriter.single(root)).collect()
}

struct Rewriter<'g> {
    graph: &'g Graph<'g>,
    classes: &'g Classes,
    /// By class, the values of all members: their rows one after another, or `[members]` numbers.
    batched: Vec<Option<Var>>,
    /// By node, its value on its own, where it has been needed.
    alone: Vec<Option<Var>>,
    chains: Chains,
}

impl Rewriter<'_> {
    fn whole(&self, class: usize) -> Var {
        self.batched[class].clone().expect("operands come first")
    }

    /// The value of node `at` for an op that is not batched.
    fn single(&mut self, at: usize) -> Var {
        if let Some(single) = &self.alone[at] {
            return single.clone();
        }
        let Place::Member { class, index } = self.classes.places[at] else {
            unreachable!("nodes on their own come before what uses them");
        };
        let node = self.graph.nodes[at];
        let single = attribute(node.0.at, || match self.classes.classes[class].kind {
            Kind::Pieces { .. } => node.clone(),
            Kind::Rows { space } => {
                let range = self.classes.spaces[space].range(index);
                self.whole(class).narrow(0, range.start, range.len())
            }
            Kind::Reduced { .. } | Kind::Numbers => {
                self.whole(class).narrow(0, index, 1).reshape(&[]).broadcast_to(node.shape())
            }
        });
        self.alone[at] = Some(single.clone());
        single
    }

    /// Node `at` as it was recorded, on the operands that there are now.
    fn again(&mut self, at: usize) -> Var {
        let node = self.graph.nodes[at];
        if let Op::Cat { dim: 0 } = node.0.op
            && let Some(joined) = self.join(at)
        {
            return joined;
        }
        let inputs: Vec<usize> = self.graph.inputs(at).collect();
        let inputs: Inputs = inputs.into_iter().map(|input| self.single(input)).collect();
        if inputs.iter().zip(&node.0.inputs).all(|(now, then)| now.0.id == then.0.id) {
            return node.clone();
        }
        let again = node.on(inputs, node.shape());
        match node.label_text() {
            Some(label) => again.label(label),
            None => again,
        }
    }

    /// The value of a `cat` of all sequences of a batch, or of many numbers.
    fn join(&self, at: usize) -> Option<Var> {
        let node = self.graph.nodes[at];
        let mut of = None;
        let mut indices = Vec::with_capacity(node.0.inputs.len());
        for input in self.graph.inputs(at) {
            match self.classes.places[input] {
                Place::Member { class, index } if *of.get_or_insert(class) == class => {
                    indices.push(index)
                }
                _ => return None,
            }
        }
        let class = of?;
        let joined = match self.classes.classes[class].kind {
            Kind::Pieces { space, .. } | Kind::Rows { space } => {
                let is_whole = indices.iter().copied().eq(0..self.classes.spaces[space].len());
                is_whole.then(|| self.whole(class))?
            }
            Kind::Reduced { .. } | Kind::Numbers => {
                let is_number = |input: &Var| input.elem_count() == 1;
                node.0.inputs.iter().all(is_number).then(|| self.gather(class, &indices))?
            }
        };
        Some(joined.reshape(node.shape()))
    }

    /// What replaces class `class`, of which `at` is a member.
    fn batch(&mut self, at: usize, class: usize) -> Var {
        let node = self.graph.nodes[at];
        let of = &self.classes.classes[class];
        match of.kind {
            Kind::Pieces { of, .. } => self.single(of as usize),
            Kind::Reduced { space } => {
                let Op::Reduce { op, dims } = &node.0.op else {
                    unreachable!("reductions only");
                };
                let rows = self.operand(of, 0);
                let trailing: Dims = (1..dims.len()).collect();
                let rows = match trailing.is_empty() {
                    true => rows,
                    false => rows.reduce(*op, Ok(trailing), false),
                };
                rows.segment_reduce(*op, &self.classes.spaces[space])
            }
            Kind::Rows { space } => {
                let mut shape = Dims::from_slice(node.shape());
                shape[0] = self.classes.spaces[space].rows();
                let inputs = (0..of.operands.len()).map(|i| self.operand(of, i)).collect();
                node.on(inputs, &shape)
            }
            Kind::Numbers => {
                let inputs = (0..of.operands.len()).map(|i| self.operand(of, i)).collect();
                node.on(inputs, &[of.members.len()])
            }
        }
    }

    /// Operand `i` of all members of a class.
    fn operand(&mut self, class: &Class, i: usize) -> Var {
        let of = match class.operands[i] {
            Operand::Shared(at) => {
                let shared = self.single(at as usize);
                // One element in any shape, where all that is computed is one number a member.
                return match class.kind {
                    Kind::Numbers => shared.reshape(&[]),
                    Kind::Pieces { .. } | Kind::Rows { .. } | Kind::Reduced { .. } => shared,
                };
            }
            Operand::Of(other) if self.classes.classes[other].kind.is_rows() => {
                return self.whole(other);
            }
            Operand::Of(other) => Some(other),
            Operand::Constant => None,
        };
        let member = self.graph.nodes[class.members[0] as usize];
        let places = class.members.iter().map(|&at| {
            let input = self.graph.inputs(at as usize).nth(i);
            self.classes.places[input.expect("members have the same operands")]
        });
        let numbers = match of {
            Some(other) => {
                let indices: Vec<usize> = places.filter_map(Place::index).collect();
                self.gather(other, &indices)
            }
            None => {
                let constants: Vec<f64> = places.filter_map(Place::constant).collect();
                let (dtype, device) = (member.0.inputs[i].dtype(), member.device());
                match constants.iter().all(|c| c.to_bits() == constants[0].to_bits()) {
                    true => return Var::literal(constants[0], &[], dtype, device),
                    false => vector(&constants, dtype, device),
                }
            }
        };
        match class.kind {
            Kind::Rows { space } => {
                let mut shape = Dims::from_elem(1, member.rank());
                shape[0] = class.members.len();
                numbers.reshape(&shape).segment_expand(&self.classes.spaces[space])
            }
            _ => numbers,
        }
    }

    /// Those members of a class of numbers: `[indices.len()]`.
    fn gather(&self, class: usize, indices: &[usize]) -> Var {
        let numbers = self.whole(class);
        let first = indices.first().copied().unwrap_or(0);
        if !indices.iter().copied().eq(first..first + indices.len()) {
            let indices: Vec<u32> = indices.iter().map(|&index| index as u32).collect();
            let len = indices.len();
            return numbers.index_select(&Var::from_vec(indices, &[len], numbers.device()), 0);
        }
        match indices.len() == numbers.elem_count() {
            true => numbers,
            false => numbers.narrow(0, first, indices.len()),
        }
    }

    /// The sum at the end of a chain of additions: what comes from one class is added up by one
    /// node.
    fn add_up(&mut self, end: usize, links: &[usize]) -> Var {
        let mut groups: Vec<(usize, Sign, Vec<usize>)> = Vec::new();
        let mut others = Vec::new();
        for (at, sign) in self.chains.terms(self.graph, links) {
            let Place::Member { class, index } = self.classes.places[at] else {
                // A loop begins at 0, which adds nothing.
                if self.classes.places[at] != Place::Constant(0.0) {
                    others.push((at, sign));
                }
                continue;
            };
            let same = |group: &&mut (usize, Sign, _)| (group.0, group.1) == (class, sign);
            match groups.iter_mut().find(same) {
                Some((.., indices)) => indices.push(index),
                None => groups.push((class, sign, vec![index])),
            }
        }
        if groups.iter().all(|(.., indices)| indices.len() < LEAST) {
            for &link in links {
                let single = self.again(link);
                self.alone[link] = Some(single);
            }
            return self.single(end);
        }
        let mut parts = Vec::with_capacity(others.len() + groups.len());
        for (at, sign) in others {
            parts.push((self.single(at), sign));
        }
        for (class, sign, indices) in groups {
            parts.push((self.gather(class, &indices).sum(), sign));
        }
        let joined = parts.into_iter().fold(None, |sum: Option<Var>, (part, sign)| {
            Some(match (sum, sign) {
                (None, Sign::Plus) => part,
                (None, Sign::Minus) => -part,
                (Some(sum), Sign::Plus) => sum + part,
                (Some(sum), Sign::Minus) => sum - part,
            })
        });
        let joined = joined.expect("the sums of the groups");
        joined.reshape(self.graph.nodes[end].shape())
    }
}

fn vector(numbers: &[f64], dtype: DType, device: &Device) -> Var {
    let shape = [numbers.len()];
    match dtype {
        DType::F32 => Var::from_vec(numbers.iter().map(|&x| x as f32).collect(), &shape, device),
        _ => Var::from_vec(numbers.to_vec(), &shape, device),
    }
}
