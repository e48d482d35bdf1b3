use super::composite;
use crate::error::Error;
use crate::graph::caller::here;
use crate::graph::dims::{self, Dims, checked_count};
use crate::graph::op::Op;
use crate::graph::var::Var;

/// Rearranging. The values stay; gradients go back where the values came from.
impl Var {
    /// The same values, row-major, in another shape with as many elements.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu);
    /// assert_eq!(x.reshape(&[3, 2]).sum_dims(&[0]).to_vec::<f64>()?, [9.0, 12.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn reshape(&self, shape: &[usize]) -> Var {
        if self.shape() == shape {
            return self.clone();
        }
        Var::apply("reshape", [self], |at| {
            if checked_count(shape) != Some(self.elem_count()) {
                let shapes = vec![self.shape().to_vec(), shape.to_vec()];
                let why = "hold different numbers of elements".into();
                return Err(Error::Shape { op: "reshape", shapes, why, at });
            }
            Ok((Op::Reshape, Dims::from_slice(shape), self.dtype()))
        })
    }

    /// A new dimension of size 1 at position `dim` of the result.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu);
    /// assert_eq!(x.unsqueeze(-1).shape(), [2, 3, 1]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn unsqueeze(&self, dim: isize) -> Var {
        let mut shape = Dims::from_slice(self.shape());
        match dims::resolve(dim, self.rank() + 1) {
            Ok(d) => {
                shape.insert(d, 1);
                composite("unsqueeze", &[self], || self.reshape(&shape))
            }
            Err(why) => self.apply_one("unsqueeze", |_| Err(why)),
        }
    }

    /// Without dimension `dim`, which has size 1.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu);
    /// assert_eq!(x.unsqueeze(0).squeeze(0).shape(), [2, 3]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn squeeze(&self, dim: isize) -> Var {
        match dims::resolve(dim, self.rank()) {
            Ok(d) if self.shape()[d] == 1 => {
                let mut shape = Dims::from_slice(self.shape());
                shape.remove(d);
                composite("squeeze", &[self], || self.reshape(&shape))
            }
            Ok(d) => self.apply_one("squeeze", |shape| {
                Err(format!("dimension {d} has size {}, not 1", shape[d]))
            }),
            Err(why) => self.apply_one("squeeze", |_| Err(why)),
        }
    }

    /// The dimensions in the order `dims`: dimension i of the result is `dims[i]` of this.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu);
    /// assert_eq!(x.permute(&[1, 0]).to_vec::<f64>()?, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn permute(&self, dims: &[usize]) -> Var {
        self.apply_one("permute", |shape| {
            let mut seen: Vec<usize> = dims.to_vec();
            seen.sort_unstable();
            if !seen.iter().copied().eq(0..shape.len()) {
                return Err(format!("{dims:?} is not an order of {} dimensions", shape.len()));
            }
            Ok((Op::Permute(Dims::from_slice(dims)), dims.iter().map(|&d| shape[d]).collect()))
        })
    }

    /// With two dimensions exchanged.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu);
    /// assert_eq!(x.transpose(0, -1).shape(), [3, 2]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn transpose(&self, dim0: isize, dim1: isize) -> Var {
        let rank = self.rank();
        match (dims::resolve(dim0, rank), dims::resolve(dim1, rank)) {
            (Ok(a), Ok(b)) => {
                let mut order: Dims = (0..rank).collect();
                order.swap(a, b);
                composite("transpose", &[self], || self.permute(&order))
            }
            (Err(why), _) | (_, Err(why)) => self.apply_one("transpose", |_| Err(why)),
        }
    }

    /// The transpose of a matrix: the last two dimensions exchanged.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu);
    /// assert_eq!(x.t().to_vec::<f64>()?, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn t(&self) -> Var {
        composite("t", &[self], || self.transpose(-2, -1))
    }

    /// `length` rows from `start` on along `dim`.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu);
    /// assert_eq!(x.narrow(1, 1, 2).to_vec::<f64>()?, [2.0, 3.0, 5.0, 6.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn narrow(&self, dim: isize, start: usize, length: usize) -> Var {
        self.apply_one("narrow", |shape| {
            let dim = dims::resolve(dim, shape.len())?;
            if start.checked_add(length).is_none_or(|end| end > shape[dim]) {
                return Err(format!(
                    "{length} rows from {start} on leave dimension {dim} of size {}",
                    shape[dim]
                ));
            }
            let mut out = Dims::from_slice(shape);
            out[dim] = length;
            Ok((Op::Narrow { dim, start }, out))
        })
    }

    /// Every `step`-th row along `dim`, from `start` to before `stop`.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu);
    /// assert_eq!(x.slice_step(1, 0, 3, 2).to_vec::<f64>()?, [1.0, 3.0, 4.0, 6.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn slice_step(&self, dim: isize, start: usize, stop: usize, step: usize) -> Var {
        composite("slice_step", &[self], || {
            let refused = match dims::resolve(dim, self.rank()) {
                Err(why) => Some(why),
                Ok(_) if step == 0 => Some("a step of 0 goes nowhere".into()),
                Ok(d) if stop > self.shape()[d] => {
                    Some(format!("row {stop} is beyond dimension {d} of size {}", self.shape()[d]))
                }
                Ok(_) => None,
            };
            if let Some(why) = refused {
                return self.apply_one("slice_step", |_| Err(why));
            }
            let rows: Vec<i64> = (start..stop).step_by(step).map(|row| row as i64).collect();
            let count = rows.len();
            self.index_select(&Var::from_vec(rows, &[count], self.device()), dim)
        })
    }

    /// Repeated along dimensions of size 1, and new ones on the left, to `shape`. Gradient: the sum
    /// over the copies.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu);
    /// assert_eq!(x.broadcast_to(&[4, 2, 3]).sum().item()?, 4.0 * 21.0);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn broadcast_to(&self, shape: &[usize]) -> Var {
        if self.shape() == shape {
            return self.clone();
        }
        let fits = dims::broadcast(self.shape(), shape).as_deref() == Some(shape);
        if let Some(value) = self.literal_value()
            && fits
            && checked_count(shape).is_some()
        {
            return Var::literal(value, shape, self.dtype(), self.device());
        }
        Var::apply("broadcast_to", [self], |at| {
            if !fits {
                let shapes = vec![self.shape().to_vec(), shape.to_vec()];
                let why = "do not fit: a size must be equal, or 1 in the operand".into();
                return Err(Error::Shape { op: "broadcast_to", shapes, why, at });
            }
            Ok((Op::Broadcast, Dims::from_slice(shape), self.dtype()))
        })
    }

    /// With `before` and `after` rows of zeros along `dim`.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu);
    /// assert_eq!(x.pad(0, 1, 0).to_vec::<f64>()?, [0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn pad(&self, dim: isize, before: usize, after: usize) -> Var {
        self.apply_one("pad", |shape| {
            let dim = dims::resolve(dim, shape.len())?;
            let mut out = Dims::from_slice(shape);
            out[dim] = [before, shape[dim], after]
                .into_iter()
                .try_fold(0usize, usize::checked_add)
                .ok_or("the padded size overflows")?;
            Ok((Op::Pad { dim, before }, out))
        })
    }

    /// With the order of rows along each of `dims` reversed.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu);
    /// assert_eq!(x.flip(&[-1]).to_vec::<f64>()?, [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn flip(&self, dims: &[isize]) -> Var {
        self.apply_one("flip", |shape| {
            Ok((Op::Flip(dims::resolve_all(dims, shape.len())?), Dims::from_slice(shape)))
        })
    }

    /// Shifted along `dim` by `shift` rows; what leaves at one end enters at the other.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu);
    /// assert_eq!(x.roll(1, -1).to_vec::<f64>()?, [3.0, 1.0, 2.0, 6.0, 4.0, 5.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn roll(&self, shift: isize, dim: isize) -> Var {
        composite("roll", &[self], || match dims::resolve(dim, self.rank()) {
            Ok(d) if self.shape()[d] > 0 => {
                let n = self.shape()[d];
                let shift = shift.rem_euclid(n as isize) as usize;
                Var::cat(&[self.narrow(dim, n - shift, shift), self.narrow(dim, 0, n - shift)], dim)
            }
            Ok(_) => self.clone(),
            Err(why) => self.apply_one("roll", |_| Err(why)),
        })
    }

    /// Joined along the existing dimension `dim`; the other sizes are equal.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0], &[2], &Device::Cpu);
    /// assert_eq!(Var::cat(&[x.clone(), &x * 10.0], 0).to_vec::<f64>()?, [1.0, 2.0, 10.0, 20.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn cat(vars: &[Var], dim: isize) -> Var {
        let Some(first) = vars.first() else {
            let why = "needs at least one operand".into();
            return Var::invalid(Error::Argument { op: "cat", why, at: here() });
        };
        Var::apply("cat", vars, |at| {
            let dim =
                dims::resolve(dim, first.rank()).map_err(|why| first.refuses("cat", why, at))?;
            let mut shape = Dims::from_slice(first.shape());
            shape[dim] = 0;
            for var in vars {
                let fits = var.rank() == first.rank()
                    && (0..var.rank()).all(|d| d == dim || var.shape()[d] == shape[d]);
                if !fits {
                    let shapes = vec![first.shape().to_vec(), var.shape().to_vec()];
                    let why = format!("differ in a dimension other than {dim}");
                    return Err(Error::Shape { op: "cat", shapes, why, at });
                }
                if var.dtype() != first.dtype() {
                    let why = "needs operands of one dtype; convert one with to_dtype";
                    return Err(Error::DType {
                        op: "cat",
                        dtypes: vec![first.dtype(), var.dtype()],
                        why,
                        at,
                    });
                }
                shape[dim] = shape[dim].saturating_add(var.shape()[dim]);
            }
            Ok((Op::Cat { dim }, shape, first.dtype()))
        })
    }

    /// Joined along a new dimension at position `dim`; the shapes are equal.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu);
    /// assert_eq!(Var::stack(&[x.clone(), x], 0).shape(), [2, 2, 3]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn stack(vars: &[Var], dim: isize) -> Var {
        composite("stack", &vars.iter().collect::<Vec<_>>(), || {
            Var::cat(&vars.iter().map(|v| v.unsqueeze(dim)).collect::<Vec<_>>(), dim)
        })
    }
}
