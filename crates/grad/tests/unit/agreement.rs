//! The fused executor against the reference one, op by op, on random graphs with their gradients
//! and second derivatives.
//!
//! Every value that the fused executor finds is compared with what the reference makes of the same
//! operands. So the bound is that of one op: nothing that comes after amplifies what was rounded
//! before.

use candle_core::{DType, Tensor};
use proptest::prelude::*;

use super::{Executor, eval, reference};
use crate::graph::op::{BinaryOp, Op, ReduceOp, UnaryOp};
use crate::graph::table::{binary_ops, reduce_ops, unary_ops};
use crate::graph::walk::Graph;
use crate::support::{Program, all_steps, programs};
use crate::{Var, grad, with_executor};

/// How far the executors may differ in one op.
#[derive(Clone, Copy, PartialEq)]
enum Agreement {
    /// Not at all, but for the sign of a zero: both do the same operation, which IEEE 754 rounds
    /// correctly, or only move values.
    Bits,
    /// By rounding in the last places of the result: each has its own approximation of the
    /// function.
    Function,
    /// By rounding in the last places of the sum of the terms' magnitudes: the order of additions
    /// differs.
    Terms,
}

macro_rules! unary_agreement {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $args:tt {
        example: $parameters:tt $of:tt => $is:tt, candle: $tensor:expr,
        f32: $how32:ident($f32:expr), f64: $how64:ident($f64:expr),
        agree: $agree:ident, $($columns:tt)*
    })*) => {
        fn unary_agreement(op: UnaryOp) -> Agreement {
            match op {
                $(UnaryOp::$Op { .. } => Agreement::$agree,)*
            }
        }
    };
}
unary_ops!(unary_agreement);

macro_rules! binary_agreement {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $args:tt {
        form: $form:tt, candle: $tensor:expr,
        each: $f32:expr, $f64:expr,
        agree: $agree:ident, $($columns:tt)*
    })*) => {
        fn binary_agreement(op: BinaryOp) -> Agreement {
            match op {
                $(BinaryOp::$Op => Agreement::$agree,)*
            }
        }
    };
}
binary_ops!(binary_agreement);

macro_rules! reduce_agreement {
    ($($(#[$doc:meta])* $Op:ident = $all:ident, $dims:ident, $keepdim:ident, $per_seq:ident {
        gradient: $gradient:literal, of_nothing: $of_nothing:ident, $empty:literal, example: $a:literal, $b:literal,
        neutral: $neutral:expr, join: $join:expr, agree: $agree:ident,
    })*) => {
        fn reduce_agreement(op: ReduceOp) -> Agreement {
            match op {
                $(ReduceOp::$Op => Agreement::$agree,)*
            }
        }
    };
}
reduce_ops!(reduce_agreement);

fn agreement(op: &Op) -> Agreement {
    use Agreement::{Bits, Terms};
    match op {
        Op::Unary(op) => unary_agreement(*op),
        Op::Binary(op) => binary_agreement(*op),
        Op::Reduce { op, dims: _ } | Op::SegmentReduce { op, segments: _ } => reduce_agreement(*op),
        Op::CumSum { .. } | Op::ScatterAdd { .. } | Op::IndexAdd { .. } | Op::MatMul => Terms,
        Op::Leaf(_)
        | Op::Full(_)
        | Op::Invalid(_)
        | Op::Cast
        | Op::Compare(_)
        | Op::Select
        | Op::Broadcast
        | Op::Reshape
        | Op::Permute(_)
        | Op::Narrow { .. }
        | Op::Pad { .. }
        | Op::Cat { .. }
        | Op::Flip(_)
        | Op::Gather { .. }
        | Op::IndexSelect { .. }
        | Op::SegmentExpand(_)
        | Op::Detach
        | Op::Custom(_) => Bits,
    }
}

/// The loss, its gradients and the gradients of those.
fn roots(program: &Program, dtype: DType) -> Vec<Var> {
    let leaf = |leaf: &Var| Var::new(leaf.to_dtype(dtype).tensor().unwrap());
    let leaves: Vec<Var> = program.leaves().iter().map(leaf).collect();
    let wrt: Vec<&Var> = leaves.iter().collect();
    let loss = program.record(&leaves, &all_steps());
    let first = grad(&loss, &wrt).unwrap();
    let sines = first.iter().map(|g| g.sin().sum());
    let combined = sines.reduce(|a, b| a + b).unwrap();
    // A loss that is linear in every leaf has no second derivative.
    let second = grad(&combined, &wrt).unwrap_or_default();
    [vec![loss], first, second].concat()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let wide = tensor.to_dtype(DType::F64).unwrap();
    wide.flatten_all().unwrap().to_vec1().unwrap()
}

fn magnitude(tensor: &Tensor) -> Tensor {
    match tensor.dtype() {
        DType::F32 | DType::F64 => tensor.abs().unwrap(),
        _ => tensor.clone(),
    }
}

fn agree(program: &Program, dtype: DType) -> Result<(), TestCaseError> {
    let (epsilon, smallest) = match dtype {
        DType::F32 => (f64::from(f32::EPSILON), f64::from(f32::from_bits(1))),
        _ => (f64::EPSILON, f64::from_bits(1)),
    };
    let roots = roots(program, dtype);
    let graph = Graph::reaching(&roots);
    let fused = with_executor(Executor::Fused { threads: 1 }, || eval(&graph.nodes).unwrap());
    for (at, var) in graph.nodes.iter().enumerate() {
        let operands: Vec<Tensor> = graph.inputs(at).map(|input| fused[input].clone()).collect();
        let expected = reference::compute(var, &operands).unwrap();
        prop_assert_eq!(expected.dims(), fused[at].dims());
        prop_assert_eq!(expected.dtype(), fused[at].dtype());
        let (want, got) = (numbers(&expected), numbers(&fused[at]));
        let agreement = agreement(&var.0.op);
        let scale = match agreement {
            Agreement::Bits | Agreement::Function => want.clone(),
            Agreement::Terms => {
                let sizes: Vec<Tensor> = operands.iter().map(magnitude).collect();
                numbers(&reference::compute(var, &sizes).unwrap())
            }
        };
        for ((want, got), scale) in want.iter().zip(&got).zip(&scale) {
            // Units in the last place, of subnormal numbers too. candle adds hundreds of terms
            // one after another, and the reference's power in f64 has the rounding of its exponent,
            // b ln a, multiplied by that.
            let units = match (agreement, dtype) {
                (Agreement::Bits, _) => 0.0,
                (Agreement::Function, DType::F32) => 8.0,
                (Agreement::Function | Agreement::Terms, _) => 64.0,
            };
            let same = match want.is_nan() {
                true => got.is_nan(),
                false => {
                    let unit = (epsilon * scale.abs()).max(smallest);
                    want == got || (want - got).abs() <= units * unit
                }
            };
            prop_assert!(same, "{var:?}: reference {want:e}, fused {got:e}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_op_agrees_in_f32(program in programs()) {
        agree(&program, DType::F32)?;
    }

    #[test]
    fn every_op_agrees_in_f64(program in programs()) {
        agree(&program, DType::F64)?;
    }
}
