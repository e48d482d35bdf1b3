//! Gradients of random graphs over random shapes (broadcast, of size 1, empty, transposed, used
//! repeatedly) against central differences.

mod support;

use proptest::prelude::*;
use support::{Program, programs, smooth};
use tinsmith_grad::{Var, grad, gradcheck};

fn check(program: &Program) -> Result<(), TestCaseError> {
    gradcheck(|leaves| program.record(leaves, &smooth()), &program.leaves())
        .map(|_| ())
        .map_err(|e| TestCaseError::fail(e.to_string()))
}

/// A second derivative, as the gradient of a random combination of first ones.
fn check_twice(program: &Program) -> Result<(), TestCaseError> {
    let slope = |leaves: &[Var]| {
        let wrt: Vec<&Var> = leaves.iter().collect();
        let loss = program.record(leaves, &smooth());
        let parts =
            grad(&loss, &wrt).map(|grads| grads.iter().map(|g| g.sin().sum()).reduce(|a, b| a + b));
        parts.map_or_else(Var::from, |sum| sum.expect("a program has a leaf"))
    };
    let check = tinsmith_grad::Gradcheck { tolerance: 1e-5, ..Default::default() };
    check.run(slope, &program.leaves()).map(|_| ()).map_err(|e| TestCaseError::fail(e.to_string()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gradients_match_central_differences(program in programs()) {
        check(&program)?;
    }

    #[test]
    fn second_derivatives_match_central_differences(program in programs()) {
        check_twice(&program)?;
    }
}

/// The generator would prove little if most of its steps were passed over.
#[test]
fn every_smooth_op_takes_part() {
    let x = support::leaf(1, &[3, 3]);
    let y = support::leaf(2, &[3, 3]);
    for (i, op) in smooth().iter().enumerate() {
        let made = op(&x, &y, 2);
        assert!(made.error().is_none(), "step {i}: {:?}", made.error());
    }
}

/// A view that candle takes for row-major although its stride is 0.
#[test]
fn a_broadcast_to_size_one_reduces() {
    let x = support::leaf(1, &[]);
    assert_eq!(x.broadcast_to(&[1]).max_dims(&[0]).item().unwrap(), x.item().unwrap());
}
