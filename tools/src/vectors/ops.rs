//! Records one op case through the method of [`Var`] that it tests.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use tinsmith_grad::{DType, Var};

use super::execute::Problem;
use super::file::OpCase;
use super::formulas;

pub fn problem(case: &OpCase, dtype: DType) -> Result<Problem> {
    let args: Vec<Var> = case.args.iter().map(|array| array.var(dtype)).collect();
    let leaves = case.differentiable.iter().map(|&index| args.get(index).cloned());
    Ok(Problem {
        out: record(case, &args)?,
        seed: Some(case.grad_out.var(dtype)),
        leaves: leaves
            .collect::<Option<_>>()
            .context("`differentiable` names an argument that is not there")?,
        metrics: vec![],
    })
}

fn record(case: &OpCase, args: &[Var]) -> Result<Var> {
    let first = args.first().context("no arguments")?;
    Ok(match (case.op.as_str(), args) {
        ("neg", [x]) => x.neg(),
        ("exp", [x]) => x.exp(),
        ("log", [x]) => x.log(),
        ("log1p", [x]) => x.log1p(),
        ("expm1", [x]) => x.expm1(),
        ("sqrt", [x]) => x.sqrt(),
        ("rsqrt", [x]) => x.rsqrt(),
        ("abs", [x]) => x.abs(),
        ("sign", [x]) => x.sign(),
        ("tanh", [x]) => x.tanh(),
        ("sigmoid", [x]) => x.sigmoid(),
        ("logsigmoid", [x]) => x.log_sigmoid(),
        ("softplus", [x]) => x.softplus(),
        ("relu", [x]) => x.relu(),
        ("silu", [x]) => x.silu(),
        ("gelu_erf", [x]) => x.gelu_erf(),
        ("gelu_tanh", [x]) => x.gelu(),
        ("square", [x]) => x.square(),
        ("recip", [x]) => x.recip(),
        ("sin", [x]) => x.sin(),
        ("cos", [x]) => x.cos(),
        ("erf", [x]) => x.erf(),
        ("floor", [x]) => x.floor(),
        ("ceil", [x]) => x.ceil(),
        ("round", [x]) => x.round(),
        ("log1mexp", [x]) => x.log1mexp(),
        ("clamp", [x]) => {
            match (attr::<Option<f64>>(case, "min")?, attr::<Option<f64>>(case, "max")?) {
                (Some(low), Some(high)) => x.clamp(low, high),
                (Some(low), None) => x.clamp_min(low),
                (None, Some(high)) => x.clamp_max(high),
                (None, None) => x.clone(),
            }
        }
        ("pow_scalar", [x]) => x.powf(attr(case, "exponent")?),

        ("add", [a, b]) => a + b,
        ("sub", [a, b]) => a - b,
        ("mul", [a, b]) => a * b,
        ("div", [a, b]) => a / b,
        ("pow", [a, b]) => a.pow(b),
        ("maximum", [a, b]) => a.maximum(b),
        ("minimum", [a, b]) => a.minimum(b),
        ("gt", [a, b]) => a.gt(b),
        ("ge", [a, b]) => a.ge(b),
        ("lt", [a, b]) => a.lt(b),
        ("le", [a, b]) => a.le(b),
        ("eq", [a, b]) => a.eq(b),
        ("ne", [a, b]) => a.ne(b),
        ("where", [mask, a, b]) => mask.select(a, b),
        ("dot", [a, b]) => a.dot(b),
        ("matmul", [a, b]) => a.matmul(b),

        ("sum", [x]) => kept(case, x, x.sum_dims(&reduced(case, x)?))?,
        ("mean", [x]) => kept(case, x, x.mean_dims(&reduced(case, x)?))?,
        ("amax", [x]) => kept(case, x, x.max_dims(&reduced(case, x)?))?,
        ("amin", [x]) => kept(case, x, x.min_dims(&reduced(case, x)?))?,
        ("var", [x]) => kept(case, x, x.var_dims(&reduced(case, x)?, attr(case, "correction")?))?,
        ("std", [x]) => kept(case, x, x.std_dims(&reduced(case, x)?, attr(case, "correction")?))?,
        ("logsumexp", [x]) => kept(case, x, logsumexp(x, &reduced(case, x)?))?,
        ("softmax", [x]) => x.softmax(attr(case, "dim")?),
        ("log_softmax", [x]) => x.log_softmax(attr(case, "dim")?),
        ("cumsum", [x]) => x.cumsum(attr(case, "dim")?),

        ("transpose", [x]) => x.transpose(attr(case, "dim0")?, attr(case, "dim1")?),
        ("permute", [x]) => x.permute(&attr::<Vec<usize>>(case, "dims")?),
        ("reshape", [x]) => x.reshape(&resolved(x, &attr::<Vec<isize>>(case, "shape")?)),
        ("narrow", [x]) => {
            x.narrow(attr(case, "dim")?, attr(case, "start")?, attr(case, "length")?)
        }
        ("slice_step", [x]) => {
            let dim = attr(case, "dim").unwrap_or(0);
            x.slice_step(dim, attr(case, "start")?, attr(case, "stop")?, attr(case, "step")?)
        }
        ("cat", parts) => Var::cat(parts, attr(case, "dim")?),
        ("stack", parts) => Var::stack(parts, attr(case, "dim")?),
        ("cat_same", [x]) => Var::cat(&[x.clone(), x.clone()], attr(case, "dim")?),
        ("gather", [x, index]) => x.gather(index, attr(case, "dim")?),
        ("index_select", [x, index]) => x.index_select(index, attr(case, "dim")?),
        ("scatter_add", [x, index, source]) => x.scatter_add(index, source, attr(case, "dim")?),
        ("index_add", [x, index, source]) => x.index_add(index, source, attr(case, "dim")?),
        ("expand", [x]) => x.broadcast_to(&attr::<Vec<usize>>(case, "shape")?),
        ("unsqueeze", [x]) => x.unsqueeze(attr(case, "dim")?),
        ("squeeze", [x]) => x.squeeze(attr(case, "dim")?),
        ("flip", [x]) => x.flip(&attr::<Vec<isize>>(case, "dims")?),
        ("roll", [x]) => x.roll(attr(case, "shift")?, attr(case, "dim")?),
        // The format tells these three apart by the case's id alone.
        ("detach", [x]) if case.id.contains("times_self") => x * x.detach(),
        ("detach", [x]) if case.id.contains("straight_through") => (x - x.detach()).exp() * 3.0,
        ("detach", [x]) => x.detach(),

        (name, args) => {
            match formulas::composite(name, args).or_else(|| formulas::second_order(name, first)) {
                Some(out) => out?,
                None => bail!("no op is known as `{name}` with {} arguments", args.len()),
            }
        }
    })
}

fn attr<T: DeserializeOwned>(case: &OpCase, name: &str) -> Result<T> {
    let value = case.attrs.get(name).with_context(|| format!("no attribute `{name}`"))?;
    serde_json::from_value(value.clone()).with_context(|| format!("attribute `{name}`"))
}

/// The dims in `dim`, which is a number, a list, or null for all of them, counted from the front.
fn reduced(case: &OpCase, x: &Var) -> Result<Vec<isize>> {
    let rank = x.rank() as isize;
    let dims = match case.attrs.get("dim") {
        None | Some(serde_json::Value::Null) => (0..rank).collect(),
        Some(serde_json::Value::Array(_)) => attr(case, "dim")?,
        Some(_) => vec![attr(case, "dim")?],
    };
    Ok(dims.into_iter().map(|dim: isize| if dim < 0 { dim + rank } else { dim }).collect())
}

/// Puts the reduced dims of `x` back, with size 1, where the case asks for that.
fn kept(case: &OpCase, x: &Var, reduction: Var) -> Result<Var> {
    if !attr::<Option<bool>>(case, "keepdim").unwrap_or_default().unwrap_or_default() {
        return Ok(reduction);
    }
    let mut shape = x.shape().to_vec();
    for dim in reduced(case, x)? {
        *shape.get_mut(dim as usize).context("`dim` is out of range")? = 1;
    }
    Ok(reduction.reshape(&shape))
}

/// Over several dims at once: the inner ones first, as logsumexp nests.
fn logsumexp(x: &Var, dims: &[isize]) -> Var {
    let mut dims = dims.to_vec();
    dims.sort_unstable();
    dims.into_iter().rev().fold(x.clone(), |x, dim| x.logsumexp(dim))
}

/// Replaces the one -1 in `shape`.
fn resolved(x: &Var, shape: &[isize]) -> Vec<usize> {
    let known: isize = shape.iter().filter(|&&size| size >= 0).product();
    let rest = x.elem_count() / known.max(1) as usize;
    shape.iter().map(|&size| usize::try_from(size).unwrap_or(rest)).collect()
}
