//! The calculus: for each primitive, the vector-Jacobian product with respect to each of its
//! inputs, recorded as ordinary ops, so that a derivative can be differentiated again.
//!
//! A rule may leave its result in the shape of the node's *output*; where an operand was broadcast,
//! the driver sums the copies.

#[cfg(test)]
#[path = "../../tests/unit/derivatives.rs"]
mod checks;

use crate::error::Error;
use crate::graph::differentiable::is_differentiable;
use crate::graph::dims::reduced;
use crate::graph::op::{BinaryOp, Op, ReduceOp, UnaryOp};
use crate::graph::var::Var;

/// The gradient of an input.
pub(crate) enum Cotangent {
    Whole(Var),
    /// Of these rows along `dim`, from `start` on; the others have none from here.
    Rows {
        dim: usize,
        start: usize,
        rows: Var,
    },
}

/// The gradient of `y`'s input `i`, given the gradient `g` of `y`. `None` where there is none.
pub(crate) fn vjp(y: &Var, i: usize, g: &Var) -> Option<Cotangent> {
    if !is_differentiable(y, i) {
        return None;
    }
    let inputs = &y.0.inputs;
    let x = &inputs[i];
    Some(Cotangent::Whole(match &y.0.op {
        Op::Leaf(_) | Op::Full(_) | Op::Invalid(_) | Op::Compare(_) | Op::Detach => return None,
        Op::Cast => g.cast_like(x),
        Op::Unary(op) => unary(*op, x, y, g),
        Op::Binary(op) => binary(*op, i, &inputs[0], &inputs[1], y, g),
        Op::Select if i == 1 => inputs[0].select(g, 0.0),
        Op::Select => inputs[0].select(0.0, g),
        Op::Reduce { op, dims } => {
            let kept = reduced(x.shape(), dims, true);
            let count = |ties: &Var| ties.reduce(ReduceOp::Sum, Ok(dims.clone()), true);
            let expand = |y: &Var| y.broadcast_to(x.shape());
            reduction(*op, [x, &y.reshape(&kept), &g.reshape(&kept)], count, expand)
        }
        Op::Broadcast => g.clone(),
        Op::Reshape => g.reshape(x.shape()),
        Op::Permute(dims) => {
            let mut inverse = dims.clone();
            dims.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
            g.permute(&inverse)
        }
        Op::Narrow { dim, start } => {
            let (dim, start, rows) = (*dim, *start, g.clone());
            return Some(Cotangent::Rows { dim, start, rows });
        }
        Op::Pad { dim, before } => g.narrow(*dim as isize, *before, x.shape()[*dim]),
        Op::Cat { dim } => {
            let start = inputs[..i].iter().map(|v| v.shape()[*dim]).sum();
            g.narrow(*dim as isize, start, x.shape()[*dim])
        }
        Op::Flip(dims) => g.flip(&signed(dims)),
        Op::CumSum { dim } => {
            let dim = *dim as isize;
            g.flip(&[dim]).cumsum(dim).flip(&[dim])
        }
        Op::Gather { dim } => zeros_like(x).scatter_add(&inputs[1], g, *dim as isize),
        Op::IndexSelect { dim } => zeros_like(x).index_add(&inputs[1], g, *dim as isize),
        Op::ScatterAdd { .. } | Op::IndexAdd { .. } if i == 0 => g.clone(),
        Op::ScatterAdd { dim } => g.gather(&inputs[1], *dim as isize),
        Op::IndexAdd { dim } => g.index_select(&inputs[1], *dim as isize),
        Op::MatMul if i == 0 => g.matrix_product(&inputs[1].t()),
        Op::MatMul => inputs[0].t().matrix_product(g),
        Op::SegmentReduce { op, segments } => {
            let count = |ties: &Var| ties.segment_reduce(ReduceOp::Sum, segments);
            reduction(*op, [x, y, g], count, |y| y.segment_expand(segments))
        }
        Op::SegmentExpand(segments) => g.segment_reduce(ReduceOp::Sum, segments),
        Op::Custom(op) => {
            let part = op.0.vjp(inputs, y, i, g)?;
            kept_promise(part, y, i)
        }
    }))
}

/// What a custom op gives for the gradient of input `i` of `y`, if it is of that input's kind.
fn kept_promise(part: Var, y: &Var, i: usize) -> Var {
    let x = &y.0.inputs[i];
    let is_alike = part.shape() == x.shape()
        && part.dtype() == x.dtype()
        && part.device().same_device(x.device());
    if is_alike || part.error().is_some() {
        return part;
    }
    let why = format!(
        "the vjp of input {i} is {:?} {:?} {:?}, the input {:?} {:?} {:?}",
        part.shape(),
        part.dtype(),
        part.device().location(),
        x.shape(),
        x.dtype(),
        x.device().location(),
    );
    let (op, at) = (y.0.op.name(), y.0.at);
    Var::from(Error::Custom { op, why, at })
}

/// `count` sums over the elements that were reduced to one, and `expand` copies one to each of
/// them.
fn reduction(
    op: ReduceOp,
    [x, y, g]: [&Var; 3],
    count: impl Fn(&Var) -> Var,
    expand: impl Fn(&Var) -> Var,
) -> Var {
    match op {
        ReduceOp::Sum => expand(g),
        ReduceOp::Max | ReduceOp::Min => {
            let ties = x.eq(expand(y)).to_dtype(x.dtype());
            let share = g / count(&ties);
            ties * expand(&share)
        }
    }
}

fn unary(op: UnaryOp, x: &Var, y: &Var, g: &Var) -> Var {
    match op {
        UnaryOp::Neg => -g,
        UnaryOp::Exp => g * y,
        UnaryOp::Expm1 => g * x.exp(),
        UnaryOp::Log => g / x,
        UnaryOp::Log1p => g / (x + 1.0),
        UnaryOp::Sqrt => g / (y * 2.0),
        UnaryOp::Rsqrt => g * -0.5 * (y.square() * y),
        UnaryOp::Abs => g * x.sign(),
        // 1 - tanh², without the cancellation at its ends.
        UnaryOp::Tanh => g * ((x * 2.0).sigmoid() * (x * -2.0).sigmoid() * 4.0),
        UnaryOp::Sigmoid => g * (y * (-x).sigmoid()),
        UnaryOp::LogSigmoid => g * (-x).sigmoid(),
        UnaryOp::Erf => g * ((-x.square()).exp() * std::f64::consts::FRAC_2_SQRT_PI),
        UnaryOp::Sin => g * x.cos(),
        UnaryOp::Cos => -(g * x.sin()),
        UnaryOp::Square => g * (x * 2.0),
        UnaryOp::Recip => -(g * y.square()),
        UnaryOp::Sign | UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round => zeros_like(x),
        UnaryOp::Powf { exponent } => match exponent.get() {
            0.0 => zeros_like(x),
            p => g * (x.powf(p - 1.0) * p),
        },
        UnaryOp::LeakyRelu { slope } => x.gt(0.0).select(g, g * slope.get()),
        UnaryOp::Clamp { lo, hi } => within(x, lo.get(), hi.get(), g),
    }
}

fn within(x: &Var, lo: f64, hi: f64, g: &Var) -> Var {
    let above = x.le(lo).select(0.0, g);
    x.ge(hi).select(0.0, above)
}

fn binary(op: BinaryOp, i: usize, a: &Var, b: &Var, y: &Var, g: &Var) -> Var {
    let is_first = i == 0;
    match op {
        BinaryOp::Add => g.clone(),
        BinaryOp::Sub if is_first => g.clone(),
        BinaryOp::Sub => -g,
        BinaryOp::Mul => g * if is_first { b } else { a },
        BinaryOp::Div if is_first => g / b,
        BinaryOp::Div => -(g * (y / b)),
        BinaryOp::Pow if is_first => b.eq(0.0).select(0.0, g * b * a.pow(b - 1.0)),
        // ln 0 is kept out, so that 0 to a positive power has gradient 0 and not 0 · inf; to a
        // negative one, -inf.
        BinaryOp::Pow => {
            let base = a.eq(0.0).select(b.ge(0.0).to_dtype(a.dtype()), a);
            g * y * base.log()
        }
        BinaryOp::Maximum if is_first => chosen(a.lt(b), a.eq(b), g),
        BinaryOp::Maximum => chosen(b.lt(a), a.eq(b), g),
        BinaryOp::Minimum if is_first => chosen(a.gt(b), a.eq(b), g),
        BinaryOp::Minimum => chosen(b.gt(a), a.eq(b), g),
    }
}

/// `g` where an operand was not `lost` to the other, half of it on a tie.
fn chosen(lost: Var, is_tie: Var, g: &Var) -> Var {
    lost.select(0.0, is_tie.select(g * 0.5, g))
}

fn zeros_like(x: &Var) -> Var {
    x.full_like(0.0)
}

fn signed(dims: &[usize]) -> Vec<isize> {
    dims.iter().map(|&d| d as isize).collect()
}

/// The sum of `g` over the copies that broadcasting made of an operand of shape `shape`.
pub(crate) fn sum_to(g: &Var, shape: &[usize]) -> Var {
    if g.shape() == shape || g.error().is_some() {
        return g.clone();
    }
    let added = g.rank().saturating_sub(shape.len());
    let copied = |d: usize| d < added || (shape[d - added] == 1 && g.shape()[d] != 1);
    let dims = (0..g.rank()).filter(|&d| copied(d)).collect();
    g.reduce(ReduceOp::Sum, Ok(dims), true).reshape(shape)
}
