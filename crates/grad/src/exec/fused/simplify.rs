//! A kernel's values before it is compiled: each computed once, and in as few instructions as there are for it.
//!
//! Derivatives repeat much of what the forward pass has, and wrap it in factors of one and minus one. Every rule here keeps
//! the bits of what it rewrites.

use rustc_hash::FxHashMap;

use super::compile::node_of;
use super::program::{Arg, Kernel, KernelOp, Node, Outcome, Then};
use super::vmath::{Binary, Unary};
use crate::op::ReduceOp;

/// The nodes that remain of a kernel, operands first, and its results in terms of them.
pub(super) fn simplified(kernel: &Kernel) -> (Vec<Node>, Vec<Outcome>) {
    let mut values = Values::default();
    let mut renamed = Vec::with_capacity(kernel.nodes.len());
    for node in &kernel.nodes {
        let node = node.with(|arg| rename(arg, &renamed));
        renamed.push(values.add(node));
    }
    let results = kernel.results.iter();
    let mut results: Vec<Outcome> = results
        .map(|result| result.with(|arg| rename(arg, &renamed)))
        .collect();
    values.reduce_products(&mut results);
    values.keep_needed(results)
}

fn rename(arg: Arg, names: &[Arg]) -> Arg {
    match arg {
        Arg::Node(node) => names[node as usize],
        other => other,
    }
}

#[derive(Default)]
struct Values {
    nodes: Vec<Node>,
    seen: FxHashMap<Node, u32>,
}

impl Values {
    /// The value of `node`, by the simplest means.
    fn add(&mut self, node: Node) -> Arg {
        let [a, b, c, d] = node.args;
        match node.op {
            KernelOp::Copy if node_of(&a).is_some() => a,
            KernelOp::Unary(Unary::Neg) => self.negative(a),
            KernelOp::Binary(Binary::Mul) => self.product(a, b),
            KernelOp::Binary(Binary::Div) if is_constant(b, 1.0) => a,
            KernelOp::Binary(Binary::Add) => match (self.negated(a), self.negated(b)) {
                (_, Some(b)) => self.binary(Binary::Sub, a, b),
                (Some(a), _) => self.binary(Binary::Sub, b, a),
                _ => self.binary(Binary::Add, a.min(b), a.max(b)),
            },
            KernelOp::Binary(Binary::Sub) => match self.negated(b) {
                Some(b) => self.add(Node::binary(Binary::Add, a, b)),
                None => self.binary(Binary::Sub, a, b),
            },
            KernelOp::Select => match self.comparison(a) {
                Some((op, [x, y])) => self.choice(op, [x, y, b, c]),
                None => self.push(node),
            },
            KernelOp::Choose(op, Then::Nothing) => self.choice(op, [a, b, c, d]),
            _ => self.push(node),
        }
    }

    fn product(&mut self, a: Arg, b: Arg) -> Arg {
        match (self.negated(a), self.negated(b)) {
            _ if is_constant(a, 1.0) => b,
            _ if is_constant(b, 1.0) => a,
            _ if is_constant(a, -1.0) => self.negative(b),
            _ if is_constant(b, -1.0) => self.negative(a),
            (Some(a), Some(b)) => self.product(a, b),
            (Some(a), None) => {
                let product = self.product(a, b);
                self.negative(product)
            }
            (None, Some(b)) => {
                let product = self.product(a, b);
                self.negative(product)
            }
            (None, None) => self.binary(Binary::Mul, a.min(b), a.max(b)),
        }
    }

    fn negative(&mut self, a: Arg) -> Arg {
        let again = self.negated(a);
        again.unwrap_or_else(|| self.push(Node::new(KernelOp::Unary(Unary::Neg), &[a])))
    }

    /// A choice, and what is done to the value that it takes if the comparison holds.
    fn choice(&mut self, op: Binary, args: [Arg; 4]) -> Arg {
        let [a, b, x, y] = args;
        let (then, x) = node_of(&x)
            .and_then(|x| then(&self.nodes[x]))
            .unwrap_or((Then::Nothing, x));
        self.push(Node::new(KernelOp::Choose(op, then), &[a, b, x, y]))
    }

    fn binary(&mut self, op: Binary, a: Arg, b: Arg) -> Arg {
        self.push(Node::binary(op, a, b))
    }

    fn push(&mut self, node: Node) -> Arg {
        let Values { nodes, seen } = self;
        Arg::Node(*seen.entry(node).or_insert_with(|| {
            nodes.push(node);
            nodes.len() as u32 - 1
        }))
    }

    /// What `arg` is the negative of.
    fn negated(&self, arg: Arg) -> Option<Arg> {
        let node = &self.nodes[node_of(&arg)?];
        (node.op == KernelOp::Unary(Unary::Neg)).then_some(node.args[0])
    }

    /// The comparison that `mask` is of.
    fn comparison(&self, mask: Arg) -> Option<(Binary, [Arg; 2])> {
        let node = &self.nodes[node_of(&mask)?];
        match node.op {
            KernelOp::Binary(op) if op.is_comparison() => Some((op, [node.args[0], node.args[1]])),
            _ => None,
        }
    }

    /// Sums of products that nothing else needs are formed without the products.
    fn reduce_products(&self, results: &mut [Outcome]) {
        let mut uses = vec![0; self.nodes.len()];
        let operands = self.nodes.iter().flat_map(|node| &node.args);
        let reduced: Vec<Arg> = results.iter().flat_map(|result| result.values()).collect();
        let used = operands.chain(&reduced).filter_map(node_of);
        used.for_each(|value| uses[value] += 1);
        for result in results {
            if let Outcome::Reduce {
                op: ReduceOp::Sum,
                rows,
                value,
            } = *result
                && let Some(value) = node_of(&value)
                && uses[value] == 1
                && self.nodes[value].op == KernelOp::Binary(Binary::Mul)
            {
                let [a, b, ..] = self.nodes[value].args;
                *result = Outcome::Dot { rows, a, b };
            }
        }
    }

    /// Leaves out what no result needs.
    fn keep_needed(self, results: Vec<Outcome>) -> (Vec<Node>, Vec<Outcome>) {
        let mut is_needed = vec![false; self.nodes.len()];
        let values = results.iter().flat_map(|result| result.values());
        values
            .filter_map(|value| node_of(&value))
            .for_each(|node| is_needed[node] = true);
        for (at, node) in self.nodes.iter().enumerate().rev() {
            if is_needed[at] {
                let operands = node.args.iter().filter_map(node_of);
                operands.for_each(|operand| is_needed[operand] = true);
            }
        }
        let mut kept = Vec::new();
        let mut names = Vec::with_capacity(self.nodes.len());
        for (node, is_needed) in self.nodes.iter().zip(is_needed) {
            names.push(Arg::Node(kept.len() as u32));
            if is_needed {
                kept.push(node.with(|arg| rename(arg, &names)));
            }
        }
        let results = results
            .iter()
            .map(|result| result.with(|arg| rename(arg, &names)));
        let results = results.collect();
        (kept, results)
    }
}

/// `node` as something that a choice can do to another value.
fn then(node: &Node) -> Option<(Then, Arg)> {
    match (node.op, node.args) {
        (KernelOp::Unary(Unary::Neg), [x, ..]) => Some((Then::Neg, x)),
        (KernelOp::Binary(Binary::Minimum), [x, Arg::Constant(bound), ..]) => {
            Some((Then::Minimum(bound), x))
        }
        (KernelOp::Binary(Binary::Maximum), [x, Arg::Constant(bound), ..]) => {
            Some((Then::Maximum(bound), x))
        }
        _ => None,
    }
}

fn is_constant(arg: Arg, value: f64) -> bool {
    arg == Arg::Constant(value.to_bits())
}
