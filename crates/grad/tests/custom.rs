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
        for error in [
            grad(&y.sum(), &[&x]).unwrap_err(),
            y.exp().sum().backward(&[&x]).unwrap_err(),
        ] {
            assert!(
                matches!(
                    error,
                    Error::Custom {
                        op: "misbehaved",
                        ..
                    }
                ),
                "case {i}: {error}"
            );
            assert!(
                error.to_string().contains("custom.rs:"),
                "case {i}: {error}"
            );
        }
    }
    let kept = Var::custom(Arc::new(Misbehaved(|g| g * 2.0)), &[&x]);
    assert_eq!(
        grad(&kept.sum(), &[&x]).unwrap()[0]
            .to_vec::<f64>()
            .unwrap(),
        [2.0; 6]
    );
}
