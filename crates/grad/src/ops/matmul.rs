use super::composite;
use super::unary::require_float;
use crate::error::Error;
use crate::graph::caller::here;
use crate::graph::dims;
use crate::graph::op::Op;
use crate::graph::var::Var;

/// Products of matrices and vectors.
impl Var {
    /// `[.., m, k]` times `[.., k, n]` to `[.., m, n]`; the leading dimensions broadcast. A rank-1
    /// operand is a row on the left and a column on the right, as in NumPy.
    ///
    /// Gradients: g bᵀ and aᵀ g.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let a = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0], &[2, 2], &Device::Cpu);
    /// let b = Var::from_vec(vec![10f64, 1.0], &[2], &Device::Cpu);
    /// assert_eq!(a.matmul(&b).to_vec::<f64>()?, [12.0, 34.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn matmul(&self, rhs: &Var) -> Var {
        composite("matmul", &[self, rhs], || {
            match (self.rank(), rhs.rank()) {
                (1, 1) => self.dot(rhs),
                (1, _) => self.unsqueeze(0).matrix_product(rhs).squeeze(-2),
                (_, 1) => self.matrix_product(&rhs.unsqueeze(1)).squeeze(-1),
                // One big product instead of a batch of small ones with the same right side.
                (3.., 2) => {
                    let (rows, last) = self.shape().split_at(self.rank() - 1);
                    let out: Vec<usize> = rows.iter().copied().chain([rhs.shape()[1]]).collect();
                    self.reshape(&[rows.iter().product(), last[0]])
                        .matrix_product(rhs)
                        .reshape(&out)
                }
                _ => self.matrix_product(rhs),
            }
        })
    }

    /// The sum of products of two tensors of one shape, which stays `[]`. Gradients g b and g a.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![3f64, 4.0], &[2], &Device::Cpu);
    /// assert_eq!(x.dot(&x).item()?, 25.0);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn dot(&self, rhs: &Var) -> Var {
        composite("dot", &[self, rhs], || {
            if self.shape() != rhs.shape() {
                return Var::invalid(Error::Shape {
                    op: "dot",
                    shapes: vec![self.shape().to_vec(), rhs.shape().to_vec()],
                    why: "differ".into(),
                    at: here(),
                });
            }
            (self * rhs).sum()
        })
    }

    #[track_caller]
    pub(crate) fn matrix_product(&self, rhs: &Var) -> Var {
        Var::apply("matmul", [self, rhs], |at| {
            require_float("matmul", &[self, rhs], at)?;
            let (a, b) = (self.shape(), rhs.shape());
            let shapes = || vec![a.to_vec(), b.to_vec()];
            let ([batch_a @ .., m, k], [batch_b @ .., k2, n]) = (a, b) else {
                let why = "need rank 1 or more".into();
                return Err(Error::Shape { op: "matmul", shapes: shapes(), why, at });
            };
            if k != k2 {
                let why =
                    format!("do not multiply: {k} columns on the left, {k2} rows on the right");
                return Err(Error::Shape { op: "matmul", shapes: shapes(), why, at });
            }
            let mut shape = dims::broadcast(batch_a, batch_b).ok_or_else(|| Error::Shape {
                op: "matmul",
                shapes: shapes(),
                why: "do not multiply: the leading dimensions do not broadcast".into(),
                at,
            })?;
            shape.extend([*m, *n]);
            Ok((Op::MatMul, shape, self.dtype()))
        })
    }
}
