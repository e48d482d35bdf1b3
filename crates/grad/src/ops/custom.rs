use std::sync::Arc;

use crate::error::Error;
use crate::graph::caller::here;
use crate::graph::custom::CustomOp;
use crate::graph::dims::Dims;
use crate::graph::op::{Op, Shared};
use crate::graph::var::Var;

impl Var {
    /// Records `op` over `inputs`, at least one; see [`CustomOp`].
    #[track_caller]
    pub fn custom(op: Arc<dyn CustomOp>, inputs: &[&Var]) -> Var {
        let name = op.name();
        if inputs.is_empty() {
            return Var::invalid(Error::Custom {
                op: name,
                why: "needs at least one input".into(),
                at: here(),
            });
        }
        let owned: Vec<Var> = inputs.iter().map(|&v| v.clone()).collect();
        Var::apply(name, inputs.iter().copied(), |at| match op.output(&owned) {
            Ok((shape, dtype)) => Ok((Op::Custom(Shared(op)), Dims::from_vec(shape), dtype)),
            Err(why) => Err(Error::Custom { op: name, why, at }),
        })
    }
}
