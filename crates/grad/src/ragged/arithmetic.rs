use std::ops::{Add, Div, Mul, Neg, Sub};

use super::Ragged;
use crate::error::{Error, Loc};
use crate::graph::caller::{here, located};
use crate::graph::table::{binary_ops, compare_ops, unary_ops};
use crate::graph::var::Var;
use crate::ops::{Operand, composite};
use crate::sealed::{Sealed, seal};

/// What a `Ragged` combines with: another of the same lengths, or one number, constant or a rank-0
/// `Var`.
///
/// Rows meet rows. Rows of one shape combine as they are, or broadcast; those of `[rows]`, single
/// numbers, with all that a row of `[rows, ..trailing]` holds. Rows of different rank are otherwise
/// an [`Error::Shape`].
pub trait RaggedOperand: Sealed {
    /// The rows to combine with those of `lhs`, or the error that the lengths differ.
    #[doc(hidden)]
    fn rows_for(&self, lhs: &Ragged, op: &'static str, at: Loc) -> Var;
}

seal!(Ragged, &Ragged);

impl RaggedOperand for f64 {
    fn rows_for(&self, _lhs: &Ragged, _op: &'static str, at: Loc) -> Var {
        located(at, || self.operand())
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
        Var::invalid(Error::Shape { op, shapes: vec![self.shape().to_vec()], why, at })
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
        Var::invalid(Error::SequenceLength { op, seq, left, right, at })
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
        self.by_row(op, &[&rhs.rows_for(self, op, here())], |rows| f(&rows[0], &rows[1]))
    }

    /// `f` of these rows and those of `others`, aligned row by row: NumPy's rule, which begins at
    /// the last dimension, would pair the rows of `[rows]` with the columns of `[rows, columns]`.
    #[track_caller]
    fn by_row(&self, op: &'static str, others: &[&Var], f: impl FnOnce(&[Var]) -> Var) -> Ragged {
        let operands = [&[&self.values], others].concat();
        let rank = operands.iter().map(|v| v.rank()).max().unwrap_or(0);
        let aligned = |v: &&Var| match v.rank() {
            own if own == 0 || own == rank => Some((*v).clone()),
            1 => {
                let mut shape = vec![1; rank];
                shape[0] = v.shape()[0];
                Some(v.reshape(&shape))
            }
            _ => None,
        };
        let values = composite(op, &operands, || {
            match operands.iter().map(aligned).collect::<Option<Vec<_>>>() {
                Some(rows) => f(&rows),
                None => Var::invalid(Error::Shape {
                    op,
                    shapes: Vec::new(),
                    why: "hold rows of different rank; reshape one, unless its rows are single numbers".into(),
                    at: here(),
                }),
            }
        });
        Ragged { values, segments: self.segments.clone() }
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

macro_rules! unary_methods {
    ($($(#[$doc:meta])* $Op:ident = $method:ident($x:ident $(, $($p:ident),+)?) {
        example: ($($argument:literal),*) [$($of:literal),+] => [$($is:literal),+],
        $($columns:tt)*
    })*) => {
        /// Elementwise, as the methods of [`Var`] of the same names.
        impl Ragged {
            $(
                #[doc = concat!("[`Var::", stringify!($method), "`] of every row.")]
                ///
                /// ```
                /// # use tinsmith_grad::{Device, Ragged};
                #[doc = concat!("let x = Ragged::from_vecs(&[vec![", stringify!($($of),+), "]], &Device::Cpu);")]
                #[doc = concat!("let y = x.", stringify!($method($($argument),*)), ";")]
                #[doc = concat!("assert_eq!(y.values().to_vec::<f64>()?, [", stringify!($($is),+), "]);")]
                /// # anyhow::Ok(())
                /// ```
                #[track_caller]
                pub fn $method(&self $($(, $p: f64)+)?) -> Ragged {
                    self.each(|x| x.$method($($($p),+)?))
                }
            )*
        }
    };
}
unary_ops!(unary_methods);

macro_rules! composite_methods {
    ($($method:ident($($arg:ident: $type:ty)?);)*) => {
        /// Elementwise, as the methods of [`Var`] of the same names.
        impl Ragged {
            $(
                #[doc = concat!("[`Var::", stringify!($method), "`] of every row.")]
                #[track_caller]
                pub fn $method(&self $(, $arg: $type)?) -> Ragged {
                    self.each(|x| x.$method($($arg)?))
                }
            )*
        }
    };
}
composite_methods! {
    log1mexp(); softplus(); relu(); silu(); detach(); clamp_min(lo: f64); clamp_max(hi: f64);
    to_dtype(dtype: candle_core::DType);
}

impl Ragged {
    /// Of every row, by `f`, which maps rows to as many rows.
    #[track_caller]
    fn each(&self, f: impl FnOnce(&Var) -> Var) -> Ragged {
        let values = located(here(), || f(&self.values));
        Ragged { values, segments: self.segments.clone() }
    }
}

macro_rules! with_operand {
    ($($method:ident)*) => {
        /// Elementwise with another batch of the same lengths, or a number, as the methods of
        /// [`Var`] of the same names.
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

macro_rules! binary_methods {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $args:tt { form: ($form:ident $($example:tt)*), $($columns:tt)* })*) => {
        $(binary_methods!(@$form $method);)*
    };
    (@operator $method:ident) => {};
    (@method $method:ident) => { with_operand! { $method } };
}
binary_ops!(binary_methods);

macro_rules! compare_methods {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $columns:tt)*) => {
        with_operand! { $($method)* }
    };
}
compare_ops!(compare_methods);

impl Ragged {
    /// Elementwise choice by this u8 mask; see [`Var::select`], from which it differs in name
    /// because [`select`](Ragged::select) chooses sequences.
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
        let on_true = on_true.rows_for(self, "where_", at);
        let on_false = on_false.rows_for(self, "where_", at);
        self.by_row("where_", &[&on_true, &on_false], |rows| rows[0].select(&rows[1], &rows[2]))
    }
}
