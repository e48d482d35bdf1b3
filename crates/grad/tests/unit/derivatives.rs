//! The derivative of every primitive against central differences, and a count: a primitive without
//! a check fails.

use std::collections::BTreeSet;
use std::sync::Arc;

use candle_core::{DType, Tensor};

use crate::graph::differentiable::is_differentiable;
use crate::graph::op::Op;
use crate::graph::table::{binary_ops, compare_ops, reduce_ops, unary_ops};
use crate::support::{device, numbers};
use crate::{CustomOp, Error, Executor, Gradcheck, Ragged, Var, grad, with_executor};

macro_rules! primitives {
    ($($name:literal: $pattern:pat,)*) => {
        /// Exhaustive, so that a new primitive has to be named here and then, being named, checked
        /// below.
        fn name(op: &Op) -> &'static str {
            match op {
                Op::Unary(op) => op.name(),
                Op::Binary(op) => op.name(),
                Op::Compare(op) => op.name(),
                Op::Reduce { op, dims: _ } => op.name(),
                Op::SegmentReduce { .. } => op.name(),
                $($pattern => $name,)*
            }
        }

        const OTHERS: &[&str] = &[$($name),*];
    };
}

primitives! {
    "leaf": Op::Leaf(_),
    "full": Op::Full(_),
    "invalid": Op::Invalid(_),
    "cast": Op::Cast,
    "select": Op::Select,
    "broadcast": Op::Broadcast,
    "reshape": Op::Reshape,
    "permute": Op::Permute(_),
    "narrow": Op::Narrow { .. },
    "pad": Op::Pad { .. },
    "cat": Op::Cat { .. },
    "flip": Op::Flip(_),
    "cumsum": Op::CumSum { .. },
    "gather": Op::Gather { .. },
    "scatter_add": Op::ScatterAdd { .. },
    "index_select": Op::IndexSelect { .. },
    "index_add": Op::IndexAdd { .. },
    "matmul": Op::MatMul,
    "expand": Op::SegmentExpand(_),
    "detach": Op::Detach,
    "custom": Op::Custom(_),
}

macro_rules! reductions {
    ($($(#[$doc:meta])* $Op:ident = $all:ident, $dims:ident, $keepdim:ident, $per_seq:ident $columns:tt)*) => {
        const REDUCTIONS: &[&str] = &[$(stringify!($all), stringify!($per_seq)),*];

        fn reductions() -> Vec<Check> {
            let (x, rows) = (any(1, &[2, 3]), any(6, &[5, 2]));
            let of = |x: &Var, f: fn(&Var) -> Var| check(std::slice::from_ref(x), move |v| f(&v[0]));
            vec![$(
                of(&x, |x| x.$dims(&[0])),
                of(&x, |x| x.$keepdim(&[1])),
                of(&x, |x| x.$all()),
                of(&rows, |x| Ragged::new(x.clone(), &[2, 3]).$per_seq()),
            )*]
        }
    };
}
reduce_ops!(reductions);

macro_rules! unary_checks {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $args:tt {
        example: $parameters:tt $of:tt => $is:tt, candle: $tensor:expr,
        f32: $how32:ident($f32:expr), f64: $how64:ident($f64:expr), agree: $agree:ident,
        check: $kind:ident($low:literal..$high:literal) [$($arguments:tt),*],
    })*) => {
        const UNARY: &[&str] = &[$(stringify!($method)),*];

        fn unary_checks() -> Vec<Check> {
            vec![$($({
                let x = between($low, $high, &[2, 3]);
                check(&[x], |v| unary_checks!(@call v[0], $method, $arguments))
            }),*),*]
        }
    };
    (@call $x:expr, $method:ident, ($($argument:literal),*)) => {
        $x.$method($($argument),*)
    };
}
unary_ops!(unary_checks);

macro_rules! binary_checks {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $args:tt {
        form: $form:tt, candle: $tensor:expr, each: $f32:expr, $f64:expr, agree: $agree:ident,
        check: $kind:ident($low_a:literal..$high_a:literal, $low_b:literal..$high_b:literal),
    })*) => {
        const BINARY: &[&str] = &[$(stringify!($method)),*];

        fn binary_checks() -> Vec<Check> {
            use std::ops::{Add, Div, Mul, Sub};
            // Broadcast from both sides, so that copies are added up.
            let of = |a: Var, b: Var, f: fn(&Var, &Var) -> Var| check(&[a, b], move |v| f(&v[0], &v[1]));
            vec![$(
                of(between($low_a, $high_a, &[2, 3]), between($low_b, $high_b, &[3]), |a, b| a.$method(b)),
                of(between($low_a, $high_a, &[2, 1]), between($low_b, $high_b, &[1, 3]), |a, b| a.$method(b)),
            )*]
        }
    };
}
binary_ops!(binary_checks);

macro_rules! compare_checks {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $columns:tt)*) => {
        const COMPARE: &[&str] = &[$(stringify!($method)),*];

        fn compare_checks() -> Vec<Check> {
            let both = [any(1, &[2, 3]), any(2, &[2, 3])];
            vec![$(check(&both, |v| v[0].$method(&v[1]))),*]
        }
    };
}
compare_ops!(compare_checks);

type Function = dyn Fn(&[Var]) -> Var;

/// A function whose last op is the primitive to be checked, and where.
struct Check {
    f: Box<Function>,
    at: Vec<Var>,
}

fn check(at: &[Var], f: impl Fn(&[Var]) -> Var + 'static) -> Check {
    Check { f: Box::new(f), at: at.to_vec() }
}

/// Far from the kinks at 0 and at the integers by the measure of a difference quotient.
fn between(low: f64, high: f64, shape: &[usize]) -> Var {
    let seed = shape.iter().fold(1, |seed, &size| 7 * seed + size as u64);
    let values = numbers(seed, shape.iter().product());
    let values = values.into_iter().map(|x| low + (x + 1.5) / 3.0 * (high - low));
    Var::from_vec(values.collect(), shape, &device())
}

/// In (-1.5, 1.5).
fn any(seed: u64, shape: &[usize]) -> Var {
    Var::from_vec(numbers(seed, shape.iter().product()), shape, &device())
}

fn index(values: &[i64], shape: &[usize]) -> Var {
    Var::from_vec(values.to_vec(), shape, &device())
}

/// x³.
struct Cube;

impl CustomOp for Cube {
    fn name(&self) -> &'static str {
        "cube"
    }
    fn output(&self, inputs: &[Var]) -> Result<(Vec<usize>, DType), String> {
        Ok((inputs[0].shape().to_vec(), inputs[0].dtype()))
    }
    fn forward(&self, inputs: &[Tensor]) -> candle_core::Result<Tensor> {
        inputs[0].sqr()? * &inputs[0]
    }
    fn vjp(&self, inputs: &[Var], _: &Var, _: usize, grad: &Var) -> Option<Var> {
        Some(grad * inputs[0].square() * 3.0)
    }
}

fn checks() -> Vec<Check> {
    let (x, y) = (any(1, &[2, 3]), any(2, &[2, 3]));
    let column = any(5, &[2, 1]);
    let unary = |x: &Var, f: fn(&Var) -> Var| check(std::slice::from_ref(x), move |v| f(&v[0]));
    let binary = |a: &Var, b: &Var, f: fn(&Var, &Var) -> Var| {
        check(&[a.clone(), b.clone()], move |v| f(&v[0], &v[1]))
    };
    let ragged = |x: &Var| Ragged::new(x.clone(), &[2, 0, 3]);
    let rows = any(6, &[5, 2]);
    let others = vec![
        binary(&column, &y, |a, b| index(&[1, 0, 1], &[3]).eq(1.0).select(a, b)),
        unary(&column, |x| x.broadcast_to(&[4, 2, 3])),
        unary(&x, |x| x.reshape(&[3, 2])),
        unary(&any(7, &[2, 3, 4]), |x| x.permute(&[2, 0, 1])),
        unary(&x, |x| x.narrow(1, 1, 2)),
        unary(&x, |x| x.pad(1, 2, 1)),
        binary(&x, &column, |a, b| Var::cat(&[a.clone(), b.clone(), a.clone()], 1)),
        unary(&x, |x| x.flip(&[0, 1])),
        unary(&x, |x| x.cumsum(1)),
        unary(&x, |x| x.gather(&index(&[2, 2, 0, 1], &[2, 2]), 1)),
        binary(&x, &y, |a, b| a.scatter_add(&index(&[2, 2, 0, 1, 0, 0], &[2, 3]), b, 1)),
        unary(&x, |x| x.index_select(&index(&[2, 0, 2, 2], &[4]), 1)),
        binary(&x, &y, |a, b| a.index_add(&index(&[1, 1], &[2]), b, 0)),
        binary(&any(8, &[2, 1, 2, 3]), &any(9, &[4, 3, 2]), |a, b| a.matmul(b)),
        check(std::slice::from_ref(&rows), move |v| ragged(&v[0]).sum_per_seq()),
        check(&[any(10, &[3, 2])], move |v| ragged(&rows).expand(&v[0]).values().clone()),
        unary(&x, |x| Var::custom(Arc::new(Cube), &[x])),
    ];
    let elementwise = unary_checks().into_iter().chain(binary_checks());
    elementwise.chain(reductions()).chain(others).collect()
}

/// To be measured with a step that an f32 holds exactly.
fn cast() -> Check {
    let dyadic = Var::from_vec(vec![0.5, -1.25, 3.0], &[3], &device());
    check(&[dyadic], |v| v[0].to_dtype(DType::F32))
}

/// Without a gradient: what lies behind is not reached, and asking for it is an error.
fn without_gradient() -> Vec<Check> {
    let x = any(1, &[2, 3]);
    let mut checks = compare_checks();
    checks.extend([
        check(std::slice::from_ref(&x), |v| v[0].detach()),
        check(std::slice::from_ref(&x), |v| v[0].to_dtype(DType::I64)),
    ]);
    checks
}

/// Nodes without inputs, so there is nothing to differentiate by.
fn sources() -> Vec<Var> {
    let x = any(1, &[2]);
    vec![x.clone(), x.full_like(2.0), x.reshape(&[3])]
}

fn on_both_executors(test: impl Fn()) {
    for executor in [Executor::Reference, Executor::Fused { threads: 1 }] {
        with_executor(executor, &test);
    }
}

fn gradcheck(check: &Check, parameters: &Gradcheck, f: impl Fn(&[Var]) -> Var) {
    let outcome = parameters.run(f, &check.at);
    assert!(outcome.is_ok(), "{}: {outcome:?}", name(&(check.f)(&check.at).0.op));
}

#[test]
fn every_primitive_is_checked_or_documented_to_have_no_gradient() {
    let checks = [checks(), vec![cast()], without_gradient()];
    let mut seen: BTreeSet<_> =
        checks.iter().flatten().map(|check| name(&(check.f)(&check.at).0.op)).collect();
    seen.extend(sources().iter().map(|var| name(&var.0.op)));
    let elementwise = [UNARY, BINARY, COMPARE].concat();
    let all: BTreeSet<_> = [&elementwise, REDUCTIONS, OTHERS].concat().into_iter().collect();
    assert_eq!(seen, all);
}

#[test]
fn first_derivatives_match_central_differences() {
    on_both_executors(|| {
        for check in checks() {
            gradcheck(&check, &Gradcheck::default(), &check.f);
            // gradcheck takes a missing derivative for 0; this does not.
            let wrt: Vec<&Var> = check.at.iter().collect();
            assert!(grad(&(check.f)(&check.at).sum(), &wrt).is_ok());
        }
        let exact = Gradcheck { step: 0.125, ..Gradcheck::default() };
        gradcheck(&cast(), &exact, &cast().f);
    });
}

/// The sine makes the gradient depend on the inputs even where the primitive is linear.
#[test]
fn second_derivatives_match_central_differences() {
    let slope = |f: &Function, at: &[Var]| {
        let wrt: Vec<&Var> = at.iter().collect();
        let first = grad(&f(at).sin().sum(), &wrt).unwrap();
        let parts = first.iter().map(|g| g.sin().sum());
        parts.reduce(|a, b| a + b).unwrap()
    };
    let parameters = Gradcheck { tolerance: 1e-5, ..Gradcheck::default() };
    on_both_executors(|| {
        for check in checks() {
            gradcheck(&check, &parameters, |at| slope(&check.f, at));
        }
    });
}

#[test]
fn what_has_no_gradient_is_not_reached() {
    for check in without_gradient() {
        let y = (check.f)(&check.at);
        assert!((0..check.at.len()).all(|i| !is_differentiable(&y, i)));
        let loss = y.to_dtype(DType::F64).sum();
        for x in &check.at {
            assert!(matches!(grad(&loss, &[x]), Err(Error::Unused { .. })), "{y:?}");
        }
    }
    for source in sources() {
        assert!(source.0.inputs.is_empty(), "{source:?}");
    }
}

/// Conditions and indices are operands without a gradient beside others that have one.
#[test]
fn conditions_and_indices_are_not_reached() {
    let (x, i) = (any(1, &[3]), index(&[2, 0, 0], &[3]));
    let loss = x.gt(0.0).select(&x, 0.0).sum();
    assert!(!is_differentiable(&x.gt(0.0).select(&x, 0.0), 0));
    assert!(grad(&loss, &[&x]).is_ok());
    for y in
        [x.gather(&i, 0), x.index_select(&i, 0), x.scatter_add(&i, &x, 0), x.index_add(&i, &x, 0)]
    {
        assert!(is_differentiable(&y, 0) && !is_differentiable(&y, 1));
        assert!(matches!(grad(&y.sum(), &[&i]), Err(Error::Unused { .. })));
    }
}

/// The gradient that arrives at the choice is the constant 1 in f32, and meets the plain number 0.
#[test]
fn a_choice_between_f32_numbers_has_a_gradient_of_f32() {
    let x = Var::from_vec(vec![1f32, 2.0], &[2], &device());
    let sum = x.sum();
    let loss = sum.gt(0.0).select(&sum, 0.0);
    let gradient = &grad(&loss, &[&x]).unwrap()[0];
    assert_eq!(gradient.to_vec::<f32>().unwrap(), [1.0, 1.0]);
}
