//! Reverse-mode automatic differentiation on candle tensors.
#![doc = ""]

mod backward;
mod custom;
mod dims;
mod error;
mod exec;
mod gradcheck;
mod graph;
mod op;
mod ops;
mod ragged;
mod reach;
mod segments;
mod var;
mod vjp;

pub use backward::{Backward, Gradients, grad};
pub use candle_core::{DType, Device, Tensor};
pub use custom::CustomOp;
pub use error::{Error, Loc, Result};
pub use exec::{Executor, check_finite, eval, with_executor};
pub use gradcheck::{Gradcheck, GradcheckReport, gradcheck};
pub use ops::Operand;
pub use ragged::{Ragged, RaggedOperand};
pub use reach::reached_rows;
pub use var::{Element, Var, here, located};
