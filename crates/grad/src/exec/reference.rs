//! The reference executor: one candle op after another, on any candle device. Short before fast;
//! the other executor is tested against it.

use candle_core::{DType, Device, Result as CandleResult, Tensor};

use super::backend;
use crate::error::{Error, Result};
use crate::graph::dims::strides;
use crate::graph::op::{BinaryOp, CompareOp, Leaf, Op, ReduceOp, UnaryOp};
use crate::graph::segments::Segments;
use crate::graph::table::{binary_ops, compare_ops, unary_ops};
use crate::graph::var::Var;
use crate::graph::walk::Graph;

/// Evaluates the nodes at `roots`, showing every value of the graph to `observe` in the order the
/// ops were recorded.
pub(crate) fn evaluate(
    graph: &Graph,
    roots: &[usize],
    observe: impl Fn(&Var, &Tensor) -> Result<()>,
) -> Result<Vec<Tensor>> {
    let mut uses = vec![0usize; graph.len()];
    (0..graph.len())
        .flat_map(|at| graph.inputs(at))
        .chain(roots.iter().copied())
        .for_each(|at| uses[at] += 1);

    let mut values: Vec<Option<Tensor>> = vec![None; graph.len()];
    for (at, var) in graph.nodes.iter().enumerate() {
        let inputs: Vec<Tensor> = graph
            .inputs(at)
            .map(|input| {
                uses[input] -= 1;
                let value =
                    if uses[input] == 0 { values[input].take() } else { values[input].clone() };
                value.expect("inputs come before their users")
            })
            .collect();
        let value = compute(var, &inputs)?;
        observe(var, &value)?;
        values[at] = Some(value);
    }
    Ok(roots.iter().map(|&at| values[at].clone().expect("roots are kept")).collect())
}

pub(super) fn compute(var: &Var, x: &[Tensor]) -> Result<Tensor> {
    let shape = var.shape();
    if let Some(value) = without_elements(var, x) {
        return value.map_err(|e| backend(var, e));
    }
    let rows;
    let x = if takes_views(&var.0.op) {
        x
    } else {
        rows =
            x.iter().map(dense).collect::<CandleResult<Vec<_>>>().map_err(|e| backend(var, e))?;
        &rows
    };
    let value = match &var.0.op {
        Op::Leaf(leaf) => match leaf {
            Leaf::Tensor(tensor) => Ok(tensor.0.clone()),
            Leaf::F32(data) => Tensor::from_slice(&data.0, shape, &Device::Cpu),
            Leaf::F64(data) => Tensor::from_slice(&data.0, shape, &Device::Cpu),
        },
        Op::Full(value) => full(value.get(), var),
        Op::Invalid(error) => return Err(error.0.as_ref().clone()),
        Op::Cast => x[0].to_device(var.device()).and_then(|x| x.to_dtype(var.dtype())),
        Op::Unary(op) => unary(*op, &x[0]),
        Op::Binary(op) => broadcast2(&x[0], &x[1], shape).and_then(|(a, b)| binary(*op, &a, &b)),
        Op::Compare(op) => broadcast2(&x[0], &x[1], shape).and_then(|(a, b)| compare(*op, &a, &b)),
        Op::Select => broadcast2(&x[1], &x[2], shape)
            .and_then(|(a, b)| choose(&x[0].broadcast_as(shape)?.contiguous()?, &a, &b)),
        Op::Reduce { op, dims } => reduce(*op, &x[0], dims).and_then(|t| t.reshape(shape)),
        Op::Broadcast => x[0].broadcast_as(shape),
        Op::Reshape => x[0].reshape(shape),
        Op::Permute(dims) => x[0].permute(dims.as_slice()),
        Op::Narrow { dim, start } => x[0].narrow(*dim, *start, shape[*dim]),
        Op::Pad { dim, before } => {
            x[0].pad_with_zeros(*dim, *before, shape[*dim] - before - x[0].dims()[*dim])
        }
        Op::Cat { dim } => Tensor::cat(x, *dim),
        Op::Flip(dims) => x[0].flip(dims),
        Op::CumSum { dim } => cumsum(&x[0], *dim),
        Op::Gather { dim } => {
            check_index(var, &x[1], x[0].dims()[*dim])?;
            flat_index(&x[0], &x[1], *dim)
                .and_then(|at| x[0].flatten_all()?.index_select(&at, 0)?.reshape(shape))
        }
        Op::ScatterAdd { dim } => {
            check_index(var, &x[1], x[0].dims()[*dim])?;
            flat_index(&x[0], &x[1], *dim).and_then(|at| {
                let (to, from) = (x[0].flatten_all()?, x[2].flatten_all()?);
                widely(&to, &from, |to, from| to.index_add(&at, from, 0))?.reshape(shape)
            })
        }
        Op::IndexSelect { dim } => {
            check_index(var, &x[1], x[0].dims()[*dim])?;
            x[0].index_select(&x[1], *dim)
        }
        Op::IndexAdd { dim } => {
            check_index(var, &x[1], x[0].dims()[*dim])?;
            widely(&x[0], &x[2], |to, from| to.index_add(&x[1], from, *dim))
        }
        Op::MatMul => matmul(&x[0], &x[1], &shape[..shape.len() - 2]),
        Op::SegmentReduce { op, segments } => {
            segment_reduce(*op, &x[0], segments).and_then(|t| t.reshape(shape))
        }
        Op::SegmentExpand(segments) => segment_expand(&x[0], segments),
        Op::Detach => Ok(x[0].clone()),
        Op::Custom(op) => {
            let value = op.0.forward(x).map_err(|e| backend(var, e))?;
            if value.dims() != shape || value.dtype() != var.dtype() {
                let why = format!(
                    "promised {shape:?} {:?} and computed {:?} {:?}",
                    var.dtype(),
                    value.dims(),
                    value.dtype()
                );
                return Err(Error::Custom { op: op.0.name(), why, at: var.0.at });
            }
            Ok(value)
        }
    };
    value.map_err(|e| backend(var, e))
}

/// The results that take no computing because an operand or the result is empty, for which candle's
/// kernels are not made.
fn without_elements(var: &Var, x: &[Tensor]) -> Option<CandleResult<Tensor>> {
    let is_computed =
        !matches!(var.0.op, Op::Leaf(_) | Op::Full(_) | Op::Invalid(_) | Op::Custom(_));
    let zeros = || Some(Tensor::zeros(var.shape(), var.dtype(), var.device()));
    let lacks_elements = || x.iter().any(|t| t.elem_count() == 0);
    match &var.0.op {
        _ if is_computed && var.elem_count() == 0 => zeros(),
        Op::Reduce { op, dims: _ } if lacks_elements() => Some(full(op.neutral(), var)),
        Op::MatMul | Op::Pad { .. } if lacks_elements() => zeros(),
        Op::ScatterAdd { .. } | Op::IndexAdd { .. } if x[2].elem_count() == 0 => {
            Some(Ok(x[0].clone()))
        }
        Op::Cat { dim } if lacks_elements() => {
            let filled: Vec<&Tensor> = x.iter().filter(|t| t.elem_count() > 0).collect();
            Some(Tensor::cat(&filled, *dim))
        }
        _ => None,
    }
}

/// In row-major order, with the strides of it also along dimensions of size 1, which candle lets be
/// anything and then relies on.
pub(super) fn dense(x: &Tensor) -> CandleResult<Tensor> {
    x.contiguous()?.reshape(x.shape())
}

/// Ops for which candle accepts any strides; the others want row-major operands.
fn takes_views(op: &Op) -> bool {
    use Op::{Binary, Broadcast, Cast, Compare, Detach, Narrow, Permute, Reshape, Unary};
    matches!(
        op,
        Cast | Unary(_)
            | Binary(_)
            | Compare(_)
            | Broadcast
            | Reshape
            | Permute(_)
            | Narrow { .. }
            | Detach
    )
}

/// Stride 0: no memory, whatever the shape.
fn full(value: f64, var: &Var) -> CandleResult<Tensor> {
    Tensor::full(value, (), var.device())?.to_dtype(var.dtype())?.broadcast_as(var.shape())
}

/// `value` in the shape, dtype and device of `x`.
fn full_like(value: f64, x: &Tensor) -> CandleResult<Tensor> {
    Tensor::full(value, (), x.device())?.to_dtype(x.dtype())?.broadcast_as(x.shape())?.contiguous()
}

fn broadcast2(a: &Tensor, b: &Tensor, shape: &[usize]) -> CandleResult<(Tensor, Tensor)> {
    Ok((a.broadcast_as(shape)?, b.broadcast_as(shape)?))
}

fn choose(mask: &Tensor, a: &Tensor, b: &Tensor) -> CandleResult<Tensor> {
    mask.where_cond(&a.contiguous()?, &b.contiguous()?)
}

macro_rules! unary_tensors {
    ($($(#[$doc:meta])* $Op:ident = $method:ident($x:ident $(, $($p:ident),+)?) {
        example: $parameters:tt $of:tt => $is:tt,
        candle: $tensor:expr,
        $($columns:tt)*
    })*) => {
        fn unary(op: UnaryOp, x: &Tensor) -> CandleResult<Tensor> {
            match op {
                $(UnaryOp::$Op $({ $($p),+ })? => {
                    let $x = x;
                    $($(let $p = $p.get();)+)?
                    $tensor
                })*
            }
        }
    };
}
unary_ops!(unary_tensors);

/// Of e^-|x|, which does not overflow, so that small values keep their digits.
fn sigmoid(x: &Tensor) -> CandleResult<Tensor> {
    let e = x.abs()?.neg()?.exp()?;
    let far = (&e + 1.0)?.recip()?;
    choose(&x.ge(0.0)?, &far, &(e * &far)?)
}

/// candle rounds halves away from zero.
fn round_ties_even(x: &Tensor) -> CandleResult<Tensor> {
    let is_half = (x - x.floor()?)?.eq(0.5)?;
    choose(&is_half, &((x * 0.5)?.round()? * 2.0)?, &x.round()?)
}

fn clamp(x: &Tensor, lo: f64, hi: f64) -> CandleResult<Tensor> {
    if lo.is_nan() || hi.is_nan() {
        return full_like(f64::NAN, x);
    }
    let raised = choose(&x.lt(lo)?, &full_like(lo, x)?, x)?;
    choose(&raised.gt(hi)?, &full_like(hi, x)?, &raised)
}

/// e^x - 1 without cancellation (Kahan): the rounding error of e^x is measured by its own
/// logarithm.
fn expm1(x: &Tensor) -> CandleResult<Tensor> {
    let u = x.exp()?;
    let um1 = (&u - 1.0)?;
    let corrected = ((&um1 * x)? / u.log()?)?;
    // Where e^x is 1, 0 or infinite, the correction is 0/0 or inf/inf, and not needed.
    let tiny = choose(&u.eq(1.0)?, x, &corrected)?;
    let direct = (um1.eq(-1.0)? + u.eq(f64::INFINITY)?)?;
    choose(&direct, &um1, &tiny)
}

/// ln(1 + x) without cancellation (Kahan), as [`expm1`].
fn log1p(x: &Tensor) -> CandleResult<Tensor> {
    let u = (x + 1.0)?;
    let um1 = (&u - 1.0)?;
    let corrected = ((u.log()? * x)? / &um1)?;
    let tiny = choose(&um1.eq(0.0)?, x, &corrected)?;
    choose(&u.eq(f64::INFINITY)?, x, &tiny)
}

macro_rules! binary_tensors {
    ($($(#[$doc:meta])* $Op:ident = $method:ident($a:ident, $b:ident) {
        form: $form:tt,
        candle: $tensor:expr,
        $($columns:tt)*
    })*) => {
        fn binary(op: BinaryOp, first: &Tensor, second: &Tensor) -> CandleResult<Tensor> {
            match op {
                $(BinaryOp::$Op => {
                    let ($a, $b) = (first, second);
                    $tensor
                })*
            }
        }
    };
}
binary_ops!(binary_tensors);

// Spelled out, because candle's own lose a NaN in the second operand.
fn maximum(a: &Tensor, b: &Tensor) -> CandleResult<Tensor> {
    choose(&(a.gt(b)? + a.ne(a)?)?, a, b)
}

fn minimum(a: &Tensor, b: &Tensor) -> CandleResult<Tensor> {
    choose(&(a.lt(b)? + a.ne(a)?)?, a, b)
}

/// |a|^b by exp and log in f64, with the sign of an odd power and the special cases put in.
fn pow(a: &Tensor, b: &Tensor) -> CandleResult<Tensor> {
    let dtype = a.dtype();
    let (a, b) = (a.to_dtype(DType::F64)?, b.to_dtype(DType::F64)?);
    let magnitude = (a.abs()?.log()? * &b)?.exp()?;
    let is_integer = b.floor()?.eq(&b)?;
    let half = (&b * 0.5)?;
    let is_odd = (is_integer.clone() * half.floor()?.ne(&half)?)?;
    let signed = choose(&is_odd, &magnitude.neg()?, &magnitude)?;
    let negative_base = choose(&is_integer, &signed, &full_like(f64::NAN, &a)?)?;
    let any_base = choose(&a.lt(0.0)?, &negative_base, &magnitude)?;
    let is_one = (b.eq(0.0)? + a.eq(1.0)?)?;
    choose(&is_one, &full_like(1.0, &a)?, &any_base)?.to_dtype(dtype)
}

macro_rules! compare_tensors {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $columns:tt)*) => {
        fn compare(op: CompareOp, a: &Tensor, b: &Tensor) -> CandleResult<Tensor> {
            match op {
                $(CompareOp::$Op => a.$method(b),)*
            }
        }
    };
}
compare_ops!(compare_tensors);

/// Over `dims`, which stay with size 1.
fn reduce(op: ReduceOp, x: &Tensor, dims: &[usize]) -> CandleResult<Tensor> {
    match op {
        ReduceOp::Sum => x.to_dtype(DType::F64)?.sum_keepdim(dims)?.to_dtype(x.dtype()),
        ReduceOp::Max | ReduceOp::Min => {
            // candle's own lose a NaN that is not in front.
            let nan = choose(&x.ne(x)?, x, &x.zeros_like()?)?.sum_keepdim(dims)?;
            let mut best = x.clone();
            for &dim in dims {
                best = if op == ReduceOp::Max {
                    best.max_keepdim(dim)?
                } else {
                    best.min_keepdim(dim)?
                };
            }
            best + nan
        }
    }
}

/// Adds in f64, as reductions do, whatever the dtype.
fn widely(
    to: &Tensor,
    from: &Tensor,
    add: impl FnOnce(&Tensor, &Tensor) -> CandleResult<Tensor>,
) -> CandleResult<Tensor> {
    add(&to.to_dtype(DType::F64)?, &from.to_dtype(DType::F64)?)?.to_dtype(to.dtype())
}

/// By doubling: after step k each row holds the sum of the 2^k rows up to it.
fn cumsum(x: &Tensor, dim: usize) -> CandleResult<Tensor> {
    let n = x.dims()[dim];
    let mut sum = x.to_dtype(DType::F64)?;
    let mut shift = 1;
    while shift < n {
        sum = (&sum + sum.narrow(dim, 0, n - shift)?.pad_with_zeros(dim, shift, 0)?)?;
        shift *= 2;
    }
    sum.to_dtype(x.dtype())
}

/// Positions in the flattened `x` of the elements that `index` names along `dim`.
fn flat_index(x: &Tensor, index: &Tensor, dim: usize) -> CandleResult<Tensor> {
    let strides = strides(x.dims());
    let mut at = (index.to_dtype(DType::I64)? * strides[dim] as f64)?;
    for d in (0..x.rank()).filter(|&d| d != dim) {
        let mut shape = vec![1; x.rank()];
        shape[d] = index.dims()[d];
        let steps: Vec<i64> = (0..shape[d]).map(|i| (i * strides[d]) as i64).collect();
        at = at.broadcast_add(&Tensor::from_vec(steps, shape, x.device())?)?;
    }
    at.flatten_all()
}

fn check_index(var: &Var, index: &Tensor, size: usize) -> Result<()> {
    let values = index.to_dtype(DType::I64).and_then(|t| t.flatten_all()?.to_vec1::<i64>());
    let values = values.map_err(|e| backend(var, e))?;
    match values.into_iter().find(|&i| i < 0 || i as u64 >= size as u64) {
        Some(index) => Err(Error::Index { op: var.0.op.name(), index, size, at: var.0.at }),
        None => Ok(()),
    }
}

/// `batch`: the leading dimensions of the result.
fn matmul(a: &Tensor, b: &Tensor, batch: &[usize]) -> CandleResult<Tensor> {
    let spread = |t: &Tensor| dense(&t.broadcast_as([batch, &t.dims()[t.rank() - 2..]].concat())?);
    spread(a)?.matmul(&spread(b)?)
}

/// By halves: two neighbours become one until each segment is one row. So memory is in proportion
/// to the data, whatever the lengths.
fn segment_reduce(op: ReduceOp, x: &Tensor, segments: &Segments) -> CandleResult<Tensor> {
    let one_row = [&[1], &x.dims()[1..]].concat();
    let spare = Tensor::full(op.neutral(), one_row, x.device())?;
    let mut rows = x.to_dtype(DType::F64)?;
    let mut lengths = segments.lengths().to_vec();
    loop {
        let nothing = rows.dims()[0];
        let mut pairs = [Vec::with_capacity(nothing), Vec::with_capacity(nothing)];
        let mut start = 0;
        for length in &mut lengths {
            let end = start + *length;
            *length = length.div_ceil(2).max(1);
            for first in (0..*length).map(|pair| start + 2 * pair) {
                for (side, row) in pairs.iter_mut().zip(first..) {
                    side.push(if row < end { row } else { nothing } as i64);
                }
            }
            start = end;
        }
        rows = Tensor::cat(&[&rows, &spare], 0)?;
        let [a, b] = pairs.map(|side| {
            let count = side.len();
            rows.index_select(&Tensor::from_vec(side, count, x.device())?, 0)
        });
        rows = match op {
            ReduceOp::Sum => a? + b?,
            ReduceOp::Max => maximum(&a?, &b?),
            ReduceOp::Min => minimum(&a?, &b?),
        }?;
        if lengths.iter().all(|&length| length == 1) {
            return rows.to_dtype(x.dtype());
        }
    }
}

fn segment_expand(x: &Tensor, segments: &Segments) -> CandleResult<Tensor> {
    let owners = segments
        .lengths()
        .iter()
        .enumerate()
        .flat_map(|(seq, &n)| std::iter::repeat_n(seq as i64, n));
    let owners = Tensor::from_vec(owners.collect::<Vec<i64>>(), segments.rows(), x.device())?;
    x.contiguous()?.index_select(&owners, 0)
}
