//! Gradients written into buffers of the caller.

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use support::{all_steps, programs};
use tinsmith_grad::{Backward, DType, Device, Error, Executor, Var, with_executor};

fn run_both<T: tinsmith_grad::Element + std::fmt::Debug>(
    loss: &Var,
    wrt: &[&Var],
    garbage: T,
) -> Result<(), TestCaseError> {
    let found = Backward::new(loss).allow_unused().run(wrt).unwrap();
    let mut buffers: Vec<Vec<T>> =
        wrt.iter().map(|leaf| vec![garbage; leaf.elem_count()]).collect();
    let mut places: Vec<&mut [T]> = buffers.iter_mut().map(Vec::as_mut_slice).collect();
    let values = Backward::new(loss).allow_unused().run_into(wrt, &mut places).unwrap();

    let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    prop_assert!(same(values.value(), found.value()));
    for (gradient, buffer) in found.as_slice().iter().zip(&buffers) {
        let gradient = gradient.flatten_all().unwrap().to_vec1::<T>().unwrap();
        let mut pairs = gradient.iter().zip(buffer);
        prop_assert!(
            pairs.all(|(a, b)| same(a.to_f64(), b.to_f64())),
            "{gradient:?} and {buffer:?}"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn buffers_get_the_bits_that_tensors_have(program in programs(), single in any::<bool>()) {
        let dtype = if single { DType::F32 } else { DType::F64 };
        let leaves: Vec<Var> =
            program.leaves().iter().map(|leaf| Var::new(leaf.to_dtype(dtype).tensor().unwrap())).collect();
        let loss = program.record(&leaves, &all_steps());
        let wrt: Vec<&Var> = leaves.iter().collect();
        for executor in [Executor::Fused { threads: 1 }, Executor::Reference] {
            with_executor(executor, || match dtype {
                DType::F32 => run_both(&loss, &wrt, f32::NAN),
                _ => run_both(&loss, &wrt, f64::NAN),
            })?;
        }
    }
}

/// A leaf that shares memory has the values of one that owns it, to the bit, and gives the memory
/// back.
#[test]
fn a_shared_leaf_is_a_leaf() {
    let data: Arc<[f32]> = support::numbers(3, 1000).iter().map(|&x| x as f32).collect();
    for executor in [Executor::Fused { threads: 1 }, Executor::Reference] {
        let slopes = |x: &Var| {
            let loss = (x.exp() * x.narrow(0, 1, 1)).sum() + x.cumsum(1).max();
            let found = loss.backward(&[x]).unwrap();
            (found.value().to_bits(), found[0].to_vec2::<f32>().unwrap())
        };
        with_executor(executor, || {
            let owned = Var::from_vec(data.to_vec(), &[2, 500], &Device::Cpu);
            let shared = Var::from_arc(&data, &[2, 500]);
            assert_eq!(Arc::strong_count(&data), 2);
            assert_eq!(slopes(&shared), slopes(&owned));
            assert_eq!(shared.to_vec::<f32>().unwrap(), *data);
        });
    }
    assert_eq!(Arc::strong_count(&data), 1);
    assert!(Var::from_arc(&data, &[999]).error().is_some());
    let masks: Arc<[u8]> = vec![0, 1].into();
    assert_eq!(Var::from_arc(&masks, &[2]).to_vec::<u8>().unwrap(), [0, 1]);
}

fn ones(n: usize, dtype: DType) -> Var {
    Var::new(tinsmith_grad::Tensor::ones(n, dtype, &Device::Cpu).unwrap())
}

/// One computed value is the gradient of two leaves, a leaf is the gradient of another, and the
/// loss reads a gradient.
#[test]
fn values_that_are_needed_twice_are_written_twice() {
    let (a, b) = (ones(4, DType::F64), Var::from_vec(vec![1.0, 2.0, 3.0, 4.0], &[4], &Device::Cpu));
    let c = Var::from_vec(vec![0.5; 4], &[4], &Device::Cpu);
    let loss = ((&a + &b) * (&c * 2.0)).sum() + a.dot(&b);
    let (mut ga, mut gb, mut gc) = ([0.0; 4], [0.0; 4], [0.0; 4]);
    Backward::new(&loss).run_into(&[&a, &b, &c], &mut [&mut ga, &mut gb, &mut gc]).unwrap();
    assert_eq!(ga, [2.0, 3.0, 4.0, 5.0]);
    assert_eq!(gb, [2.0; 4]);
    assert_eq!(gc, [4.0, 6.0, 8.0, 10.0]);
}

#[test]
fn gradients_of_another_dtype_than_most_of_the_graph_are_written() {
    let x = ones(3, DType::F64);
    let narrow = x.to_dtype(DType::F32);
    let loss = (narrow.exp() * 2.0).sum();
    let mut gradient = [0f64; 3];
    Backward::new(&loss).run_into(&[&x], &mut [&mut gradient]).unwrap();
    assert_eq!(gradient, [f64::from(1f32.exp() * 2.0); 3]);
}

#[test]
fn unfit_buffers_are_refused_untouched() {
    let x = ones(3, DType::F32);
    let loss = x.sum();
    let mut buffer = [7f32; 4];
    let error = Backward::new(&loss).run_into(&[&x], &mut [&mut buffer]).unwrap_err();
    assert!(error.to_string().contains("buffer 0 has 4 elements"), "{error}");
    let error = Backward::new(&loss).run_into::<f32>(&[&x], &mut []).unwrap_err();
    assert!(error.to_string().contains("0 buffers for 1 gradients"), "{error}");
    let error = Backward::new(&loss).run_into(&[&x], &mut [&mut [0f64; 3][..]]).unwrap_err();
    assert!(matches!(error, Error::DType { op: "run_into", .. }), "{error}");
    assert_eq!(buffer, [7.0; 4]);
}

#[test]
fn a_gradient_that_is_not_finite_is_found_in_its_buffer() {
    let x = Var::from_vec(vec![1f32, 0.0], &[2], &Device::Cpu);
    let loss = x.sqrt().sum();
    let mut gradient = [0f32; 2];
    let run = Backward::new(&loss).check_finite().run_into(&[&x], &mut [&mut gradient]);
    assert!(matches!(run, Err(Error::NonFinite { .. })));
}
