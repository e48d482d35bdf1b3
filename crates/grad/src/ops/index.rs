use candle_core::DType;

use super::unary::require_float;
use crate::error::{Error, Loc, Result};
use crate::graph::dims::{self, Dims};
use crate::graph::op::Op;
use crate::graph::var::Var;

/// Picking and placing by index. Indices are i64 or u32, count from 0 and have no gradient; one
/// that is out of range is an error on evaluation. Repeated indices add up their gradients.
impl Var {
    /// `out[i][j] = self[i][index[i][j]]` for dim = 1: `index` has the result's shape, which is no
    /// larger than this one's but along `dim`. Gradient: [`scatter_add`](Var::scatter_add) of g.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 10.0, 20.0], &[2, 2], &Device::Cpu);
    /// let columns = Var::from_vec(vec![1i64, 0], &[2, 1], &Device::Cpu);
    /// assert_eq!(x.gather(&columns, 1).to_vec::<f64>()?, [2.0, 10.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn gather(&self, index: &Var, dim: isize) -> Var {
        Var::apply("gather", [self, index], |at| {
            let dim = self.gather_dim("gather", index, dim, at)?;
            Ok((Op::Gather { dim }, Dims::from_slice(index.shape()), self.dtype()))
        })
    }

    /// `self[i][index[i][j]] += src[i][j]` for dim = 1, in a copy; `src` has the shape of `index`.
    /// Gradients: g, and g gathered at `index`.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 10.0, 20.0], &[2, 2], &Device::Cpu);
    /// let columns = Var::from_vec(vec![1i64, 0], &[2, 1], &Device::Cpu);
    /// let more = Var::from_vec(vec![0.5f64, 0.25], &[2, 1], &Device::Cpu);
    /// assert_eq!(x.scatter_add(&columns, &more, 1).to_vec::<f64>()?, [1.0, 2.5, 10.25, 20.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn scatter_add(&self, index: &Var, src: &Var, dim: isize) -> Var {
        Var::apply("scatter_add", [self, index, src], |at| {
            let dim = self.gather_dim("scatter_add", index, dim, at)?;
            require_float("scatter_add", &[self, src], at)?;
            if src.shape() != index.shape() {
                let shapes = vec![index.shape().to_vec(), src.shape().to_vec()];
                let why = "of index and source differ".into();
                return Err(Error::Shape { op: "scatter_add", shapes, why, at });
            }
            Ok((Op::ScatterAdd { dim }, Dims::from_slice(self.shape()), self.dtype()))
        })
    }

    /// The rows `index` (rank 1) along `dim`, an embedding lookup for dim = 0. Gradient:
    /// [`index_add`](Var::index_add) of g.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 10.0, 20.0], &[2, 2], &Device::Cpu);
    /// let rows = Var::from_vec(vec![1i64, 1, 0], &[3], &Device::Cpu);
    /// assert_eq!(x.index_select(&rows, 0).to_vec::<f64>()?, [10.0, 20.0, 10.0, 20.0, 1.0, 2.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn index_select(&self, index: &Var, dim: isize) -> Var {
        Var::apply("index_select", [self, index], |at| {
            let dim = self.row_dim("index_select", index, dim, at)?;
            let mut shape = Dims::from_slice(self.shape());
            shape[dim] = index.elem_count();
            Ok((Op::IndexSelect { dim }, shape, self.dtype()))
        })
    }

    /// Row i of `src` added to row `index[i]` along `dim`, in a copy. Gradients: g, and the rows
    /// `index` of g.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Var};
    /// let x = Var::from_vec(vec![1f64, 2.0, 10.0, 20.0], &[2, 2], &Device::Cpu);
    /// let rows = Var::from_vec(vec![1i64, 1], &[2], &Device::Cpu);
    /// assert_eq!(x.index_add(&rows, &x, 0).to_vec::<f64>()?, [1.0, 2.0, 21.0, 42.0]);
    /// # anyhow::Ok(())
    /// ```
    #[track_caller]
    pub fn index_add(&self, index: &Var, src: &Var, dim: isize) -> Var {
        Var::apply("index_add", [self, index, src], |at| {
            let dim = self.row_dim("index_add", index, dim, at)?;
            require_float("index_add", &[self, src], at)?;
            let mut expected = Dims::from_slice(self.shape());
            expected[dim] = index.elem_count();
            if src.shape() != expected.as_slice() {
                let shapes = vec![src.shape().to_vec(), expected.to_vec()];
                let why = "differ: the source must have one row for each index".into();
                return Err(Error::Shape { op: "index_add", shapes, why, at });
            }
            Ok((Op::IndexAdd { dim }, Dims::from_slice(self.shape()), self.dtype()))
        })
    }

    fn gather_dim(&self, op: &'static str, index: &Var, dim: isize, at: Loc) -> Result<usize> {
        require_index(op, index, at)?;
        let dim = dims::resolve(dim, self.rank()).map_err(|why| self.refuses(op, why, at))?;
        let (x, i) = (self.shape(), index.shape());
        if x.len() != i.len() || (0..x.len()).any(|d| d != dim && i[d] > x[d]) {
            let why =
                format!("do not fit: the index may exceed the operand along dimension {dim} only");
            return Err(Error::Shape { op, shapes: vec![x.to_vec(), i.to_vec()], why, at });
        }
        Ok(dim)
    }

    fn row_dim(&self, op: &'static str, index: &Var, dim: isize, at: Loc) -> Result<usize> {
        require_index(op, index, at)?;
        if index.rank() != 1 {
            let why = "of the index must have rank 1".into();
            return Err(Error::Shape { op, shapes: vec![index.shape().to_vec()], why, at });
        }
        dims::resolve(dim, self.rank()).map_err(|why| self.refuses(op, why, at))
    }
}

fn require_index(op: &'static str, index: &Var, at: Loc) -> Result<()> {
    match index.dtype() {
        DType::I64 | DType::U32 => Ok(()),
        other => {
            Err(Error::DType { op, dtypes: vec![other], why: "needs an i64 or u32 index", at })
        }
    }
}
