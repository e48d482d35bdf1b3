use candle_core::DType;

use super::binary::{Operand, adapt, adapts, broadcast};
use super::unary::require_float;
use crate::error::Error;
use crate::graph::op::{CompareOp, Op};
use crate::graph::table::compare_ops;
use crate::graph::var::Var;

macro_rules! compare_methods {
    ($($(#[$doc:meta])* $Op:ident = $method:ident {
        sign: $sign:tt, example: [$($of:literal),+] $with:literal => [$($is:literal),+]
    })*) => {
        /// Comparisons, elementwise and broadcasting. The result is a u8 mask of 0 and 1, for
        /// [`select`](Var::select) or `to_dtype`. There is no gradient through a comparison; a
        /// comparison with NaN is 0, but for `ne`. Integers compare with any number as real
        /// numbers: no u32 is below -100, and a u8 mask may be asked for `gt(0.5)`.
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
    /// Elementwise choice by this u8 mask: `on_true` where it is not 0, else `on_false`; all three
    /// broadcast.
    ///
    /// The gradient of the value that is not chosen is 0, whatever the value; but an op *before*
    /// the choice still multiplies that 0 by its own derivative, and 0 · inf is NaN. Feed such an
    /// op a harmless number where it is not chosen, as [`log1mexp`](Var::log1mexp) does.
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
                return Err(Error::DType { op: "select", dtypes: vec![self.dtype()], why, at });
            }
            require_float("select", &[&a, &b], at)?;
            Ok((Op::Select, broadcast("select", &[self, &a, &b], at)?, a.dtype()))
        })
    }
}

#[track_caller]
fn compare(op: CompareOp, lhs: &Var, rhs: &Var) -> Var {
    let (op, lhs, rhs) = match (adapts(lhs, rhs), adapts(rhs, lhs)) {
        (_, Some(c)) => {
            let (op, c) = exactly(op, lhs.dtype(), c);
            (op, lhs.clone(), c.operand())
        }
        (Some(c), None) => {
            let (op, c) = exactly(mirrored(op), rhs.dtype(), c);
            (mirrored(op), c.operand(), rhs.clone())
        }
        (None, None) => (op, lhs.clone(), rhs.clone()),
    };
    let (lhs, rhs) = adapt(&lhs, &rhs);
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
        Ok((Op::Compare(op), broadcast(op.name(), &[&lhs, &rhs], at)?, DType::U8))
    })
}

/// A comparison of values of `dtype` with a number that they can hold, true for the same values as
/// that with `c`: `x < c` is `x < ceil c` for an integer, and where none or all are on one side,
/// all or none are at least the least one.
fn exactly(op: CompareOp, dtype: DType, c: f64) -> (CompareOp, f64) {
    use CompareOp::{Eq, Ge, Gt, Le, Lt, Ne};
    let (least, beyond) = match dtype {
        DType::U8 => (0.0, 256.0),
        DType::U32 => (0.0, 2f64.powi(32)),
        DType::I64 => (-(2f64.powi(63)), 2f64.powi(63)),
        _ => return (op, c),
    };
    let bound = match op {
        Lt | Ge => c.ceil(),
        Le | Gt => c.floor(),
        Eq | Ne => c,
    };
    if (least..beyond).contains(&bound) && bound == bound.trunc() {
        return (op, bound);
    }
    let always = match op {
        Lt | Le => bound >= beyond,
        Gt | Ge => bound < least,
        Eq => false,
        Ne => true,
    };
    (if always { Ge } else { Lt }, least)
}

/// The comparison that says the same with its operands exchanged.
fn mirrored(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Lt => CompareOp::Gt,
        CompareOp::Le => CompareOp::Ge,
        CompareOp::Gt => CompareOp::Lt,
        CompareOp::Ge => CompareOp::Le,
        CompareOp::Eq | CompareOp::Ne => op,
    }
}
