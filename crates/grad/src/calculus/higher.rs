//! Derivatives beyond the gradient: compositions of backward passes, lazy like everything that
//! [`grad`](grad()) gives.

use candle_core::DType;

use crate::calculus::backward::{Backward, grad};
use crate::error::{Error, Loc, Result};
use crate::graph::caller::{here, located};
use crate::graph::var::Var;

/// The vector-Jacobian product: for each of `wrt` the gradient of Σ `cotangent` · `output`, in that
/// leaf's shape.
///
/// As [`grad`](grad()) of an output of any shape. `cotangent` has the shape and dtype of `output`.
/// Errors as [`Var::backward`].
///
/// ```
/// # use tinsmith_grad::{Device, Var, vjp};
/// let x = Var::from_vec(vec![1f64, 2.0], &[2], &Device::Cpu);
/// let cotangent = Var::from_vec(vec![1f64, 10.0], &[2], &Device::Cpu);
/// assert_eq!(vjp(&x.square(), &[&x], &cotangent)?[0].to_vec::<f64>()?, [2.0, 40.0]);
/// # anyhow::Ok(())
/// ```
pub fn vjp(output: &Var, wrt: &[&Var], cotangent: &Var) -> Result<Vec<Var>> {
    Backward::new(output).seed(cotangent).record(wrt)
}

/// The Jacobian-vector product: how `output` changes as `wrt` move along `tangents`, in the shape
/// of `output`.
///
/// Each tangent has the shape and dtype of its leaf. Found by differentiating a vector-Jacobian
/// product, which is linear in its cotangent, by that cotangent.
///
/// Errors as [`Var::backward`]; [`Error::Argument`], [`Error::Shape`] or [`Error::DType`] where the
/// tangents do not fit.
///
/// ```
/// # use tinsmith_grad::{Device, Var, jvp};
/// let x = Var::from_vec(vec![1f64, 2.0], &[2], &Device::Cpu);
/// let tangent = Var::from_vec(vec![1f64, 0.5], &[2], &Device::Cpu);
/// assert_eq!(jvp(&x.square(), &[&x], &[&tangent])?.to_vec::<f64>()?, [2.0, 2.0]);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn jvp(output: &Var, wrt: &[&Var], tangents: &[&Var]) -> Result<Var> {
    let at = here();
    fit("jvp", wrt, tangents, at)?;
    // Its value does not matter.
    let cotangent = located(at, || Var::zeros(output.shape(), output.dtype(), output.device()));
    let pulled_back = vjp(output, wrt, &cotangent)?;
    Ok(along(&pulled_back, tangents, &[&cotangent], at)?.remove(0))
}

/// The Hessian-vector product of the scalar `loss`: for each of `wrt`, how its gradient changes as
/// all of them move along `vectors`. The Hessian itself is never made; the cost is that of a few
/// gradients.
///
/// Errors as [`Var::backward`]; [`Error::Argument`], [`Error::Shape`] or [`Error::DType`] where the
/// vectors do not fit the leaves. A leaf in which the loss is linear has a product of zeros.
///
/// ```
/// # use tinsmith_grad::{Device, Var, hvp};
/// let x = Var::from_vec(vec![1f64, 2.0], &[2], &Device::Cpu);
/// let v = Var::from_vec(vec![1f64, -1.0], &[2], &Device::Cpu);
/// let loss = x.powf(3.0).sum(); // its Hessian is diag(6 x)
/// assert_eq!(hvp(&loss, &[&x], &[&v])?[0].to_vec::<f64>()?, [6.0, -12.0]);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn hvp(loss: &Var, wrt: &[&Var], vectors: &[&Var]) -> Result<Vec<Var>> {
    let at = here();
    fit("hvp", wrt, vectors, at)?;
    along(&grad(loss, wrt)?, vectors, wrt, at)
}

/// The Jacobian of `output`, which may have any shape, by each of `wrt`: shape
/// `[..output, ..leaf]`.
///
/// It costs a backward pass for each element of `output`. Errors as [`Var::backward`].
///
/// ```
/// # use tinsmith_grad::{Device, Var, jacobian};
/// let x = Var::from_vec(vec![2f64, 3.0], &[2], &Device::Cpu);
/// let j = &jacobian(&x.cumsum(0).square(), &[&x])?[0];
/// assert_eq!(j.shape(), [2, 2]);
/// assert_eq!(j.to_vec::<f64>()?, [4.0, 0.0, 10.0, 10.0]);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn jacobian(output: &Var, wrt: &[&Var]) -> Result<Vec<Var>> {
    row_by_row(output, wrt, here(), |row| grad(row, wrt))
}

/// The Hessian of the scalar `loss`, in blocks: `hessian(..)?[i][j]` has the shape
/// `[..wrt[i], ..wrt[j]]`.
///
/// It costs a backward pass for each element of `wrt`; where products with it are enough, [`hvp`]
/// is cheaper. Errors as [`Var::backward`].
///
/// ```
/// # use tinsmith_grad::{Device, Var, hessian};
/// let x = Var::from_vec(vec![3f64, 5.0], &[2], &Device::Cpu);
/// let y = Var::from_vec(vec![1f64], &[1], &Device::Cpu);
/// let h = hessian(&(x.square() * &y).sum(), &[&x, &y])?;
/// assert_eq!(h[0][0].to_vec::<f64>()?, [2.0, 0.0, 0.0, 2.0]);
/// assert_eq!(h[0][1].to_vec::<f64>()?, [6.0, 10.0]);
/// assert_eq!(h[1][1].to_vec::<f64>()?, [0.0]);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn hessian(loss: &Var, wrt: &[&Var]) -> Result<Vec<Vec<Var>>> {
    let at = here();
    let second = |row: &Var| Backward::new(row).allow_unused().record(wrt);
    let first = grad(loss, wrt)?;
    first.iter().map(|slope| row_by_row(slope, wrt, at, second)).collect()
}

/// For each of `wrt` the derivatives of the elements of `output`, stacked.
fn row_by_row(
    output: &Var,
    wrt: &[&Var],
    at: Loc,
    derivatives: impl Fn(&Var) -> Result<Vec<Var>>,
) -> Result<Vec<Var>> {
    located(at, || {
        let flat = output.reshape(&[output.elem_count()]);
        let rows = (0..output.elem_count())
            .map(|row| derivatives(&flat.narrow(0, row, 1)))
            .collect::<Result<Vec<_>>>()?;
        let stacked = |(i, leaf): (usize, &&Var)| {
            let shape = [output.shape(), leaf.shape()].concat();
            let rows: Vec<Var> = rows.iter().map(|row| row[i].clone()).collect();
            match rows.is_empty() {
                true => Var::zeros(&shape, leaf.dtype(), leaf.device()),
                false => Var::stack(&rows, 0).reshape(&shape),
            }
        };
        Ok(wrt.iter().enumerate().map(stacked).collect())
    })
}

/// The gradient by `wrt` of Σ `values` · `directions`, in which the directions are constants,
/// whatever they are made of; zeros for a leaf that the values do not depend on.
fn along(values: &[Var], directions: &[&Var], wrt: &[&Var], at: Loc) -> Result<Vec<Var>> {
    let Some(first) = values.first() else {
        return Ok(wrt.iter().map(|leaf| leaf.full_like(0.0)).collect());
    };
    let dtype = match values.iter().all(|v| v.dtype() == first.dtype()) {
        true => first.dtype(),
        false => DType::F64,
    };
    let flat = |v: &Var| v.reshape(&[v.elem_count()]).to_dtype(dtype);
    located(at, || {
        let values: Vec<Var> = values.iter().map(flat).collect();
        let directions: Vec<Var> = directions.iter().map(|&v| flat(v)).collect();
        Backward::new(&Var::cat(&values, 0))
            .seed(&Var::cat(&directions, 0))
            .allow_unused()
            .record(wrt)
    })
}

/// Each of `wrt` has its vector, of one shape and dtype with it.
fn fit(op: &'static str, wrt: &[&Var], vectors: &[&Var], at: Loc) -> Result<()> {
    if wrt.len() != vectors.len() {
        let why = format!("{} vectors for {} leaves", vectors.len(), wrt.len());
        return Err(Error::Argument { op, why, at });
    }
    for (i, (leaf, vector)) in wrt.iter().zip(vectors).enumerate() {
        if let Some(error) = leaf.error().or(vector.error()) {
            return Err(error.clone());
        }
        if leaf.shape() != vector.shape() {
            let shapes = vec![leaf.shape().to_vec(), vector.shape().to_vec()];
            let why = format!("of leaf {i} and of its vector differ");
            return Err(Error::Shape { op, shapes, why, at });
        }
        if leaf.dtype() != vector.dtype() {
            return Err(Error::DType {
                op,
                dtypes: vec![leaf.dtype(), vector.dtype()],
                why: "needs a vector of its leaf's dtype; convert it with to_dtype",
                at,
            });
        }
    }
    Ok(())
}
