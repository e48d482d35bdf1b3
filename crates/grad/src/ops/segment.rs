use super::unary::require_float;
use crate::error::Error;
use crate::graph::dims::Dims;
use crate::graph::op::{Op, ReduceOp};
use crate::graph::segments::Segments;
use crate::graph::var::Var;

/// Reduction by consecutive rows and its inverse, for [`Ragged`](crate::Ragged), which has checked
/// the row counts.
impl Var {
    /// `[rows, ..]` to `[segments, ..]`. An empty segment gives the neutral element: 0, -inf or
    /// inf.
    #[track_caller]
    pub(crate) fn segment_reduce(&self, op: ReduceOp, segments: &Segments) -> Var {
        let op = Op::SegmentReduce { op, segments: segments.clone() };
        self.per_segment(op, segments.rows(), segments.len())
    }

    /// `[segments, ..]` to `[rows, ..]`, each row a copy of its segment's.
    #[track_caller]
    pub(crate) fn segment_expand(&self, segments: &Segments) -> Var {
        self.per_segment(Op::SegmentExpand(segments.clone()), segments.len(), segments.rows())
    }

    #[track_caller]
    fn per_segment(&self, op: Op, from: usize, to: usize) -> Var {
        let name = op.name();
        Var::apply(name, [self], |at| {
            require_float(name, &[self], at)?;
            if self.shape().first() != Some(&from) {
                let why = format!("does not begin with {from}");
                return Err(Error::Shape {
                    op: name,
                    shapes: vec![self.shape().to_vec()],
                    why,
                    at,
                });
            }
            let mut shape = Dims::from_slice(self.shape());
            shape[0] = to;
            Ok((op, shape, self.dtype()))
        })
    }
}
