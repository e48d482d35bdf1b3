//! In how many passes over a batch a loss and its gradient are planned.

use candle_core::{DType, Device};

use super::{Plan, Step};
use crate::calculus::backward::grad;
use crate::graph::var::Var;
use crate::graph::walk::Graph;

const ROWS: usize = 640;

/// Kernels over all elements of `x` for `loss` and its gradient by `x`.
fn passes(loss: &Var, x: &Var) -> usize {
    let gradients = grad(loss, &[x]).unwrap();
    let roots = [loss, &gradients[0]];
    let graph = Graph::reaching(roots);
    let plan = Plan::new(&graph, &graph.positions(&roots), DType::F32);
    let is_pass = |step: &&Step| matches!(step, Step::Kernel(kernel) if kernel.len == ROWS);
    plan.steps.iter().filter(is_pass).count()
}

#[test]
fn a_gradient_that_is_known_beforehand_takes_no_pass_of_its_own() {
    let x = Var::from_vec(vec![0.5f32; ROWS], &[ROWS], &Device::Cpu);
    let square = x.square();
    assert_eq!(passes(&square.sum(), &x), 1);
    assert_eq!(passes(&square.mean(), &x), 1);
    assert_eq!(passes(&(square.sum() * -0.5 / 7.0), &x), 1);
    // The gradient of a square needs the sum first.
    assert_eq!(passes(&x.mean().square(), &x), 2);
}
