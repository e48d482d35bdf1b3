//! The fused executor against the reference one, on random graphs with every op, their gradients
//! and second derivatives.

mod support;

use proptest::prelude::*;
use support::{all_steps, programs};
use tinsmith_grad::{DType, Device, Executor, Ragged, Tensor, Var, eval, grad, with_executor};

/// The loss, its gradients and the gradients of those: three kinds of roots in one schedule.
fn roots(program: &support::Program, dtype: DType, device: &Device) -> Vec<Var> {
    let leaves: Vec<Var> = program
        .leaves()
        .iter()
        .map(|leaf| leaf.to_dtype(dtype).tensor().unwrap())
        .map(|leaf| Var::new(leaf.to_device(device).unwrap()))
        .collect();
    let loss = program.record(&leaves, &all_steps());
    let wrt: Vec<&Var> = leaves.iter().collect();
    let first = grad(&loss, &wrt).unwrap();
    let combined = first.iter().map(|g| g.sin().sum()).reduce(|a, b| a + b).unwrap();
    let mut roots = vec![loss];
    // A loss that is linear in every leaf has no second derivative.
    roots.extend(grad(&combined, &wrt).unwrap_or_default());
    roots.extend(first);
    roots
}

fn evaluate(roots: &[Var], executor: Executor) -> Vec<Tensor> {
    with_executor(executor, || eval(&roots.iter().collect::<Vec<_>>()).unwrap())
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn compare(program: &support::Program, dtype: DType, tolerance: f64) -> Result<(), TestCaseError> {
    let reference = evaluate(&roots(program, dtype, &support::device()), Executor::Reference);
    let fused = evaluate(&roots(program, dtype, &Device::Cpu), Executor::Fused { threads: 1 });
    for (i, (reference, fused)) in reference.iter().zip(&fused).enumerate() {
        prop_assert_eq!(reference.dims(), fused.dims());
        prop_assert_eq!(reference.dtype(), fused.dtype());
        let (a, b) = (values(reference), values(fused));
        let scale = a.iter().filter(|x| x.is_finite()).fold(1.0, |m: f64, x| m.max(x.abs()));
        for (x, y) in a.iter().zip(&b) {
            let same = x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= tolerance * scale;
            prop_assert!(same, "root {}: reference {:?}, fused {:?}", i, a, b);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_executors_agree_in_f64(program in programs()) {
        compare(&program.decided(&all_steps()), DType::F64, 1e-11)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_executors_agree_in_f32(program in programs()) {
        // In one op the executors differ by rounding only, which a unit test of `exec` bounds; here
        // it is amplified by what comes after, second derivatives of steep functions above all. A
        // step that jumps where it stands would amplify it without bound.
        compare(&program.decided(&all_steps()), DType::F32, 2e-4)?;
    }
}

/// `tanh(tanh(x)) == tanh(x)` for an x of about 1e-4: false, and true in f32 if both are rounded
/// so.
#[test]
fn a_comparison_that_rounding_decides_takes_no_part() {
    let ops: [support::Step; 3] =
        [|x, _, _| x * 1e-4, |x, _, _| x.tanh(), |x, y, _| x.eq(y).select(x, y * 0.5)];
    let steps = vec![(0, 0, 0), (1, 1, 0), (1, 2, 0), (2, 3, 2), (2, 3, 0)];
    let program = support::Program { shapes: vec![vec![2]], seed: 7, steps };
    let without = [(0, 0, 0), (1, 1, 0), (1, 2, 0), (2, 3, 0)];
    assert_eq!(program.decided(&ops).steps, without);
}

/// Several blocks long, with sequences that begin and end within blocks, an empty one, and one that
/// spans more than a thread's share.
#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    // Enough for 16 threads to have a share, whose bounds lie within sequences.
    let lengths = [700, 1, 0, 90_000, 333, 1024, 180_000, 90];
    let total: usize = lengths.iter().sum();
    let f32s = |seed| -> Vec<f32> {
        support::numbers(seed, total).into_iter().map(|x| x as f32).collect()
    };
    let leaf = Var::from_vec(f32s(1), &[total], &Device::Cpu);
    let x = Ragged::new(leaf.clone(), &lengths);
    let y = Ragged::new(Var::from_vec(f32s(2), &[total], &Device::Cpu), &lengths);
    let centred = &x - x.expand(&x.mean_per_seq().clamp(-9.0, 9.0).relu());
    let per_seq = (centred.exp() * &y).sum_per_seq()
        + x.max_per_seq().clamp_min(-1e3) * y.min_per_seq().clamp_max(1e3);
    let loss = per_seq.eq(&per_seq).select(&per_seq, 0.0).log_sigmoid().sum()
        + x.softmax_per_seq().square().sum()
        + x.max() * y.mean();
    let roots = [vec![loss.clone()], grad(&loss, &[&leaf]).unwrap(), vec![per_seq]].concat();
    let bits = |threads| -> Vec<Vec<u32>> {
        let tensors = evaluate(&roots, Executor::Fused { threads });
        tensors
            .iter()
            .map(|t| {
                t.flatten_all()
                    .unwrap()
                    .to_vec1::<f32>()
                    .unwrap()
                    .iter()
                    .map(|x| x.to_bits())
                    .collect()
            })
            .collect()
    };
    let one = bits(1);
    for threads in [2, 3, 4, 16, 1000] {
        assert_eq!(one, bits(threads), "{threads} threads");
    }
}
