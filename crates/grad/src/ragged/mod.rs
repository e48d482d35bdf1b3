use std::ops::{Add, Div, Mul, Neg, Sub};
use std::panic::Location;

use candle_core::Device;

use crate::error::{Error, Loc};
use crate::graph::op::{Op, ReduceOp};
use crate::graph::segments::Segments;
use crate::graph::var::{Element, Var, here, located};

/// A batch of sequences of unequal length: their rows one after another in one packed [`Var`] of shape
/// `[rows, ..trailing]`, and the length of each.
///
/// Elementwise ops run on the packed rows, all sequences at once. The `_per_seq` methods reduce each sequence to one
/// row, [`expand`](Ragged::expand) goes back. Two batches combine only if their lengths agree, sequence by sequence.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// let values = Var::from_vec(vec![1f64, 2.0, 3.0, 10.0, 20.0], &[5], &Device::Cpu);
/// let x = Ragged::new(values, &[3, 2]);
/// assert_eq!(x.sum_per_seq().to_vec::<f64>()?, [6.0, 30.0]);
///
/// let centred = &x - x.expand(&x.mean_per_seq());
/// assert_eq!(centred.values().to_vec::<f64>()?, [-1.0, 0.0, 1.0, -5.0, 5.0]);
/// assert_eq!(x.seqs()[1].sum().item()?, 30.0);
/// # anyhow::Ok(())
/// ```
#[derive(Clone, Debug)]
pub struct Ragged {
    values: Var,
    segments: Segments,
}

/// Making and taking apart.
impl Ragged {
    /// The rows of `values` divided into sequences of these `lengths`, which add up to its first dimension.
    #[track_caller]
    pub fn new(values: Var, lengths: &[usize]) -> Ragged {
        Ragged::with_segments(values, Segments::new(lengths), here())
    }

    /// Sequences joined into a batch. The inverse of [`seqs`](Ragged::seqs), and without a copy when given just those.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged, Var};
    /// let a = Var::from_vec(vec![1f64, 2.0], &[2], &Device::Cpu);
    /// let b = Var::from_vec(vec![3f64], &[1], &Device::Cpu);
    /// assert_eq!(Ragged::from_seqs(&[a, b]).lengths(), [2, 1]);
    /// ```
    #[track_caller]
    pub fn from_seqs(seqs: &[Var]) -> Ragged {
        let lengths: Vec<usize> = seqs
            .iter()
            .map(|seq| seq.shape().first().copied().unwrap_or(0))
            .collect();
        let values =
            whole(seqs).unwrap_or_else(|| located(Location::caller(), || Var::cat(seqs, 0)));
        Ragged::new(values, &lengths)
    }

    /// One sequence of numbers for each vector, joined into a batch of leaves of rank 1.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged};
    /// let x = Ragged::from_vecs(&[vec![1f64, 2.0, 3.0], vec![10.0]], &Device::Cpu);
    /// assert_eq!(x.sum_per_seq().to_vec::<f64>()?, [6.0, 10.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn from_vecs<T: Element>(seqs: &[impl AsRef<[T]>], device: &Device) -> Ragged {
        let lengths: Vec<usize> = seqs.iter().map(|seq| seq.as_ref().len()).collect();
        let packed: Vec<T> = seqs
            .iter()
            .flat_map(|seq| seq.as_ref().iter().copied())
            .collect();
        let rows = packed.len();
        Ragged::new(Var::from_vec(packed, &[rows], device), &lengths)
    }

    fn with_segments(values: Var, segments: Segments, at: Loc) -> Ragged {
        if values.error().is_some() || values.shape().first() == Some(&segments.rows()) {
            let _ = values.0.sequences.set(Box::new(segments.clone()));
            return Ragged { values, segments };
        }
        let why = format!(
            "does not begin with {}, the sum of {} lengths",
            segments.rows(),
            segments.len()
        );
        let error = Error::Shape {
            op: "ragged",
            shapes: vec![values.shape().to_vec()],
            why,
            at,
        };
        Ragged {
            values: Var::invalid(error),
            segments,
        }
    }

    /// The rows of all sequences, one after another: `[rows, ..trailing]`.
    pub fn values(&self) -> &Var {
        &self.values
    }

    /// The number of rows of each sequence.
    pub fn lengths(&self) -> &[usize] {
        self.segments.lengths()
    }

    /// Where each sequence begins in [`values`](Ragged::values), and at the end the number of rows.
    pub fn offsets(&self) -> &[usize] {
        self.segments.offsets()
    }

    /// The number of sequences.
    pub fn num_seqs(&self) -> usize {
        self.segments.len()
    }

    /// The number of rows of all sequences together.
    pub fn total(&self) -> usize {
        self.segments.rows()
    }

    /// Each sequence on its own, `[length, ..trailing]`: views, not copies.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged};
    /// # let x = Ragged::from_vecs(&[vec![1f64, 5.0], vec![4.0]], &Device::Cpu);
    /// assert_eq!(x.seqs()[0].to_vec::<f64>()?, [1.0, 5.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn seqs(&self) -> Vec<Var> {
        let at = here();
        let seq = |range: std::ops::Range<usize>| self.values.narrow(0, range.start, range.len());
        located(at, || self.segments.ranges().map(seq).collect())
    }

    /// The lengths as numbers to compute with: `[num_seqs]`, in the dtype and on the device of the values, constant.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged};
    /// # let x = Ragged::from_vecs(&[vec![1f64, 5.0], vec![4.0]], &Device::Cpu);
    /// assert_eq!(x.counts().to_vec::<f64>()?, [2.0, 1.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn counts(&self) -> Var {
        let counts: Vec<f64> = self.lengths().iter().map(|&n| n as f64).collect();
        located(Location::caller(), || {
            Var::from_vec(counts, &[self.num_seqs()], self.values.device())
                .to_dtype(self.values.dtype())
        })
    }

    /// The same division of other rows: `f` maps `[rows, ..]` to as many rows.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged, Var};
    /// let x = Ragged::new(Var::from_vec(vec![0f64, 1.0], &[2], &Device::Cpu), &[1, 1]);
    /// assert_eq!(x.map(|v| v.exp() - 1.0).values().to_vec::<f64>()?[0], 0.0);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn map(&self, f: impl FnOnce(&Var) -> Var) -> Ragged {
        let at = here();
        Ragged::with_segments(f(&self.values), self.segments.clone(), at)
    }

    /// The batch of the sequences `seqs`, in that order; a sequence may be named more than once.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged};
    /// # let x = Ragged::from_vecs(&[vec![1f64, 5.0], vec![4.0]], &Device::Cpu);
    /// assert_eq!(x.select(&[1, 0]).values().to_vec::<f64>()?, [4.0, 1.0, 5.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn select(&self, seqs: &[usize]) -> Ragged {
        let at = here();
        if let Some(&seq) = seqs.iter().find(|&&seq| seq >= self.num_seqs()) {
            let why = format!(
                "sequence {seq} is outside of a batch of {}",
                self.num_seqs()
            );
            let values = Var::invalid(Error::Argument {
                op: "select",
                why,
                at,
            });
            return Ragged {
                values,
                segments: Segments::new(&[]),
            };
        }
        let lengths: Vec<usize> = seqs.iter().map(|&seq| self.lengths()[seq]).collect();
        let rows = seqs.iter().flat_map(|&seq| self.segments.range(seq));
        self.rows(rows, &lengths, at)
    }

    /// Each sequence cut to its first `lengths[i]` rows: the explicit way to align two batches.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged};
    /// # let x = Ragged::from_vecs(&[vec![1f64, 5.0], vec![4.0]], &Device::Cpu);
    /// assert_eq!(x.truncate_to(&[1, 1]).values().to_vec::<f64>()?, [1.0, 4.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn truncate_to(&self, lengths: &[usize]) -> Ragged {
        let at = here();
        if lengths == self.lengths() {
            return self.clone();
        }
        let too_long = self
            .lengths()
            .iter()
            .zip(lengths)
            .position(|(have, want)| have < want);
        let why = match too_long {
            _ if lengths.len() != self.num_seqs() => {
                format!(
                    "{} lengths for a batch of {} sequences",
                    lengths.len(),
                    self.num_seqs()
                )
            }
            Some(seq) => format!(
                "sequence {seq} has {} rows, fewer than {}",
                self.lengths()[seq],
                lengths[seq]
            ),
            None => {
                let starts = self.offsets().iter();
                let rows = starts
                    .zip(lengths)
                    .flat_map(|(&start, &length)| start..start + length);
                return self.rows(rows, lengths, at);
            }
        };
        let values = Var::invalid(Error::Argument {
            op: "truncate_to",
            why,
            at,
        });
        Ragged {
            values,
            segments: Segments::new(lengths),
        }
    }

    fn rows(&self, rows: impl Iterator<Item = usize>, lengths: &[usize], at: Loc) -> Ragged {
        let rows: Vec<i64> = rows.map(|row| row as i64).collect();
        let count = rows.len();
        let values = located(at, || {
            let rows = Var::from_vec(rows, &[count], self.values.device());
            self.values.index_select(&rows, 0)
        });
        Ragged::with_segments(values, Segments::new(lengths), at)
    }
}

/// If `seqs` are, in order, all the rows of one packed `Var`: that.
fn whole(seqs: &[Var]) -> Option<Var> {
    let mut end = 0;
    let packed = seqs.first()?.0.inputs.first()?;
    for seq in seqs {
        let Op::Narrow { dim: 0, start } = seq.0.op else {
            return None;
        };
        if start != end || seq.0.inputs[0].0.id != packed.0.id {
            return None;
        }
        end += seq.shape()[0];
    }
    (packed.shape()[0] == end).then(|| packed.clone())
}

/// By sequence. Results have one row for each sequence: `[num_seqs, ..trailing]`.
impl Ragged {
    /// The sum of each sequence; 0 for an empty one.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged};
    /// # let x = Ragged::from_vecs(&[vec![1f64, 5.0], vec![4.0]], &Device::Cpu);
    /// assert_eq!(x.sum_per_seq().to_vec::<f64>()?, [6.0, 4.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn sum_per_seq(&self) -> Var {
        self.values.segment_reduce(ReduceOp::Sum, &self.segments)
    }

    /// The greatest row of each sequence, elementwise; -inf for an empty one. Ties share the gradient.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged};
    /// # let x = Ragged::from_vecs(&[vec![1f64, 5.0], vec![4.0]], &Device::Cpu);
    /// assert_eq!(x.max_per_seq().to_vec::<f64>()?, [5.0, 4.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn max_per_seq(&self) -> Var {
        self.values.segment_reduce(ReduceOp::Max, &self.segments)
    }

    /// The smallest row of each sequence, elementwise; inf for an empty one. Ties share the gradient.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged};
    /// # let x = Ragged::from_vecs(&[vec![1f64, 5.0], vec![4.0]], &Device::Cpu);
    /// assert_eq!(x.min_per_seq().to_vec::<f64>()?, [1.0, 4.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn min_per_seq(&self) -> Var {
        self.values.segment_reduce(ReduceOp::Min, &self.segments)
    }

    /// The mean of each sequence; NaN for an empty one.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged};
    /// # let x = Ragged::from_vecs(&[vec![1f64, 5.0], vec![4.0]], &Device::Cpu);
    /// assert_eq!(x.mean_per_seq().to_vec::<f64>()?, [3.0, 4.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn mean_per_seq(&self) -> Var {
        located(Location::caller(), || {
            let mut shape = vec![1; self.values.rank().max(1)];
            shape[0] = self.num_seqs();
            self.sum_per_seq() / self.counts().reshape(&shape)
        })
    }

    /// ln Σ e^x of each sequence, without overflow; -inf for an empty one.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged};
    /// # let x = Ragged::from_vecs(&[vec![1f64, 5.0], vec![4.0]], &Device::Cpu);
    /// assert_eq!(x.logsumexp_per_seq().to_vec::<f64>()?[1], 4.0);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn logsumexp_per_seq(&self) -> Var {
        located(Location::caller(), || {
            let max = self.shift();
            (self - self.expand(&max)).exp().sum_per_seq().log() + max
        })
    }

    /// e^x / Σ e^x within each sequence.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged};
    /// # let x = Ragged::from_vecs(&[vec![1f64, 5.0], vec![4.0]], &Device::Cpu);
    /// assert_eq!(x.softmax_per_seq().values().to_vec::<f64>()?[2], 1.0);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn softmax_per_seq(&self) -> Ragged {
        located(Location::caller(), || {
            let weights = (self - self.expand(&self.shift())).exp();
            &weights / weights.expand(&weights.sum_per_seq())
        })
    }

    /// x - ln Σ e^x within each sequence.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged};
    /// # let x = Ragged::from_vecs(&[vec![1f64, 5.0], vec![4.0]], &Device::Cpu);
    /// assert_eq!(x.log_softmax_per_seq().values().to_vec::<f64>()?[2], 0.0);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn log_softmax_per_seq(&self) -> Ragged {
        located(Location::caller(), || {
            let centred = self - self.expand(&self.shift());
            &centred - centred.expand(&centred.exp().sum_per_seq().log())
        })
    }

    /// The sum of products with `rhs`, sequence by sequence.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged};
    /// # let x = Ragged::from_vecs(&[vec![1f64, 5.0], vec![4.0]], &Device::Cpu);
    /// assert_eq!(x.dot_per_seq(&x).to_vec::<f64>()?, [26.0, 16.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn dot_per_seq(&self, rhs: &Ragged) -> Var {
        located(Location::caller(), || (self * rhs).sum_per_seq())
    }

    /// One row for each sequence (`[num_seqs, ..]`) copied to all rows of its sequence.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged};
    /// # let x = Ragged::from_vecs(&[vec![1f64, 5.0], vec![4.0]], &Device::Cpu);
    /// assert_eq!(x.expand(&x.max_per_seq()).values().to_vec::<f64>()?, [5.0, 5.0, 4.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn expand(&self, per_seq: &Var) -> Ragged {
        Ragged {
            values: per_seq.segment_expand(&self.segments),
            segments: self.segments.clone(),
        }
    }

    /// As in [`Var::logsumexp`]: constant to every derivative.
    #[track_caller]
    fn shift(&self) -> Var {
        let max = self.detach().max_per_seq();
        max.abs().eq(f64::INFINITY).select(0.0, max)
    }
}

/// Over all rows of all sequences, to a scalar.
impl Ragged {
    /// The sum over everything.
    #[track_caller]
    pub fn sum(&self) -> Var {
        self.values.sum()
    }

    /// The mean over everything: every row counts the same, whatever its sequence's length. NaN over nothing.
    #[track_caller]
    pub fn mean(&self) -> Var {
        self.values.mean()
    }

    /// The greatest value.
    #[track_caller]
    pub fn max(&self) -> Var {
        self.values.max()
    }

    /// The smallest value.
    #[track_caller]
    pub fn min(&self) -> Var {
        self.values.min()
    }
}

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

impl From<&[Var]> for Ragged {
    #[track_caller]
    fn from(seqs: &[Var]) -> Ragged {
        Ragged::from_seqs(seqs)
    }
}
