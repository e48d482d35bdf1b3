use std::ops::{Add, Div, Mul, Neg, Sub};

use candle_core::{DType, Device};

use super::unary::require_float;
use crate::error::{Error, Loc, Result};
use crate::graph::dims::{self, Dims};
use crate::graph::op::{BinaryOp, Op};
use crate::graph::table::binary_ops;
use crate::graph::var::Var;
use crate::sealed::{Sealed, seal};

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
pub trait Operand: Sealed {
    /// The operand as a `Var`; a number becomes [`Var::scalar`].
    #[track_caller]
    fn operand(self) -> Var;
}

seal!(Var, &Var);

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
        Var::literal(self, &[], DType::F64, &Device::Cpu)
    }
}

macro_rules! binary_methods {
    (
        $($(#[$doc:meta])* $op:ident = $method:ident($a:ident, $b:ident) { form: ($($form:tt)*), $($columns:tt)* })*
    ) => {$(
        binary_method!($($form)*; $(#[$doc])* $op $method);
    )*};
}

macro_rules! binary_method {
    (operator $trait:ident; $op:ident $method:ident) => {
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
    };
    (method [$of:literal] [$with:literal] => [$is:literal]; $(#[$doc:meta])* $op:ident $method:ident) => {
        impl Var {
            $(#[$doc])*
            ///
            /// ```
            /// # use tinsmith_grad::{Device, Tensor, Var};
            #[doc = concat!("let x = Var::new(Tensor::new(&[", stringify!($of), "], &Device::Cpu)?);")]
            #[doc = concat!("assert_eq!(x.", stringify!($method), "(", stringify!($with), ").to_vec::<f64>()?, [",
                stringify!($is), "]);")]
            /// # anyhow::Ok(())
            /// ```
            #[track_caller]
            pub fn $method(&self, rhs: impl Operand) -> Var {
                binary(BinaryOp::$op, self, &rhs.operand())
            }
        }
    };
}
binary_ops!(binary_methods);

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

#[track_caller]
fn binary(op: BinaryOp, lhs: &Var, rhs: &Var) -> Var {
    let (lhs, rhs) = adapt(lhs, rhs);
    Var::apply(op.name(), [&lhs, &rhs], |at| {
        require_float(op.name(), &[&lhs, &rhs], at)?;
        Ok((Op::Binary(op), broadcast(op.name(), &[&lhs, &rhs], at)?, lhs.dtype()))
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
    match adapts(constant, other) {
        Some(value) if constant.0.is_literal => {
            Var::literal(value, &[], other.dtype(), other.device())
        }
        Some(_) => constant.cast_like(other),
        None => constant.clone(),
    }
}

/// The value of `constant` if it is a plain number that takes the dtype and device of `other`.
pub(super) fn adapts(constant: &Var, other: &Var) -> Option<f64> {
    let number = |v: &Var| match v.0.op {
        Op::Full(value) if v.rank() == 0 => Some(value.get()),
        _ => None,
    };
    // Of two numbers the one that has no dtype and device of its own gives way.
    let gives_way =
        number(other).is_none() || (constant.dtype() == DType::F64 && constant.device().is_cpu());
    let is_alike =
        constant.dtype() == other.dtype() && constant.device().same_device(other.device());
    number(constant).filter(|_| gives_way && !is_alike)
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
