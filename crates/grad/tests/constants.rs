//! Constants are leaves like any other: whoever holds one can ask for its gradient.

use tinsmith_grad::{DType, Device, Error, Executor, Ragged, Tensor, Var, grad, with_executor};

fn on_both(test: impl Fn()) {
    for executor in [Executor::Fused { threads: 1 }, Executor::Reference] {
        with_executor(executor, &test);
    }
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    let wide = tensor.to_dtype(DType::F64).unwrap();
    wide.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_constant_has_its_gradient() {
    on_both(|| {
        for dtype in [DType::F32, DType::F64] {
            let zeros = Var::zeros(&[2], dtype, &Device::Cpu);
            let ones = Var::ones(&[1, 2], dtype, &Device::Cpu);
            let full = Var::full(0.5, &[], dtype, &Device::Cpu);
            let scalar = Var::scalar(0.25);
            let rows = Var::new(Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap())
                .to_dtype(dtype);
            // Σ row · e^-zero · one · full · scalar, and what the derivatives are at 0, 1, 1/2 and
            // 1/4.
            let loss =
                ((-&zeros).exp() * &rows * ones.broadcast_to(&[2, 2]) * &full * &scalar).sum();
            let found = loss.backward(&[&zeros, &ones, &full, &scalar]).unwrap();
            assert_eq!(found.value(), 1.25);
            assert_eq!(flat(&found[0]), [-0.5, -0.75]);
            assert_eq!(flat(&found[1]), [0.5, 0.75]);
            assert_eq!(flat(&found[2]), [2.5]);
            assert_eq!(flat(&found[3]), [5.0]);
            for (leaf, found) in [&zeros, &ones, &full, &scalar].iter().zip(found.as_slice()) {
                assert_eq!((leaf.shape(), leaf.dtype()), (found.dims(), found.dtype()));
            }
            let each = grad(&(&scalar - &rows).square().sum(), &[&scalar]).unwrap();
            assert_eq!(each[0].item().unwrap(), 2.0 * (4.0 * 0.25 - 10.0));
        }
    });
}

/// With a number that a loop over sequences shares or begins with, for batches that are rewritten
/// and for those that are not.
#[test]
fn a_loop_of_any_length_has_the_gradient_of_its_constants() {
    on_both(|| {
        for dtype in [DType::F32, DType::F64] {
            for n in 1..9 {
                let lengths = vec![2; n];
                let rows = Var::full(0.5, &[2 * n], dtype, &Device::Cpu);
                let (bias, scale) = (Var::zeros(&[], dtype, &Device::Cpu), Var::scalar(2.0));
                let mut total = bias.clone();
                for seq in Ragged::new(rows.clone(), &lengths).seqs() {
                    total = total + (seq * &scale).sum();
                }
                let found = total.backward(&[&bias, &scale, &rows]).unwrap();
                assert_eq!(found.value(), 2.0 * n as f64);
                assert_eq!(flat(&found[0]), [1.0], "{n} sequences");
                assert_eq!(flat(&found[1]), [n as f64], "{n} sequences");
                assert_eq!(flat(&found[2]), vec![2.0; 2 * n]);
            }
        }
    });
}

/// A constant of f32 is what f32 holds, on its own and in a loop that is rewritten.
#[test]
fn a_constant_keeps_the_precision_of_its_dtype() {
    let scale = Var::full(0.1, &[], DType::F32, &Device::Cpu);
    on_both(|| {
        for n in 1..9 {
            let rows = Var::ones(&[n], DType::F64, &Device::Cpu);
            let seqs = Ragged::new(rows, &vec![1; n]).seqs();
            let total = seqs.iter().map(|seq| (seq * &scale).sum()).reduce(|a, b| a + b);
            let expected = n as f64 * f64::from(0.1f32);
            assert!((total.unwrap().item().unwrap() - expected).abs() < 1e-15);
        }
    });
}

#[test]
fn shapes_that_no_memory_holds_are_refused() {
    let x = Var::from_vec(vec![1f64, 2.0], &[2], &Device::Cpu);
    let (half, most) = (1usize << 63, usize::MAX);
    let big = Var::ones(&[1 << 40, 1], DType::F64, &Device::Cpu);
    let refused = [
        x.reshape(&[half + 1, 2]),
        x.reshape(&[half, 2]),
        x.reshape(&[0, half, 2]),
        Var::from_vec(vec![1f64, 2.0], &[half + 1, 2], &Device::Cpu),
        Var::from_vec(Vec::<f64>::new(), &[half, 2], &Device::Cpu),
        Var::full(1.0, &[most, 2], DType::F64, &Device::Cpu).sum(),
        Var::full(1.0, &[1 << 62], DType::F64, &Device::Cpu).exp(),
        Var::zeros(&[half, 2, 0], DType::F64, &Device::Cpu),
        x.sum().broadcast_to(&[1 << 40, 1 << 40, 1]).sum(),
        Var::scalar(1.0).broadcast_to(&[most, 3]),
        &big + big.t(),
        big.t().maximum(&big),
        big.gt(big.t()).to_dtype(DType::F64),
        big.matmul(&big.t()),
        big.pad(1, most / 2, 0),
        Var::cat(
            &[big.broadcast_to(&[1 << 40, 1 << 19]), big.broadcast_to(&[1 << 40, 1 << 19])],
            0,
        ),
        Var::stack(&vec![big.broadcast_to(&[1 << 40, 1 << 19]); 40], 0),
        Ragged::new(x.clone(), &[1, 1]).expand(&x).values()
            + Ragged::new(x.clone(), &[most, 1]).values(),
        Var::new(
            Tensor::ones((), DType::F64, &Device::Cpu)
                .unwrap()
                .broadcast_as(&[1 << 31, 1 << 31][..])
                .unwrap(),
        ),
    ];
    for (i, refused) in refused.iter().enumerate() {
        let error = refused.error().unwrap_or_else(|| panic!("case {i} is accepted"));
        assert!(matches!(error, Error::Argument { .. } | Error::Shape { .. }), "case {i}: {error}");
    }
}

#[test]
fn a_derivative_that_is_constant_broadcasts_as_any_other() {
    let x = Var::from_vec(vec![1f64, 2.0], &[2], &Device::Cpu);
    let zeros = tinsmith_grad::hvp(&x.sum(), &[&x], &[&x]).unwrap().remove(0);
    assert_eq!(zeros.broadcast_to(&[3, 2]).sum().item().unwrap(), 0.0);
    for shape in [&[3][..], &[1], &[], &[2, 1]] {
        assert!(zeros.broadcast_to(shape).error().is_some(), "{shape:?}");
    }
}

/// Dtypes that nothing can be computed in are refused where they are asked for, and not cut a
/// gradient in silence.
#[test]
fn half_precision_is_refused() {
    let x = Var::from_vec(vec![1f64, 2.0], &[2], &Device::Cpu);
    for dtype in [DType::BF16, DType::F16] {
        let refused = [
            x.to_dtype(dtype),
            x.to_dtype(dtype).to_dtype(DType::F64),
            Var::full(1.0, &[2], dtype, &Device::Cpu),
            Ragged::new(x.clone(), &[1, 1]).to_dtype(dtype).values().clone(),
            Var::new(Tensor::ones(2, dtype, &Device::Cpu).unwrap()),
        ];
        for refused in refused {
            let error = refused.sum().backward(&[&x]).unwrap_err();
            assert!(matches!(&error, Error::DType { dtypes, .. } if *dtypes == [dtype]), "{error}");
        }
    }
}
