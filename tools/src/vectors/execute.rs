//! Evaluating a case.

use anyhow::Result;
use tinsmith_grad::{Backward, DType, Tensor, Var, eval};

/// What a case asks for: the value of `out`, the product of `seed` with its Jacobian at each leaf,
/// and metrics.
pub struct Problem {
    pub out: Var,
    /// The cotangent of `out`; none where `out` is a scalar loss.
    pub seed: Option<Var>,
    pub leaves: Vec<Var>,
    pub metrics: Vec<(String, Var)>,
}

/// The values found, flat and row-major.
pub struct Answer {
    pub shape: Vec<usize>,
    pub out: Vec<f64>,
    pub grads: Vec<Vec<f64>>,
    pub metrics: Vec<(String, f64)>,
}

/// Evaluates `problem` on the executor in force.
pub fn evaluate(problem: &Problem) -> Result<Answer> {
    let metrics: Vec<&Var> = problem.metrics.iter().map(|(_, metric)| metric).collect();
    let (out, grads, metrics) = if problem.leaves.is_empty() {
        let mut values = eval(&[&[&problem.out], metrics.as_slice()].concat())?;
        (values.remove(0), vec![], values)
    } else {
        let mut backward = Backward::new(&problem.out).allow_unused().aux(&metrics);
        if let Some(seed) = &problem.seed {
            backward = backward.seed(seed);
        }
        let gradients = backward.run(&problem.leaves.iter().collect::<Vec<_>>())?;
        let grads = gradients.as_slice().iter().map(flat).collect::<Result<_>>()?;
        (gradients.root().clone(), grads, gradients.aux().to_vec())
    };
    let names = problem.metrics.iter().map(|(name, _)| name.clone());
    let metrics = names
        .zip(&metrics)
        .map(|(name, value)| Ok((name, value.to_dtype(DType::F64)?.to_scalar()?)));
    Ok(Answer {
        shape: out.dims().to_vec(),
        out: flat(&out)?,
        grads,
        metrics: metrics.collect::<Result<_>>()?,
    })
}

fn flat(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}
