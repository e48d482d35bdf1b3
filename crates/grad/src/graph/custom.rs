use candle_core::{DType, Tensor};

use super::var::Var;

/// A user's own differentiable function: how to compute it, and its derivative.
///
/// For a function that is not a composite of this crate's ops, or one whose derivative is better
/// written by hand. Record it with [`Var::custom`]; check it with
/// [`gradcheck`](crate::gradcheck()).
///
/// ```
/// use std::sync::Arc;
/// use tinsmith_grad::{CustomOp, DType, Device, Tensor, Var, candle_core};
///
/// /// Rounds forward, passes the gradient through: the straight-through estimator (Bengio et al., 2013).
/// struct RoundStraightThrough;
///
/// impl CustomOp for RoundStraightThrough {
///     fn name(&self) -> &'static str {
///         "round_straight_through"
///     }
///     fn output(&self, inputs: &[Var]) -> Result<(Vec<usize>, DType), String> {
///         Ok((inputs[0].shape().to_vec(), inputs[0].dtype()))
///     }
///     fn forward(&self, inputs: &[Tensor]) -> candle_core::Result<Tensor> {
///         inputs[0].round()
///     }
///     fn vjp(&self, _inputs: &[Var], _output: &Var, _input: usize, grad: &Var) -> Option<Var> {
///         Some(grad.clone())
///     }
/// }
///
/// let x = Var::from_vec(vec![0.4f64, 1.6], &[2], &Device::Cpu);
/// let y = Var::custom(Arc::new(RoundStraightThrough), &[&x]);
/// assert_eq!(y.to_vec::<f64>()?, [0.0, 2.0]);
/// assert_eq!(y.square().sum().backward(&[&x])?[0].to_vec1::<f64>()?, [0.0, 4.0]);
/// # anyhow::Ok(())
/// ```
pub trait CustomOp: Send + Sync {
    /// What error messages and graph dumps call the op.
    fn name(&self) -> &'static str;

    /// The shape and dtype of the result, or why these inputs do not fit. Called when the op is
    /// recorded.
    fn output(&self, inputs: &[Var]) -> Result<(Vec<usize>, DType), String>;

    /// The result, of the shape and dtype that [`output`](CustomOp::output) told.
    fn forward(&self, inputs: &[Tensor]) -> candle_core::Result<Tensor>;

    /// The gradient of `inputs[input]`, in that input's shape, given the gradient `grad` of the
    /// result; `None` if nothing flows there. It is made of `Var` ops (other custom ops among
    /// them), so it can be differentiated in turn.
    fn vjp(&self, inputs: &[Var], output: &Var, input: usize, grad: &Var) -> Option<Var>;
}
