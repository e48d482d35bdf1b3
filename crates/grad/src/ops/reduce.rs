use super::composite;
use super::unary::require_float;
use crate::error::Error;
use crate::graph::dims::{self, Dims, elem_count};
use crate::graph::op::{OfNothing, Op, ReduceOp};
use crate::graph::table::reduce_ops;
use crate::graph::var::Var;

macro_rules! reductions {
    ($(#[doc = $what:literal] $op:ident = $all:ident, $dims:ident, $keepdim:ident, $per_seq:ident {
        gradient: $gradient:literal,
        of_nothing: $of_nothing:ident, $empty:literal,
        example: $of_all:literal, $of_columns:literal,
        $($columns:tt)*
    })*) => {
        /// Reductions. Sums are accumulated more widely than f32.
        ///
        /// ```
        /// # use tinsmith_grad::{Device, Var};
        /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 5.0, 5.0, 0.0], &[2, 3], &Device::Cpu);
        /// assert_eq!(x.sum().item()?, 16.0);
        /// assert_eq!(x.mean_dims(&[-1]).to_vec::<f64>()?, [2.0, 10.0 / 3.0]);
        /// assert_eq!(x.max_keepdim(&[0]).shape(), [1, 3]);
        /// // A tie shares the gradient.
        /// let slope = &x.max().backward(&[&x])?[0];
        /// assert_eq!(slope.to_vec2::<f64>()?, [[0.0, 0.0, 0.0], [0.5, 0.5, 0.0]]);
        /// # anyhow::Ok(())
        /// ```
        impl Var {$(
        #[doc = concat!($what, " over everything; shape `[]`. ", $gradient, " ", $empty)]
        ///
        /// ```
        /// # use tinsmith_grad::{Device, Var};
        /// let x = Var::from_vec(vec![1f64, 2.0, 4.0, 3.0], &[2, 2], &Device::Cpu);
        #[doc = concat!("assert_eq!(x.", stringify!($all), "().item()?, ", $of_all, ");")]
        /// # anyhow::Ok(())
        /// ```
        #[track_caller]
        pub fn $all(&self) -> Var {
            let all: Dims = (0..self.rank()).collect();
            self.reduce(ReduceOp::$op, Ok(all), false)
        }

        #[doc = concat!($what, " over the dimensions `dims`, which disappear; negatives count from the end.")]
        ///
        /// ```
        /// # use tinsmith_grad::{Device, Var};
        /// let x = Var::from_vec(vec![1f64, 2.0, 4.0, 3.0], &[2, 2], &Device::Cpu);
        #[doc = concat!("assert_eq!(x.", stringify!($dims), "(&[0]).to_vec::<f64>()?, ", $of_columns, ");")]
        /// # anyhow::Ok(())
        /// ```
        #[track_caller]
        pub fn $dims(&self, dims: &[isize]) -> Var {
            composite(stringify!($dims), &[self], || {
                self.reduce(ReduceOp::$op, dims::resolve_all(dims, self.rank()), false)
            })
        }

        #[doc = concat!($what, " over the dimensions `dims`, which stay with size 1.")]
        ///
        /// ```
        /// # use tinsmith_grad::{Device, Var};
        /// let x = Var::from_vec(vec![1f64, 2.0, 4.0, 3.0], &[2, 2], &Device::Cpu);
        #[doc = concat!("assert_eq!(x.", stringify!($keepdim), "(&[0]).shape(), [1, 2]);")]
        /// ```
        #[track_caller]
        pub fn $keepdim(&self, dims: &[isize]) -> Var {
            composite(stringify!($keepdim), &[self], || {
                self.reduce(ReduceOp::$op, dims::resolve_all(dims, self.rank()), true)
            })
        }
        )*}
    };
}

reduce_ops!(reductions);

/// Composites of reductions.
impl Var {
    /// The mean over everything; shape `[]`. NaN over nothing.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 6.0], &[2, 2], &Device::Cpu);
    /// assert_eq!(x.mean().item()?, 3.0);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn mean(&self) -> Var {
        composite("mean", &[self], || self.sum() / self.elem_count() as f64)
    }

    /// The mean over the dimensions `dims`, which disappear.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 6.0], &[2, 2], &Device::Cpu);
    /// assert_eq!(x.mean_dims(&[0]).to_vec::<f64>()?, [2.0, 4.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn mean_dims(&self, dims: &[isize]) -> Var {
        composite("mean_dims", &[self], || self.sum_dims(dims) / self.count(dims))
    }

    /// The mean over the dimensions `dims`, which stay with size 1.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 6.0], &[2, 2], &Device::Cpu);
    /// assert_eq!((&x - x.mean_keepdim(&[0])).to_vec::<f64>()?, [-1.0, -2.0, 1.0, 2.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn mean_keepdim(&self, dims: &[isize]) -> Var {
        composite("mean_keepdim", &[self], || self.sum_keepdim(dims) / self.count(dims))
    }

    /// The variance over `dims`, which disappear: the sum of squared deviations over n -
    /// `correction`. 1 gives the unbiased estimate, 0 the population's. Where n <= `correction` it
    /// divides by 0.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 6.0], &[3], &Device::Cpu);
    /// assert_eq!(x.var_dims(&[0], 1.0).item()?, 7.0);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn var_dims(&self, dims: &[isize], correction: f64) -> Var {
        composite("var_dims", &[self], || self.var_keepdim(dims, correction).drop_dims(dims))
    }

    /// [`var_dims`](Var::var_dims), the dimensions staying with size 1.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 6.0], &[2, 2], &Device::Cpu);
    /// assert_eq!(x.var_keepdim(&[1], 0.0).shape(), [2, 1]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn var_keepdim(&self, dims: &[isize], correction: f64) -> Var {
        composite("var_keepdim", &[self], || {
            // By the distance from one of them, so that equal numbers deviate by 0 and not by what
            // their mean is rounded by.
            let distance = match self.elem_count() {
                0 => self.clone(),
                _ => self - self.detach().min_keepdim(dims),
            };
            let centred = &distance - distance.mean_keepdim(dims);
            centred.square().sum_keepdim(dims) / (self.count(dims) - correction).max(0.0)
        })
    }

    /// The standard deviation over `dims`, which disappear; see [`var_dims`](Var::var_dims). Its
    /// gradient at a constant is 0, as PyTorch's.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 6.0], &[2, 2], &Device::Cpu);
    /// assert_eq!(x.std_dims(&[0], 0.0).to_vec::<f64>()?, [1.0, 2.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn std_dims(&self, dims: &[isize], correction: f64) -> Var {
        composite("std_dims", &[self], || self.var_dims(dims, correction).sqrt_or_zero())
    }

    /// [`std_dims`](Var::std_dims), the dimensions staying with size 1.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 6.0], &[2, 2], &Device::Cpu);
    /// assert_eq!(x.std_keepdim(&[0], 0.0).to_vec::<f64>()?, [1.0, 2.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn std_keepdim(&self, dims: &[isize], correction: f64) -> Var {
        composite("std_keepdim", &[self], || self.var_keepdim(dims, correction).sqrt_or_zero())
    }

    /// The L2 norm over everything, shape `[]`, also where squares overflow or vanish. Gradient g x
    /// / norm, 0 at 0.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![3f64, 4.0], &[2], &Device::Cpu);
    /// assert_eq!(x.norm().item()?, 5.0);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn norm(&self) -> Var {
        composite("norm", &[self], || {
            if self.elem_count() == 0 {
                return self.sum();
            }
            let most = self.detach().abs().max();
            let finite = most.eq(f64::INFINITY).select(1.0, &most);
            let scale = most.eq(0.0).select(1.0, finite);
            (self / &scale).square().sum().sqrt_or_zero() * scale
        })
    }

    /// The running sum along `dim`. Gradient: the running sum of g from the end.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0], &[3], &Device::Cpu);
    /// assert_eq!(x.cumsum(0).to_vec::<f64>()?, [1.0, 3.0, 6.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn cumsum(&self, dim: isize) -> Var {
        Var::apply("cumsum", [self], |at| {
            require_float("cumsum", &[self], at)?;
            let dim =
                dims::resolve(dim, self.rank()).map_err(|why| self.refuses("cumsum", why, at))?;
            Ok((Op::CumSum { dim }, Dims::from_slice(self.shape()), self.dtype()))
        })
    }

    /// The root whose gradient at 0 is 0 instead of infinite: right where the argument is a sum of
    /// squares.
    #[track_caller]
    fn sqrt_or_zero(&self) -> Var {
        let zero = self.eq(0.0);
        zero.select(0.0, zero.select(1.0, self).sqrt())
    }

    /// How many elements a reduction over `dims` takes in; dimensions out of range are the
    /// reduction's to refuse.
    fn count(&self, dims: &[isize]) -> f64 {
        let dims = dims::resolve_all(dims, self.rank()).unwrap_or_default();
        dims.iter().map(|&d| self.shape()[d]).product::<usize>() as f64
    }

    #[track_caller]
    fn drop_dims(&self, dims: &[isize]) -> Var {
        match dims::resolve_all(dims, self.rank()) {
            Ok(dims) => self.reshape(&dims::reduced(self.shape(), &dims, false)),
            Err(_) => self.clone(),
        }
    }

    #[track_caller]
    pub(crate) fn reduce(&self, op: ReduceOp, dims: Result<Dims, String>, keepdim: bool) -> Var {
        Var::apply(op.name(), [self], |at| {
            require_float(op.name(), &[self], at)?;
            let dims = dims.map_err(|why| self.refuses(op.name(), why, at))?;
            let shape = dims::reduced(self.shape(), &dims, keepdim);
            if op.of_nothing() == OfNothing::Refused
                && self.elem_count() == 0
                && elem_count(&shape) > 0
            {
                let why = "has nothing to choose from along a dimension of size 0".into();
                return Err(Error::Shape {
                    op: op.name(),
                    shapes: vec![self.shape().to_vec()],
                    why,
                    at,
                });
            }
            Ok((Op::Reduce { op, dims }, shape, self.dtype()))
        })
    }
}
