use candle_core::DType;

use super::binary::{Operand, adapt, broadcast};
use super::unary::require_float;
use crate::error::Error;
use crate::graph::op::{CompareOp, Op};
use crate::graph::table::compare_ops;
use crate::graph::var::Var;

macro_rules! compare_methods {
    ($($(#[$doc:meta])* $Op:ident = $method:ident {
        sign: $sign:tt, example: [$($of:literal),+] $with:literal => [$($is:literal),+]
    })*) => {
        /// Comparisons, elementwise and broadcasting. The result is a u8 mask of 0 and 1, for [`select`](Var::select)
        /// or `to_dtype`. There is no gradient through a comparison; a comparison with NaN is 0, but for `ne`.
        impl Var {
            $(
                $(#[$doc])*
                ///
                /// ```
                /// # use tinsmith_grad::{Device, Tensor, Var};
                #[doc = concat!("let x = Var::new(Tensor::new(&[", stringify!($($of),+), "i64], &Device::Cpu)?);")]
                #[doc = concat!("assert_eq!(x.", stringify!($method), "(", stringify!($with), ").to_vec::<u8>()?, [",
                    stringify!($($is),+), "]);")]
                /// # anyhow::Ok(())
                /// ```
                #[track_caller]
                pub fn $method(&self, rhs: impl Operand) -> Var {
                    compare(CompareOp::$Op, self, &rhs.operand())
                }
            )*
        }
    };
}
compare_ops!(compare_methods);

impl Var {
    /// Elementwise choice by this u8 mask: `on_true` where it is not 0, else `on_false`; all three broadcast.
    ///
    /// The gradient of the value that is not chosen is 0, whatever the value; but an op *before* the choice still
    /// multiplies that 0 by its own derivative, and 0 · inf is NaN. Feed such an op a harmless number where it is
    /// not chosen, as [`log1mexp`](Var::log1mexp) does.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![-1f64, 2.0], &[2], &Device::Cpu);
    /// assert_eq!(x.gt(0.0).select(&x, 0.0).to_vec::<f64>()?, [0.0, 2.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn select(&self, on_true: impl Operand, on_false: impl Operand) -> Var {
        let (a, b) = (on_true.operand(), on_false.operand());
        let (a, b) = adapt(&a, &b);
        Var::apply("select", [self, &a, &b], |at| {
            if self.dtype() != DType::U8 {
                let why = "needs a u8 mask, as a comparison gives";
                return Err(Error::DType {
                    op: "select",
                    dtypes: vec![self.dtype()],
                    why,
                    at,
                });
            }
            require_float("select", &[&a, &b], at)?;
            Ok((
                Op::Select,
                broadcast("select", &[self, &a, &b], at)?,
                a.dtype(),
            ))
        })
    }
}

#[track_caller]
fn compare(op: CompareOp, lhs: &Var, rhs: &Var) -> Var {
    let (lhs, rhs) = adapt(lhs, rhs);
    Var::apply(op.name(), [&lhs, &rhs], |at| {
        if lhs.dtype() != rhs.dtype() {
            let why = "needs operands of one dtype; convert one with to_dtype";
            return Err(Error::DType {
                op: op.name(),
                dtypes: vec![lhs.dtype(), rhs.dtype()],
                why,
                at,
            });
        }
        Ok((
            Op::Compare(op),
            broadcast(op.name(), &[&lhs, &rhs], at)?,
            DType::U8,
        ))
    })
}
