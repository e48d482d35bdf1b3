//! Reverse-mode automatic differentiation on candle tensors, in pure Rust.
//!
//! ```
//! use tinsmith_grad::{Device, Var};
//!
//! let logprobs = Var::from_vec(vec![-1.0f64, -0.5, -2.0], &[3], &Device::Cpu);
//! let old = Var::from_vec(vec![-1.1f64, -0.9, -1.5], &[3], &Device::Cpu);
//! let advantages = Var::from_vec(vec![1.0f64, 1.0, -1.0], &[3], &Device::Cpu);
//!
//! let ratio = (&logprobs - &old).exp();
//! let clipped = ratio.clamp(0.8, 1.2);
//! let loss = -(&ratio * &advantages).minimum(&clipped * &advantages).sum();
//!
//! let grads = loss.backward(&[&logprobs])?; // evaluated here, loss and gradient together
//! let slope = grads[0].to_vec1::<f64>()?;
//! assert!((slope[0] + 0.1f64.exp()).abs() < 1e-12); // -ratio · advantage, within the bounds
//! assert_eq!(slope[1], 0.0); // clipped: e^0.4 is above 1.2, and the advantage is positive
//! # anyhow::Ok(())
//! ```
//!
//! * **Lazy.** A [`Var`] is a node of a graph. Ops record and check shapes; [`item`](Var::item),
//!   [`to_vec`](Var::to_vec), [`tensor`](Var::tensor), [`eval`] and [`backward`](Var::backward)
//!   compute, in one schedule that sees the whole graph and fuses it.
//! * **Errors are values.** Ops neither panic nor return `Result`. The first thing that does not
//!   fit is carried along, with the line of your source, to the call that computes; see [`Error`].
//! * **Nothing is silently zero.** A leaf that the loss does not reach is an error, as is a root
//!   that is not a scalar; [`check_finite`] finds where the first NaN or infinity was made.
//! * **Derivatives are graphs.** [`grad`] returns `Var`s that can be differentiated again.
//!   [`CustomOp`] adds a function of your own, [`gradcheck`](gradcheck()) checks it, or a whole
//!   loss, against difference quotients.
//! * **Ragged batches.** [`Ragged`] packs sequences of unequal length into one `Var`, with
//!   reductions by sequence.
//! * **Two executors.** On the CPU a fused one, a few passes over memory for loss and gradient
//!   together, its results the same bits for any number of threads; a plain one on every candle
//!   device, against which it is tested ([`Executor`]).
//!
//! # At kinks
//!
//! Where a function has no derivative, the convention is PyTorch's (2.15).
//!
//! | function | at | gradient |
//! |---|---|---|
//! | `abs`, `relu` | 0 | 0 |
//! | `clamp` | a bound | 0 |
//! | `maximum`, `minimum` | a tie | half to each |
//! | `max`, `min` and theirs of dimensions and sequences | ties | shared equally |
//! | `std_dims`, `norm` | a constant, 0 | 0 |
//! | `pow`, `powf` | 0 to the power 0 | 0 for the base |
//! | `pow` | 0 to a negative power | -inf for the exponent |
//! | `logsumexp`, `softmax`, `log_softmax` and theirs of sequences | -inf everywhere | 0 |
//! | `sqrt`, `log`, `rsqrt` | 0 | infinite |
//! | `sign`, `floor`, `ceil`, `round` | everywhere | 0 |
//! | comparisons, `detach`, casts to integers, indices | everywhere | none: what lies behind is not reached |
//!
//! NaN is kept by `maximum`, `minimum`, `clamp`, `relu`, `max` and `min`. `softplus` is x itself
//! above 20. Deviations: `sign` of NaN is 0; `max_dims` and `min_dims` are PyTorch's `amax` and
//! `amin`, which share among ties, where its `max(dim)` and `min(dim)` give all to one.
//!
//! # CUDA
//!
//! With the feature `cuda`, leaves may be on a CUDA device; all ops then run there by the plain
//! executor. Building it needs the CUDA toolkit.

mod autobatch;
mod calculus;
mod diagnose;
mod error;
mod exec;
mod graph;
mod ops;
mod ragged;
mod sealed;

// The generator of random graphs is shared with the integration tests, which know this crate by its
// name.
#[cfg(test)]
extern crate self as tinsmith_grad;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;

pub use calculus::backward::{Backward, grad};
pub use calculus::gradcheck::{Gradcheck, GradcheckReport, gradcheck};
pub use calculus::gradients::{Gradients, Values};
pub use calculus::higher::{hessian, hvp, jacobian, jvp, vjp};
pub use candle_core::{self, DType, Device, Tensor};
pub use diagnose::dump::{Dump, dump};
pub use diagnose::non_finite::check_finite;
pub use diagnose::reach::reached_rows;
pub use error::{Error, Loc, Result};
pub use exec::{Executor, eval, with_executor};
pub use graph::caller::{here, located};
pub use graph::custom::CustomOp;
pub use graph::element::Element;
pub use graph::var::Var;
pub use ops::Operand;
pub use ragged::{Ragged, RaggedOperand};
