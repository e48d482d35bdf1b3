//! Rules that make kernels shorter, each against the formula that it rewrites: the same bits, in
//! as many instructions as are named.

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
    let cases: [Case; 8] = [
        (&[(op(BinaryOp::Add), &[n(1), n(2)])], 2, |a, b| a + b),
        (&[(op(BinaryOp::Sub), &[n(1), n(2)])], 2, |a, b| a - b),
        (&[(op(BinaryOp::Mul), &[n(1), n(2)])], 2, |a, b| a * b),
        (&[(op(BinaryOp::Mul), &[n(2), constant(0.5)])], 2, |_, b| b * 0.5),
        (&[(op(BinaryOp::Mul), &[n(2), B]), (KernelOp::Select, &[n(0), n(3), zero])], 2, |_, b| {
            b * b
        }),
        (
            &[
                (op(BinaryOp::Mul), &[n(2), B]),
                (op(BinaryOp::Sub), &[A, n(3)]),
                (op(BinaryOp::Mul), &[n(4), constant(0.5)]),
                (KernelOp::Select, &[n(0), n(5), zero]),
            ],
            3,
            |a, b| (a - b * b) * 0.5,
        ),
        (
            &[
                (KernelOp::Unary(UnaryOp::Neg), &[n(1)]),
                (op(BinaryOp::Mul), &[n(3), n(2)]),
                (op(BinaryOp::Add), &[n(2), n(4)]),
            ],
            3,
            |a, b| b - a * b,
        ),
        // What is not needed after all does not keep two steps from being one instruction.
        (
            &[
                (op(BinaryOp::Mul), &[B, constant(0.25)]),
                (KernelOp::Select, &[n(0), n(3), zero]),
                (op(BinaryOp::Mul), &[n(4), n(1)]),
            ],
            2,
            |a, b| b * 0.25 * a,
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
    let finite = KernelOp::Unary(UnaryOp::Clamp { lo: Number::new(-9.0), hi: Number::new(9.0) });
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
