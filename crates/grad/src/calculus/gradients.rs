use std::ops::Index;

use candle_core::Tensor;

use crate::diagnose::non_finite;
use crate::error::{Loc, Result};
use crate::exec;

/// The value of a root, and of what else [`Backward::aux`](crate::Backward::aux) named.
#[derive(Debug, Clone)]
pub struct Values {
    pub(super) root: Tensor,
    pub(super) aux: Vec<Tensor>,
}

impl Values {
    /// The value of a root that is one number; NaN for any other.
    pub fn value(&self) -> f64 {
        exec::number(&self.root).unwrap_or(f64::NAN)
    }

    /// The value of the root.
    pub fn root(&self) -> &Tensor {
        &self.root
    }

    /// The values of the extra roots that [`Backward::aux`](crate::Backward::aux) named.
    pub fn aux(&self) -> &[Tensor] {
        &self.aux
    }

    pub(super) fn is_finite(&self, at: Loc) -> Result<bool> {
        non_finite::all_finite(std::slice::from_ref(&self.root), at)
    }
}

/// What [`Var::backward`](crate::Var::backward) found: the value of the root and one gradient for
/// each leaf asked for, in that order, each with the leaf's shape, dtype and device.
#[derive(Debug, Clone)]
pub struct Gradients {
    pub(super) values: Values,
    pub(super) grads: Vec<Tensor>,
}

impl Gradients {
    /// The value of a root that is one number; NaN for any other.
    pub fn value(&self) -> f64 {
        self.values.value()
    }

    /// The value of the root.
    pub fn root(&self) -> &Tensor {
        self.values.root()
    }

    /// The gradients, in the order they were asked for.
    pub fn as_slice(&self) -> &[Tensor] {
        &self.grads
    }

    /// The gradients, in the order they were asked for.
    pub fn into_vec(self) -> Vec<Tensor> {
        self.grads
    }

    /// The values of the extra roots that [`Backward::aux`](crate::Backward::aux) named.
    pub fn aux(&self) -> &[Tensor] {
        self.values.aux()
    }
}

/// The gradient of the leaf at that position of the list asked for.
impl Index<usize> for Gradients {
    type Output = Tensor;

    fn index(&self, leaf: usize) -> &Tensor {
        &self.grads[leaf]
    }
}
