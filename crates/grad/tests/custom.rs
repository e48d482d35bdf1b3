//! What a custom op promises and does not keep is an error that names it.

use std::sync::Arc;

use tinsmith_grad::{CustomOp, DType, Device, Error, Tensor, Var, candle_core, grad};

type Derivative = fn(&Var) -> Var;

/// The identity, with a derivative that may be of the wrong kind.
struct Misbehaved(Derivative);

impl CustomOp for Misbehaved {
    fn name(&self) -> &'static str {
        "misbehaved"
    }
    fn output(&self, inputs: &[Var]) -> Result<(Vec<usize>, DType), String> {
        Ok((inputs[0].shape().to_vec(), inputs[0].dtype()))
    }
    fn forward(&self, inputs: &[Tensor]) -> candle_core::Result<Tensor> {
        Ok(inputs[0].clone())
    }
    fn vjp(&self, _: &[Var], _: &Var, _: usize, grad: &Var) -> Option<Var> {
        Some((self.0)(grad))
    }
}

#[test]
fn a_derivative_of_another_kind_than_the_input_is_refused() {
    let cases: [Derivative; 9] = [
        |g| g.to_dtype(DType::F32),
        |g| g.gt(0.0),
        |g| g.sum(),
        |g| g.sum_keepdim(&[0]),
        |g| g.reshape(&[6]),
        |g| g.narrow(1, 0, 2),
        |g| g.unsqueeze(0),
        |g| g.t(),
        |_| Var::scalar(0.0),
    ];
    let x = Var::from_vec(vec![1f64; 6], &[2, 3], &Device::Cpu);
    for (i, derivative) in cases.into_iter().enumerate() {
        let y = Var::custom(Arc::new(Misbehaved(derivative)), &[&x]);
        for error in
            [grad(&y.sum(), &[&x]).unwrap_err(), y.exp().sum().backward(&[&x]).unwrap_err()]
        {
            assert!(matches!(error, Error::Custom { op: "misbehaved", .. }), "case {i}: {error}");
            assert!(error.to_string().contains("custom.rs:"), "case {i}: {error}");
        }
    }
    let kept = Var::custom(Arc::new(Misbehaved(|g| g * 2.0)), &[&x]);
    assert_eq!(grad(&kept.sum(), &[&x]).unwrap()[0].to_vec::<f64>().unwrap(), [2.0; 6]);
}

#[test]
fn nothing_is_derived_from_a_derivative_that_was_refused() {
    let refused = |x: &Var| Var::custom(Arc::new(Misbehaved(|g| g.sum())), &[x]);
    // A gradient always has its input's shape, so an op may rely on that.
    let reads_shape: Derivative = |g| g * g.shape()[0] as f64;
    let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0], &[4], &Device::Cpu);
    let y = Var::custom(Arc::new(Misbehaved(reads_shape)), &[&x]);
    let by_piece = |length| {
        let pieces = (0..4).step_by(length).map(|start| x.narrow(0, start, length));
        pieces.fold(Var::scalar(0.0), |sum, piece| sum + refused(&piece).sum())
    };
    let losses = [
        refused(&y).sum(),
        refused(&y.sum_keepdim(&[0])).sum() + y.sum(),
        by_piece(2),
        by_piece(1),
        refused(&x.narrow(0, 1, 2)).sum() + x.narrow(0, 0, 3).sum(),
    ];
    for (i, loss) in losses.iter().enumerate() {
        let error = loss.backward(&[&x]).unwrap_err();
        assert!(matches!(error, Error::Custom { op: "misbehaved", .. }), "loss {i}: {error}");
    }
}
