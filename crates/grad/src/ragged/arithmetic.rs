use std::ops::{Add, Div, Mul, Neg, Sub};

use super::Ragged;
use crate::error::{Error, Loc};
use crate::graph::caller::{here, located};
use crate::graph::var::Var;

/// What a `Ragged` combines with: another of the same lengths, or one number, constant or a rank-0 `Var`.
pub trait RaggedOperand {
    /// The rows to combine with those of `lhs`, or the error that the lengths differ.
    #[doc(hidden)]
    fn rows_for(&self, lhs: &Ragged, op: &'static str, at: Loc) -> Var;
}

impl RaggedOperand for f64 {
    fn rows_for(&self, _lhs: &Ragged, _op: &'static str, at: Loc) -> Var {
        located(at, || Var::scalar(*self))
    }
}

/// One number for the whole batch; a value for each sequence wants [`Ragged::expand`].
impl RaggedOperand for &Var {
    fn rows_for(&self, _lhs: &Ragged, op: &'static str, at: Loc) -> Var {
        if self.rank() == 0 {
            return (*self).clone();
        }
        let why =
            "is not one number; bring a value for each sequence to its rows with Ragged::expand"
                .into();
        Var::invalid(Error::Shape {
            op,
            shapes: vec![self.shape().to_vec()],
            why,
            at,
        })
    }
}

impl RaggedOperand for Var {
    fn rows_for(&self, lhs: &Ragged, op: &'static str, at: Loc) -> Var {
        (&self).rows_for(lhs, op, at)
    }
}

impl RaggedOperand for Ragged {
    fn rows_for(&self, lhs: &Ragged, op: &'static str, at: Loc) -> Var {
        (&self).rows_for(lhs, op, at)
    }
}

impl RaggedOperand for &Ragged {
    fn rows_for(&self, lhs: &Ragged, op: &'static str, at: Loc) -> Var {
        if lhs.segments == self.segments
            || lhs.values.error().is_some()
            || self.values.error().is_some()
        {
            return self.values.clone();
        }
        if lhs.num_seqs() != self.num_seqs() {
            let why = format!(
                "{} sequences on the left, {} on the right",
                lhs.num_seqs(),
                self.num_seqs()
            );
            return Var::invalid(Error::Argument { op, why, at });
        }
        let lengths = lhs.lengths().iter().zip(self.lengths());
        let (seq, (&left, &right)) = lengths
            .enumerate()
            .find(|(_, (l, r))| l != r)
            .expect("segments of one count differ in a length");
        Var::invalid(Error::SequenceLength {
            op,
            seq,
            left,
            right,
            at,
        })
    }
}

impl Ragged {
    #[track_caller]
    fn zip(
        &self,
        op: &'static str,
        rhs: impl RaggedOperand,
        f: impl FnOnce(&Var, &Var) -> Var,
    ) -> Ragged {
        let at = here();
        let rhs = rhs.rows_for(self, op, at);
        let values = match rhs.error() {
            Some(_) if self.values.error().is_none() => rhs,
            _ => located(at, || f(&self.values, &rhs)),
        };
        Ragged {
            values,
            segments: self.segments.clone(),
        }
    }
}

macro_rules! operator {
    ($($trait:ident :: $method:ident, $name:literal;)*) => {$(
        impl<R: RaggedOperand> $trait<R> for &Ragged {
            type Output = Ragged;
            #[track_caller]
            fn $method(self, rhs: R) -> Ragged {
                self.zip($name, rhs, |a, b| $trait::$method(a, b))
            }
        }
        impl<R: RaggedOperand> $trait<R> for Ragged {
            type Output = Ragged;
            #[track_caller]
            fn $method(self, rhs: R) -> Ragged {
                self.zip($name, rhs, |a, b| $trait::$method(a, b))
            }
        }
        impl $trait<&Ragged> for f64 {
            type Output = Ragged;
            #[track_caller]
            fn $method(self, rhs: &Ragged) -> Ragged {
                rhs.zip($name, self, |b, a| $trait::$method(a, b))
            }
        }
        impl $trait<Ragged> for f64 {
            type Output = Ragged;
            #[track_caller]
            fn $method(self, rhs: Ragged) -> Ragged {
                rhs.zip($name, self, |b, a| $trait::$method(a, b))
            }
        }
    )*};
}

operator!(Add::add, "add"; Sub::sub, "sub"; Mul::mul, "mul"; Div::div, "div";);

impl Neg for Ragged {
    type Output = Ragged;
    #[track_caller]
    fn neg(self) -> Ragged {
        Ragged::neg(&self)
    }
}

impl Neg for &Ragged {
    type Output = Ragged;
    #[track_caller]
    fn neg(self) -> Ragged {
        Ragged::neg(self)
    }
}

macro_rules! elementwise {
    ($($method:ident($($arg:ident: $type:ty),*);)*) => {
        /// Elementwise, as the methods of [`Var`] of the same names.
        impl Ragged {
            $(
                #[doc = concat!("[`Var::", stringify!($method), "`] of every row.")]
                #[track_caller]
                pub fn $method(&self, $($arg: $type),*) -> Ragged {
                    let at = here();
                    Ragged { values: located(at, || Var::$method(&self.values, $($arg),*)), segments: self.segments.clone() }
                }
            )*
        }
    };
}

elementwise! {
    neg(); exp(); expm1(); log(); log1p(); log1mexp(); sqrt(); rsqrt(); abs(); sign(); tanh(); sigmoid(); log_sigmoid();
    softplus(); relu(); silu(); erf(); sin(); cos(); square(); recip(); floor(); ceil(); round(); detach();
    powf(exponent: f64); clamp(lo: f64, hi: f64); clamp_min(lo: f64); clamp_max(hi: f64);
    to_dtype(dtype: candle_core::DType);
}

macro_rules! with_operand {
    ($($method:ident)*) => {
        /// Elementwise with another batch of the same lengths, or a number, as the methods of [`Var`] of the same names.
        impl Ragged {
            $(
                #[doc = concat!("[`Var::", stringify!($method), "`] of every row.")]
                #[track_caller]
                pub fn $method(&self, rhs: impl RaggedOperand) -> Ragged {
                    self.zip(stringify!($method), rhs, |a, b| a.$method(b))
                }
            )*
        }
    };
}

with_operand! { maximum minimum pow eq ne lt le gt ge }

impl Ragged {
    /// Elementwise choice by this u8 mask; see [`Var::select`], from which it differs in name because
    /// [`select`](Ragged::select) chooses sequences.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged};
    /// # let x = Ragged::from_vecs(&[vec![1f64, 5.0], vec![4.0]], &Device::Cpu);
    /// assert_eq!(x.gt(3.0).where_(&x, 0.0).values().to_vec::<f64>()?, [0.0, 5.0, 4.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn where_(&self, on_true: impl RaggedOperand, on_false: impl RaggedOperand) -> Ragged {
        let at = here();
        let on_false = on_false.rows_for(self, "select", at);
        self.zip("select", on_true, |mask, on_true| {
            mask.select(on_true, on_false)
        })
    }
}
