use super::Ragged;
use crate::graph::op::ReduceOp;
use crate::graph::var::Var;
use crate::ops::composite;

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

    /// The greatest row of each sequence, elementwise; -inf for an empty one. Ties share the
    /// gradient.
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

    /// The smallest row of each sequence, elementwise; inf for an empty one. Ties share the
    /// gradient.
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
        composite("mean_per_seq", &[&self.values], || {
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
        composite("logsumexp_per_seq", &[&self.values], || {
            let max = self.shift();
            (self - self.expand(&max)).exp().sum_per_seq().log_of_sum() + max
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
        let values = composite("softmax_per_seq", &[&self.values], || {
            let weights = (self - self.expand(&self.shift())).exp();
            let sums = weights.expand(&weights.sum_per_seq());
            weights.values.over_sum(&sums.values)
        });
        Ragged { values, segments: self.segments.clone() }
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
        let values = composite("log_softmax_per_seq", &[&self.values], || {
            let centred = self - self.expand(&self.shift());
            (&centred - centred.expand(&centred.exp().sum_per_seq().log_of_sum())).values
        });
        Ragged { values, segments: self.segments.clone() }
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
        composite("dot_per_seq", &[&self.values, &rhs.values], || (self * rhs).sum_per_seq())
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
        let values = match self.values.error() {
            Some(_) => self.values.clone(),
            None => per_seq.segment_expand(&self.segments),
        };
        Ragged { values, segments: self.segments.clone() }
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

    /// The mean over everything: every row counts the same, whatever its sequence's length. NaN
    /// over nothing.
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
