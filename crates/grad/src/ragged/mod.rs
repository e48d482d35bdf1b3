mod arithmetic;
mod per_seq;

use candle_core::Device;

use crate::error::{Error, Loc};
use crate::graph::caller::{here, located};
use crate::graph::element::Element;
use crate::graph::op::Op;
use crate::graph::segments::Segments;
use crate::graph::var::Var;
use crate::ops::composite;

pub use arithmetic::RaggedOperand;

/// A batch of sequences of unequal length: their rows one after another in one packed [`Var`] of
/// shape `[rows, ..trailing]`, and the length of each.
///
/// Elementwise ops run on the packed rows, all sequences at once. The `_per_seq` methods reduce
/// each sequence to one row, [`expand`](Ragged::expand) goes back. Two batches combine only if
/// their lengths agree, sequence by sequence.
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
#[must_use = "an op records a new batch, and changes none"]
pub struct Ragged {
    values: Var,
    segments: Segments,
}

/// Making and taking apart.
impl Ragged {
    /// The rows of `values` divided into sequences of these `lengths`, which add up to its first
    /// dimension.
    #[track_caller]
    pub fn new(values: Var, lengths: &[usize]) -> Ragged {
        Ragged::with_segments(values, Segments::new(lengths), here())
    }

    /// Sequences joined into a batch. The inverse of [`seqs`](Ragged::seqs), and without a copy
    /// when given just those.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Ragged, Var};
    /// let a = Var::from_vec(vec![1f64, 2.0], &[2], &Device::Cpu);
    /// let b = Var::from_vec(vec![3f64], &[1], &Device::Cpu);
    /// assert_eq!(Ragged::from_seqs(&[a, b]).lengths(), [2, 1]);
    /// ```
    #[track_caller]
    pub fn from_seqs(seqs: &[Var]) -> Ragged {
        let lengths: Vec<usize> =
            seqs.iter().map(|seq| seq.shape().first().copied().unwrap_or(0)).collect();
        let operands: Vec<&Var> = seqs.iter().collect();
        let values =
            composite("from_seqs", &operands, || whole(seqs).unwrap_or_else(|| Var::cat(seqs, 0)));
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
        let packed: Vec<T> = seqs.iter().flat_map(|seq| seq.as_ref().iter().copied()).collect();
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
        let error = Error::Shape { op: "ragged", shapes: vec![values.shape().to_vec()], why, at };
        Ragged { values: Var::invalid(error), segments }
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

    /// The lengths as numbers to compute with: `[num_seqs]`, in the dtype and on the device of the
    /// values, constant.
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
        composite("counts", &[&self.values], || {
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
        let values = match self.values.error() {
            Some(_) => self.values.clone(),
            None => f(&self.values),
        };
        Ragged::with_segments(values, self.segments.clone(), at)
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
            let why = format!("sequence {seq} is outside of a batch of {}", self.num_seqs());
            let values = self.refused(Error::Argument { op: "select", why, at });
            return Ragged { values, segments: Segments::new(&[]) };
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
        let too_long = self.lengths().iter().zip(lengths).position(|(have, want)| have < want);
        let why = match too_long {
            _ if lengths.len() != self.num_seqs() => {
                format!("{} lengths for a batch of {} sequences", lengths.len(), self.num_seqs())
            }
            Some(seq) => format!(
                "sequence {seq} has {} rows, fewer than {}",
                self.lengths()[seq],
                lengths[seq]
            ),
            None => {
                let starts = self.offsets().iter();
                let rows = starts.zip(lengths).flat_map(|(&start, &length)| start..start + length);
                return self.rows(rows, lengths, at);
            }
        };
        let values = self.refused(Error::Argument { op: "truncate_to", why, at });
        Ragged { values, segments: Segments::new(lengths) }
    }

    /// `error`, unless this batch was refused already.
    fn refused(&self, error: Error) -> Var {
        match self.values.error() {
            Some(_) => self.values.clone(),
            None => Var::invalid(error),
        }
    }

    fn rows(&self, rows: impl Iterator<Item = usize>, lengths: &[usize], at: Loc) -> Ragged {
        // The lengths of a batch that was refused are of no rows.
        if self.values.error().is_some() {
            return Ragged { values: self.values.clone(), segments: Segments::new(lengths) };
        }
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

impl From<&[Var]> for Ragged {
    #[track_caller]
    fn from(seqs: &[Var]) -> Ragged {
        Ragged::from_seqs(seqs)
    }
}
