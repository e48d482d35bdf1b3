//! A kernel's values before it is compiled: each computed once, and in as few instructions as there
//! are for it.
//!
//! Derivatives repeat much of what the forward pass has, and wrap it in factors of one and minus
//! one. Every rule here keeps the bits of what it rewrites.

#[cfg(test)]
#[path = "../../../tests/unit/simplify.rs"]
mod tests;

use rustc_hash::FxHashMap;

use super::program::{Arg, Kernel, KernelOp, Node, Output};
use crate::exec::math::{Step, Then};
use crate::graph::op::{BinaryOp, CompareOp, Number, ReduceOp, UnaryOp};

/// The nodes that remain of a kernel, operands first, and its results in terms of them.
pub(super) fn simplified(kernel: &Kernel) -> (Vec<Node>, Vec<Output>) {
    let mut values = Values::default();
    let mut renamed = Vec::with_capacity(kernel.nodes.len());
    for node in &kernel.nodes {
        let node = node.with(|arg| rename(arg, &renamed));
        renamed.push(values.add(node));
    }
    let results = kernel.outputs.iter();
    let mut results: Vec<Output> =
        results.map(|result| result.with(|arg| rename(arg, &renamed))).collect();
    values.reduce_products(&mut results);
    values.pair_steps(&results);
    values.keep_needed(results)
}

fn rename(arg: Arg, names: &[Arg]) -> Arg {
    match arg {
        Arg::Node(node) => names[node as usize],
        other => other,
    }
}

type Comparison = (CompareOp, [Arg; 2]);

/// So many steps of arithmetic before a choice are searched for the same choice.
const DEEPEST: u32 = 4;

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
            KernelOp::Copy if a.node().is_some() => a,
            KernelOp::Unary(UnaryOp::Neg) => self.negative(a),
            KernelOp::Unary(UnaryOp::Exp) => {
                let exponent = self.but_for_zero(a);
                self.push(Node::new(node.op, &[exponent]))
            }
            KernelOp::Unary(UnaryOp::Powf { exponent }) => match exponent.get() {
                2.0 => self.push(Node::new(KernelOp::Unary(UnaryOp::Square), &[a])),
                -1.0 => self.push(Node::new(KernelOp::Unary(UnaryOp::Recip), &[a])),
                _ => self.push(node),
            },
            KernelOp::Binary(BinaryOp::Mul) => self.product(a, b),
            KernelOp::Binary(BinaryOp::Div) if is_constant(b, 1.0) => a,
            KernelOp::Binary(BinaryOp::Add) => match (self.negated(a), self.negated(b)) {
                (_, Some(b)) => self.binary(BinaryOp::Sub, a, b),
                (Some(a), _) => self.binary(BinaryOp::Sub, b, a),
                _ => self.binary(BinaryOp::Add, a.min(b), a.max(b)),
            },
            KernelOp::Binary(BinaryOp::Sub) => match self.negated(b) {
                Some(b) => self.add(Node::binary(BinaryOp::Add, a, b)),
                None => self.binary(BinaryOp::Sub, a, b),
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
            (None, None) => self.binary(BinaryOp::Mul, a.min(b), a.max(b)),
        }
    }

    fn negative(&mut self, a: Arg) -> Arg {
        let again = self.negated(a);
        again.unwrap_or_else(|| self.push(Node::new(KernelOp::Unary(UnaryOp::Neg), &[a])))
    }

    /// Arithmetic on what is 0 wherever one and the same comparison fails: first the arithmetic,
    /// then one choice for both.
    fn masked_arithmetic(&mut self, op: BinaryOp, x: Arg, y: Arg) -> Option<Arg> {
        let (condition, x) = self.masked(x)?;
        let y = match (op, y) {
            (BinaryOp::Mul, Arg::Constant(by)) if by.get() > 0.0 && by.get().is_finite() => y,
            (BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul, _) => {
                self.masked(y).filter(|(other, _)| *other == condition)?.1
            }
            _ => return None,
        };
        let value = self.add(Node::binary(op, x, y));
        let (op, [a, b]) = condition;
        Some(self.choice(op, [a, b, value, Arg::Constant(Number::new(0.0))]))
    }

    /// For a choice between a value and 0: the comparison and the value.
    fn masked(&mut self, arg: Arg) -> Option<(Comparison, Arg)> {
        let node = self.nodes[arg.node()?];
        let (KernelOp::Choose(op, then), [a, b, x, Arg::Constant(zero)]) = (node.op, node.args)
        else {
            return None;
        };
        let value = match then {
            _ if zero != Number::new(0.0) => return None,
            Then::Nothing => x,
            Then::Neg => self.negative(x),
            Then::Minimum(_) | Then::Maximum(_) => return None,
        };
        Some(((op, [a, b]), value))
    }

    /// What is simpler than `arg`, and the same wherever the comparison holds.
    fn where_holds(&mut self, condition: Comparison, arg: Arg, depth: u32) -> Arg {
        let Some(node) = arg.node().map(|node| self.nodes[node]) else {
            return arg;
        };
        let [a, b, x, _] = node.args;
        match node.op {
            KernelOp::Choose(op, Then::Nothing) if (op, [a, b]) == condition => x,
            KernelOp::Binary(op @ (BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul)) if depth > 0 => {
                let simpler = [a, b].map(|arg| self.where_holds(condition, arg, depth - 1));
                match simpler == [a, b] {
                    true => arg,
                    false => self.add(Node::binary(op, simpler[0], simpler[1])),
                }
            }
            _ => arg,
        }
    }

    /// A choice, and what is done to the value that it takes if the comparison holds.
    fn choice(&mut self, op: CompareOp, args: [Arg; 4]) -> Arg {
        let [a, b, x, y] = args;
        let x = match self.negated(x) {
            Some(positive) => {
                let simpler = self.where_holds((op, [a, b]), positive, DEEPEST);
                self.negative(simpler)
            }
            None => self.where_holds((op, [a, b]), x, DEEPEST),
        };
        let (then, x) = x.node().and_then(|x| then(&self.nodes[x])).unwrap_or((Then::Nothing, x));
        self.push(Node::new(KernelOp::Choose(op, then), &[a, b, x, y]))
    }

    fn binary(&mut self, op: BinaryOp, a: Arg, b: Arg) -> Arg {
        let masked = self.masked_arithmetic(op, a, b);
        masked.unwrap_or_else(|| self.push(Node::binary(op, a, b)))
    }

    fn push(&mut self, node: Node) -> Arg {
        let Values { nodes, seen } = self;
        Arg::Node(*seen.entry(node).or_insert_with(|| {
            nodes.push(node);
            nodes.len() as u32 - 1
        }))
    }

    /// `arg`, or what is simpler and differs from it in the sign of zeros only: `a` for `a == b ? b
    /// : a`. The limit of a ratio that lets the gradient of the unlimited one pass has this form.
    fn but_for_zero(&self, arg: Arg) -> Arg {
        match arg.node().map(|node| self.nodes[node]) {
            Some(Node {
                op: KernelOp::Choose(CompareOp::Eq, Then::Nothing),
                args: [a, b, x, y],
            }) if (x, y) == (b, a) || (x, y) == (a, b) => y,
            _ => arg,
        }
    }

    /// What `arg` is the negative of.
    fn negated(&self, arg: Arg) -> Option<Arg> {
        let node = &self.nodes[arg.node()?];
        (node.op == KernelOp::Unary(UnaryOp::Neg)).then_some(node.args[0])
    }

    /// The comparison that `mask` is of.
    fn comparison(&self, mask: Arg) -> Option<(CompareOp, [Arg; 2])> {
        let node = &self.nodes[mask.node()?];
        match node.op {
            KernelOp::Compare(op) => Some((op, [node.args[0], node.args[1]])),
            _ => None,
        }
    }

    /// How often each value is needed, 0 for what no result is made of.
    fn uses(&self, results: &[Output]) -> Vec<u32> {
        let mut uses = vec![0; self.nodes.len()];
        let values = results.iter().flat_map(|result| result.values());
        values.filter_map(Arg::node).for_each(|value| uses[value] += 1);
        for (at, node) in self.nodes.iter().enumerate().rev() {
            if uses[at] > 0 {
                let operands = node.args.into_iter().filter_map(Arg::node);
                operands.for_each(|operand| uses[operand] += 1);
            }
        }
        uses
    }

    /// Sums of products, squares and negatives that nothing else needs are formed without these.
    fn reduce_products(&self, results: &mut [Output]) {
        let uses = self.uses(results);
        for result in results {
            if let Output::Reduce { op: ReduceOp::Sum, rows, value } = *result
                && let Some(value) = value.node()
                && uses[value] == 1
            {
                let [a, b, ..] = self.nodes[value].args;
                let factors = match self.nodes[value].op {
                    KernelOp::Binary(BinaryOp::Mul) => Some((a, b)),
                    KernelOp::Unary(UnaryOp::Square) => Some((a, a)),
                    KernelOp::Unary(UnaryOp::Neg) => Some((a, Arg::Constant(Number::new(-1.0)))),
                    _ => None,
                };
                if let Some((a, b)) = factors {
                    *result = Output::Dot { rows, a, b };
                }
            }
        }
    }

    /// A step of arithmetic whose result only another step needs becomes one instruction with it.
    fn pair_steps(&mut self, results: &[Output]) {
        let uses = self.uses(results);
        let step = |node: &Node| match node.op {
            KernelOp::Binary(op) => Step::of(op),
            _ => None,
        };
        for at in 0..self.nodes.len() {
            let Some(second) = step(&self.nodes[at]) else {
                continue;
            };
            let [x, y, ..] = self.nodes[at].args;
            let orders = [(x, y), (y, x)];
            let orders = &orders[..if second == Step::Sub { 1 } else { 2 }];
            let paired = orders.iter().find_map(|&(inner, c)| {
                let inner = inner.node().filter(|&inner| uses[inner] == 1)?;
                let [a, b, ..] = self.nodes[inner].args;
                // What is made of numbers only is computed once, and not for each block.
                let is_number = |arg| matches!(arg, Arg::Number(_) | Arg::Constant(_));
                let first = step(&self.nodes[inner]).filter(|_| !is_number(a) || !is_number(b))?;
                Some(Node::new(KernelOp::Pair(first, second), &[a, b, c]))
            });
            if let Some(paired) = paired {
                self.nodes[at] = paired;
            }
        }
    }

    /// Leaves out what no result needs.
    fn keep_needed(self, results: Vec<Output>) -> (Vec<Node>, Vec<Output>) {
        let uses = self.uses(&results);
        let mut kept = Vec::new();
        let mut names = Vec::with_capacity(self.nodes.len());
        for (node, uses) in self.nodes.iter().zip(uses) {
            names.push(Arg::Node(kept.len() as u32));
            if uses > 0 {
                kept.push(node.with(|arg| rename(arg, &names)));
            }
        }
        let results = results.iter().map(|result| result.with(|arg| rename(arg, &names)));
        let results = results.collect();
        (kept, results)
    }
}

/// `node` as something that a choice can do to another value.
fn then(node: &Node) -> Option<(Then, Arg)> {
    match (node.op, node.args) {
        (KernelOp::Unary(UnaryOp::Neg), [x, ..]) => Some((Then::Neg, x)),
        (KernelOp::Binary(BinaryOp::Minimum), [x, Arg::Constant(bound), ..])
            if !bound.get().is_nan() =>
        {
            Some((Then::Minimum(bound), x))
        }
        (KernelOp::Binary(BinaryOp::Maximum), [x, Arg::Constant(bound), ..])
            if !bound.get().is_nan() =>
        {
            Some((Then::Maximum(bound), x))
        }
        _ => None,
    }
}

fn is_constant(arg: Arg, value: f64) -> bool {
    arg == Arg::Constant(Number::new(value))
}
