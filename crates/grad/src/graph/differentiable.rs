use crate::graph::op::Op;
use crate::graph::var::Var;

/// Whether anything flows from a node back to its input `i`. The ops that stop a gradient are all
/// here: comparisons, conditions, indices, `detach`, and casts to or from integers.
pub(crate) fn is_differentiable(y: &Var, i: usize) -> bool {
    match &y.0.op {
        Op::Leaf(_) | Op::Full(_) | Op::Invalid(_) | Op::Compare(_) | Op::Detach => false,
        Op::Select => i > 0,
        Op::Gather { .. }
        | Op::ScatterAdd { .. }
        | Op::IndexSelect { .. }
        | Op::IndexAdd { .. } => i != 1 && y.is_float(),
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Cast
        | Op::Reduce { .. }
        | Op::Broadcast
        | Op::Reshape
        | Op::Permute(_)
        | Op::Narrow { .. }
        | Op::Pad { .. }
        | Op::Cat { .. }
        | Op::Flip(_)
        | Op::CumSum { .. }
        | Op::MatMul
        | Op::SegmentReduce { .. }
        | Op::SegmentExpand(_)
        | Op::Custom(_) => y.is_float() && y.0.inputs[i].is_float(),
    }
}
