use std::ops::{Add, Div, Mul, Neg, Sub};

use candle_core::DType;

use super::unary::require_float;
use crate::error::{Error, Loc, Result};
use crate::graph::dims::{self, Dims};
use crate::graph::op::{BinaryOp, Op};
use crate::graph::var::Var;

/// A `Var`, `&Var` or plain number as the operand of an op.
///
/// ```
/// # use tinsmith_grad::{Device, Operand, Var};
/// fn halfway(a: &Var, b: impl Operand) -> Var {
///     (a + b.operand()) * 0.5
/// }
/// let x = Var::from_vec(vec![1f64, 3.0], &[2], &Device::Cpu);
/// assert_eq!(halfway(&x, 3.0).to_vec::<f64>()?, [2.0, 3.0]);
/// assert_eq!(halfway(&x, &x).to_vec::<f64>()?, [1.0, 3.0]);
/// # anyhow::Ok(())
/// ```
pub trait Operand {
    /// The operand as a `Var`; a number becomes [`Var::scalar`].
    #[track_caller]
    fn operand(self) -> Var;
}

impl Operand for Var {
    fn operand(self) -> Var {
        self
    }
}

impl Operand for &Var {
    fn operand(self) -> Var {
        self.clone()
    }
}

impl Operand for f64 {
    #[track_caller]
    fn operand(self) -> Var {
        Var::scalar(self)
    }
}

macro_rules! operator {
    ($($trait:ident :: $method:ident => $op:ident),*) => {$(
        impl<R: Operand> $trait<R> for Var {
            type Output = Var;
            #[track_caller]
            fn $method(self, rhs: R) -> Var {
                binary(BinaryOp::$op, &self, &rhs.operand())
            }
        }
        impl<R: Operand> $trait<R> for &Var {
            type Output = Var;
            #[track_caller]
            fn $method(self, rhs: R) -> Var {
                binary(BinaryOp::$op, self, &rhs.operand())
            }
        }
        impl $trait<Var> for f64 {
            type Output = Var;
            #[track_caller]
            fn $method(self, rhs: Var) -> Var {
                binary(BinaryOp::$op, &self.operand(), &rhs)
            }
        }
        impl $trait<&Var> for f64 {
            type Output = Var;
            #[track_caller]
            fn $method(self, rhs: &Var) -> Var {
                binary(BinaryOp::$op, &self.operand(), rhs)
            }
        }
    )*};
}

operator!(Add::add => Add, Sub::sub => Sub, Mul::mul => Mul, Div::div => Div);

impl Neg for Var {
    type Output = Var;
    #[track_caller]
    fn neg(self) -> Var {
        Var::neg(&self)
    }
}

impl Neg for &Var {
    type Output = Var;
    #[track_caller]
    fn neg(self) -> Var {
        Var::neg(self)
    }
}

/// Elementwise functions of two operands, which broadcast by NumPy's rule. `+ - * /` work between `Var`, `&Var` and
/// `f64`. Both operands have one dtype, f32 or f64.
impl Var {
    /// The greater of the two, NaN if either is. The gradient goes to the greater one, half to each on a tie.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 5.0], &[2], &Device::Cpu);
    /// assert_eq!(x.maximum(3.0).to_vec::<f64>()?, [3.0, 5.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn maximum(&self, rhs: impl Operand) -> Var {
        binary(BinaryOp::Maximum, self, &rhs.operand())
    }

    /// The smaller of the two, NaN if either is. The gradient goes to the smaller one, half to each on a tie.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 5.0], &[2], &Device::Cpu);
    /// assert_eq!(x.minimum(3.0).to_vec::<f64>()?, [1.0, 3.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn minimum(&self, rhs: impl Operand) -> Var {
        binary(BinaryOp::Minimum, self, &rhs.operand())
    }

    /// `self` to the power `rhs`. At 0 to the power 0 the base has gradient 0; a base of 0 gives the exponent none.
    /// For a constant exponent, [`powf`](Var::powf) is cheaper.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![2f64, 3.0], &[2], &Device::Cpu);
    /// assert_eq!(x.pow(&x).to_vec::<f64>()?, [4.0, 27.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn pow(&self, rhs: impl Operand) -> Var {
        binary(BinaryOp::Pow, self, &rhs.operand())
    }
}

#[track_caller]
fn binary(op: BinaryOp, lhs: &Var, rhs: &Var) -> Var {
    let (lhs, rhs) = adapt(lhs, rhs);
    Var::apply(op.name(), [&lhs, &rhs], |at| {
        require_float(op.name(), &[&lhs, &rhs], at)?;
        Ok((
            Op::Binary(op),
            broadcast(op.name(), &[&lhs, &rhs], at)?,
            lhs.dtype(),
        ))
    })
}

/// A plain number takes the dtype and device of the other operand.
#[track_caller]
pub(super) fn adapt(lhs: &Var, rhs: &Var) -> (Var, Var) {
    let lhs = like(lhs, rhs);
    let rhs = like(rhs, &lhs);
    (lhs, rhs)
}

#[track_caller]
fn like(constant: &Var, other: &Var) -> Var {
    let number = |v: &Var| match v.0.op {
        Op::Full(value) if v.rank() == 0 => Some(value),
        _ => None,
    };
    // Of two numbers the one that has no dtype and device of its own gives way.
    let gives_way =
        number(other).is_none() || (constant.dtype() == DType::F64 && constant.device().is_cpu());
    let is_alike =
        constant.dtype() == other.dtype() && constant.device().same_device(other.device());
    match number(constant) {
        Some(value) if gives_way && !is_alike => {
            Var::full(value, &[], other.dtype(), other.device())
        }
        _ => constant.clone(),
    }
}

pub(super) fn broadcast(op: &'static str, operands: &[&Var], at: Loc) -> Result<Dims> {
    let mut shape = Dims::from_slice(operands[0].shape());
    for operand in &operands[1..] {
        shape = dims::broadcast(&shape, operand.shape()).ok_or_else(|| Error::Shape {
            op,
            shapes: operands.iter().map(|v| v.shape().to_vec()).collect(),
            why: "do not broadcast: aligned from the right, sizes must be equal or 1".into(),
            at,
        })?;
    }
    Ok(shape)
}
