use super::composite;
use crate::graph::var::Var;

/// Log-sum-exp and softmax, in the form that neither overflows nor loses small terms: the maximum
/// is taken out first.
impl Var {
    /// ln Σ e^x along `dim`, which disappears. Gradient g softmax(x). Where every x is -inf, it
    /// is -inf, with a gradient of 0.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1000f64, 1000.0], &[1, 2], &Device::Cpu);
    /// assert_eq!(x.logsumexp(-1).to_vec::<f64>()?, [1000.0 + std::f64::consts::LN_2]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn logsumexp(&self, dim: isize) -> Var {
        composite("logsumexp", &[self], || self.logsumexp_keepdim(dim).squeeze(dim))
    }

    /// [`logsumexp`](Var::logsumexp), `dim` staying with size 1.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1000f64, 1000.0], &[1, 2], &Device::Cpu);
    /// assert_eq!(x.logsumexp_keepdim(-1).shape(), [1, 1]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn logsumexp_keepdim(&self, dim: isize) -> Var {
        composite("logsumexp_keepdim", &[self], || {
            let max = self.shift(dim);
            (self - &max).exp().sum_keepdim(&[dim]).log_of_sum() + max
        })
    }

    /// e^x / Σ e^x along `dim`. Gradient s (g - Σ g s). Where every x is -inf, it is NaN, with a
    /// gradient of 0.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1000f64, 1000.0], &[1, 2], &Device::Cpu);
    /// assert_eq!(x.softmax(-1).to_vec::<f64>()?, [0.5, 0.5]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn softmax(&self, dim: isize) -> Var {
        composite("softmax", &[self], || {
            let weights = (self - self.shift(dim)).exp();
            weights.over_sum(&weights.sum_keepdim(&[dim]))
        })
    }

    /// x - ln Σ e^x along `dim`. Gradient g - softmax(x) Σ g.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1000f64, 1000.0], &[1, 2], &Device::Cpu);
    /// assert_eq!(x.log_softmax(-1).to_vec::<f64>()?, [-std::f64::consts::LN_2; 2]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn log_softmax(&self, dim: isize) -> Var {
        composite("log_softmax", &[self], || {
            let centred = self - self.shift(dim);
            &centred - centred.exp().sum_keepdim(&[dim]).log_of_sum()
        })
    }

    /// The logarithm of a sum of exponentials: -inf where all of them are 0, without a gradient,
    /// which would be 0/0.
    #[track_caller]
    pub(crate) fn log_of_sum(&self) -> Var {
        let nothing = self.eq(0.0);
        nothing.select(f64::NEG_INFINITY, nothing.select(1.0, self).log())
    }

    /// These exponentials over their sum: NaN where all of them are 0, without a gradient, which
    /// would be NaN as well.
    #[track_caller]
    pub(crate) fn over_sum(&self, sum: &Var) -> Var {
        let nothing = sum.eq(0.0);
        nothing.select(f64::NAN, self / nothing.select(1.0, sum))
    }

    /// What to subtract before exponentiating: the maximum, or 0 where that is infinite. Every
    /// value of it gives the same result up to rounding, so it is a constant to every derivative.
    #[track_caller]
    fn shift(&self, dim: isize) -> Var {
        let max = self.detach().max_keepdim(&[dim]);
        max.abs().eq(f64::INFINITY).select(0.0, max)
    }
}
