//! A kernel's values before it is compiled: each computed once, and in as few instructions as there
//! are for it.
//!
//! Derivatives repeat much of what the forward pass has, and wrap it in factors of one and minus
//! one. Every rule here keeps the bits of what it rewrites.

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

#[derive(Default)]
struct Values {
    nodes: Vec<Node>,
    seen: FxHashMap<Node, u32>,
}

impl Values {
    /// The value of `node`, by the simplest means.
    fn add(&mut self, node: Node) -> Arg {
        let [a, b, c, d] = node.args;
        if let Some(masked) = self.masked_arithmetic(node) {
            return masked;
        }
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
    fn masked_arithmetic(&mut self, node: Node) -> Option<Arg> {
        let KernelOp::Binary(op @ (BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul)) = node.op else {
            return None;
        };
        let [x, y, ..] = node.args;
        let (condition, x) = self.masked(x)?;
        let y = match y {
            Arg::Constant(by) if op == BinaryOp::Mul && by.get() > 0.0 && by.get().is_finite() => y,
            _ => self.masked(y).filter(|(other, _)| *other == condition)?.1,
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
    fn where_holds(&mut self, condition: Comparison, arg: Arg) -> Arg {
        let Some(node) = arg.node().map(|node| self.nodes[node]) else {
            return arg;
        };
        let [a, b, x, _] = node.args;
        match node.op {
            KernelOp::Choose(op, Then::Nothing) if (op, [a, b]) == condition => x,
            KernelOp::Binary(BinaryOp::Mul) => {
                let simpler = [a, b].map(|arg| self.where_chosen(condition, arg));
                match simpler == [a, b] {
                    true => arg,
                    false => self.product(simpler[0], simpler[1]),
                }
            }
            _ => arg,
        }
    }

    fn where_chosen(&self, condition: Comparison, arg: Arg) -> Arg {
        match arg.node().map(|node| self.nodes[node]) {
            Some(Node { op: KernelOp::Choose(op, Then::Nothing), args: [a, b, x, _] })
                if (op, [a, b]) == condition =>
            {
                x
            }
            _ => arg,
        }
    }

    /// A choice, and what is done to the value that it takes if the comparison holds.
    fn choice(&mut self, op: CompareOp, args: [Arg; 4]) -> Arg {
        let [a, b, x, y] = args;
        let x = match self.negated(x) {
            Some(positive) => {
                let simpler = self.where_holds((op, [a, b]), positive);
                self.negative(simpler)
            }
            None => self.where_holds((op, [a, b]), x),
        };
        let (then, x) = x.node().and_then(|x| then(&self.nodes[x])).unwrap_or((Then::Nothing, x));
        self.push(Node::new(KernelOp::Choose(op, then), &[a, b, x, y]))
    }

    fn binary(&mut self, op: BinaryOp, a: Arg, b: Arg) -> Arg {
        self.push(Node::binary(op, a, b))
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

    /// How often each value is needed.
    fn uses(&self, results: &[Output]) -> Vec<u32> {
        let mut uses = vec![0; self.nodes.len()];
        let operands = self.nodes.iter().flat_map(|node| node.args);
        let reduced = results.iter().flat_map(|result| result.values());
        let used = operands.chain(reduced).filter_map(Arg::node);
        used.for_each(|value| uses[value] += 1);
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
        let mut is_needed = vec![false; self.nodes.len()];
        let values = results.iter().flat_map(|result| result.values());
        values.filter_map(|value| value.node()).for_each(|node| is_needed[node] = true);
        for (at, node) in self.nodes.iter().enumerate().rev() {
            if is_needed[at] {
                let operands = node.args.iter().filter_map(|arg| arg.node());
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

#[cfg(test)]
mod tests {
    use super::super::compile::compile;
    use super::super::item::Rows;
    use super::super::run::{Operands, run};
    use super::*;

    const A: Arg = Arg::Array(0);
    const B: Arg = Arg::Array(1);

    fn constant(value: f64) -> Arg {
        Arg::Constant(Number::new(value))
    }

    /// The last of `nodes`, stored and summed, for all pairs of some values: the number of
    /// instructions, the stored bits (one NaN as good as another), and the sum.
    fn evaluate(nodes: &[(KernelOp, &[Arg])], results: &[Output]) -> (usize, Vec<u32>, f64) {
        let kernel = Kernel {
            nodes: nodes.iter().map(|&(op, args)| Node::new(op, args)).collect(),
            outputs: results.to_vec(),
            arrays: 2,
            numbers: 0,
        };
        let program = compile(&kernel);
        let (a, b): (Vec<f32>, Vec<f32>) = pairs().unzip();
        let mut out = vec![9.0; a.len()];
        let operands = Operands {
            len: a.len(),
            arrays: vec![&a, &b],
            numbers: Vec::new(),
            rows: vec![&Rows::One],
        };
        let outputs = [out.as_mut_slice()].into_iter().take(program.stores);
        let sums = run(&program, &operands, outputs.collect(), &mut Vec::new(), 1);
        let sum = sums.first().map_or(0.0, |sums| sums[0]);
        (program.code.len(), bits(out), sum)
    }

    fn pairs() -> impl Iterator<Item = (f32, f32)> {
        const VALUES: [f32; 8] = [0.0, -0.0, 1.0, -1.0, 0.3, -7.5, f32::INFINITY, f32::NAN];
        VALUES.into_iter().flat_map(|a| VALUES.map(|b| (a, b)))
    }

    fn bits(values: impl IntoIterator<Item = f32>) -> Vec<u32> {
        let one_nan = |x: f32| if x.is_nan() { f32::NAN } else { x };
        values.into_iter().map(|x| one_nan(x).to_bits()).collect()
    }

    #[test]
    fn signs_and_factors_of_one_cost_nothing_and_change_no_bit() {
        type Case<'a> = (&'a [(KernelOp, &'a [Arg])], usize, fn(f32, f32) -> f32);
        const NEG: KernelOp = KernelOp::Unary(UnaryOp::Neg);
        let op = KernelOp::Binary;
        let n = Arg::Node;
        let cases: [Case; 9] = [
            (&[(NEG, &[A]), (op(BinaryOp::Add), &[n(0), B])], 1, |a, b| -a + b),
            (&[(NEG, &[B]), (op(BinaryOp::Add), &[A, n(0)])], 1, |a, b| a + -b),
            (&[(NEG, &[B]), (op(BinaryOp::Sub), &[A, n(0)])], 1, |a, b| a - -b),
            (&[(NEG, &[A]), (NEG, &[n(0)]), (op(BinaryOp::Add), &[n(1), B])], 1, |a, b| a + b),
            (
                &[
                    (op(BinaryOp::Mul), &[A, constant(-1.0)]),
                    (NEG, &[B]),
                    (op(BinaryOp::Mul), &[n(0), n(1)]),
                ],
                1,
                |a, b| a * b,
            ),
            (&[(NEG, &[A]), (op(BinaryOp::Mul), &[n(0), B])], 2, |a, b| -a * b),
            (
                &[
                    (op(BinaryOp::Mul), &[constant(1.0), A]),
                    (op(BinaryOp::Div), &[B, constant(1.0)]),
                    (op(BinaryOp::Sub), &[n(0), n(1)]),
                ],
                1,
                |a, b| a - b,
            ),
            (
                &[
                    (KernelOp::Compare(CompareOp::Lt), &[A, B]),
                    (NEG, &[A]),
                    (KernelOp::Select, &[n(0), n(1), B]),
                ],
                1,
                |a, b| if a < b { -a } else { b },
            ),
            (
                &[
                    (KernelOp::Compare(CompareOp::Ge), &[A, B]),
                    (op(BinaryOp::Minimum), &[A, constant(0.3)]),
                    (KernelOp::Select, &[n(0), n(1), B]),
                ],
                1,
                |a, b| {
                    let least = if a.is_nan() { a } else { a.min(0.3) };
                    if a >= b { least } else { b }
                },
            ),
        ];
        for (nodes, instructions, formula) in cases {
            let value = n(nodes.len() as u32 - 1);
            let (count, got, _) = evaluate(nodes, &[Output::Store { value }]);
            assert_eq!(got, bits(pairs().map(|(a, b)| formula(a, b))), "{nodes:?}");
            assert_eq!(count, instructions, "{nodes:?}");
        }
    }

    #[test]
    fn one_mask_is_applied_once_and_changes_no_bit() {
        let zero = constant(0.0);
        let n = Arg::Node;
        let op = KernelOp::Binary;
        let shared: [(KernelOp, &[Arg]); 3] = [
            (KernelOp::Compare(CompareOp::Ne), &[A, zero]),
            (KernelOp::Select, &[n(0), A, zero]),
            (KernelOp::Select, &[n(0), B, zero]),
        ];
        type Case<'a> = (&'a [(KernelOp, &'a [Arg])], usize, fn(f32, f32) -> f32);
        let cases: [Case; 5] = [
            (&[(op(BinaryOp::Add), &[n(1), n(2)])], 2, |a, b| a + b),
            (&[(op(BinaryOp::Sub), &[n(1), n(2)])], 2, |a, b| a - b),
            (&[(op(BinaryOp::Mul), &[n(1), n(2)])], 2, |a, b| a * b),
            (&[(op(BinaryOp::Mul), &[n(2), constant(0.5)])], 2, |_, b| b * 0.5),
            (
                &[(op(BinaryOp::Mul), &[n(2), B]), (KernelOp::Select, &[n(0), n(3), zero])],
                2,
                |_, b| b * b,
            ),
        ];
        for (last, instructions, formula) in cases {
            let nodes = [&shared, last].concat();
            let value = n(nodes.len() as u32 - 1);
            let (count, got, _) = evaluate(&nodes, &[Output::Store { value }]);
            let want = |a: f32, b| if a != 0.0 { formula(a, b) } else { 0.0 };
            assert_eq!(got, bits(pairs().map(|(a, b)| want(a, b))), "{nodes:?}");
            assert_eq!(count, instructions, "{nodes:?}");
        }
    }

    #[test]
    fn two_steps_of_arithmetic_are_one_instruction_with_the_same_bits() {
        type Plain = fn(f32, f32) -> f32;
        let steps: [(BinaryOp, Plain); 3] = [
            (BinaryOp::Add, |a, b| a + b),
            (BinaryOp::Sub, |a, b| a - b),
            (BinaryOp::Mul, |a, b| a * b),
        ];
        for (first, f) in steps {
            for (second, g) in steps {
                let inner = (KernelOp::Binary(first), &[A, B][..]);
                for (last, is_paired) in
                    [([Arg::Node(0), A], true), ([A, Arg::Node(0)], second != BinaryOp::Sub)]
                {
                    let nodes = [inner, (KernelOp::Binary(second), &last[..])];
                    let store = |value| Output::Store { value };
                    let want = |a, b| match last {
                        [A, _] => g(a, f(a, b)),
                        _ => g(f(a, b), a),
                    };
                    let (count, got, _) = evaluate(&nodes, &[store(Arg::Node(1))]);
                    assert_eq!(got, bits(pairs().map(|(a, b)| want(a, b))), "{nodes:?}");
                    assert_eq!(count, if is_paired { 1 } else { 2 }, "{nodes:?}");
                }
            }
        }
    }

    #[test]
    fn an_exponential_does_not_see_which_of_two_equals_was_chosen() {
        let exp = KernelOp::Unary(UnaryOp::Exp);
        let chosen: [(KernelOp, &[Arg]); 3] = [
            (KernelOp::Compare(CompareOp::Eq), &[A, B]),
            (KernelOp::Select, &[Arg::Node(0), B, A]),
            (exp, &[Arg::Node(1)]),
        ];
        let store = |value| [Output::Store { value }];
        let (count, got, _) = evaluate(&chosen, &store(Arg::Node(2)));
        let (_, want, _) = evaluate(&[(exp, &[A])], &store(Arg::Node(0)));
        assert_eq!((count, got), (1, want));
    }

    #[test]
    fn a_product_that_is_only_summed_is_not_formed() {
        let rows = 0;
        let finite =
            KernelOp::Unary(UnaryOp::Clamp { lo: Number::new(-9.0), hi: Number::new(9.0) });
        let is_number = KernelOp::Compare(CompareOp::Eq);
        let nodes: [(KernelOp, &[Arg]); 4] = [
            (is_number, &[B, B]),
            (KernelOp::Select, &[Arg::Node(0), B, constant(2.0)]),
            (finite, &[Arg::Node(1)]),
            (KernelOp::Binary(BinaryOp::Mul), &[Arg::Node(2), constant(0.1)]),
        ];
        let sum = Output::Reduce { op: ReduceOp::Sum, rows, value: Arg::Node(3) };
        let (count, _, got) = evaluate(&nodes, &[sum]);
        let terms = pairs().map(|(_, b)| if b.is_nan() { 2.0 } else { b.clamp(-9.0, 9.0) } * 0.1);
        let want: f64 = terms.map(f64::from).sum();
        assert_eq!(count, 3);
        assert!((got - want).abs() < 1e-12, "{got} {want}");
        let stored = [sum, Output::Store { value: Arg::Node(3) }];
        assert_eq!(evaluate(&nodes, &stored).2, got);
    }
}
