//! Reductions by sequence take memory in proportion to the data, and sums of any kind are
//! accumulated in f64.

use tinsmith_grad::{Device, Error, Executor, Ragged, Var, check_finite, grad, with_executor};

fn on_both(test: impl Fn()) {
    for executor in [Executor::Fused { threads: 1 }, Executor::Reference] {
        with_executor(executor, &test);
    }
}

/// A rectangle of [sequences, longest] numbers would take 6 GB, and one of indices as much.
#[test]
fn one_long_sequence_among_many_short_ones_is_no_rectangle() {
    const SHORT: usize = 20_000;
    let lengths: Vec<usize> = (0..SHORT).map(|i| i % 2).chain([SHORT, 0]).collect();
    let rows: usize = lengths.iter().sum();
    let value = |i: usize| ((i * 37) % 101) as f32 - 50.0;
    let data: Vec<f32> = (0..2 * rows).map(value).collect();
    let leaf = Var::from_vec(data.clone(), &[rows, 2], &Device::Cpu);
    let mut row = 0;
    let mut expected: [Vec<f32>; 3] = Default::default();
    for &length in &lengths {
        for column in 0..2 {
            let numbers = (row..row + length).map(|r| data[2 * r + column]);
            expected[0].push(numbers.clone().sum());
            expected[1].push(numbers.clone().fold(f32::NEG_INFINITY, f32::max));
            expected[2].push(numbers.fold(f32::INFINITY, f32::min));
        }
        row += length;
    }
    on_both(|| {
        let x = Ragged::new(leaf.clone(), &lengths);
        let found = [x.sum_per_seq(), x.max_per_seq(), x.min_per_seq()];
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.shape(), [lengths.len(), 2]);
            assert_eq!(found.to_vec::<f32>().unwrap(), *expected);
        }
        let slope = grad(&x.sum_per_seq().sum(), &[&leaf]).unwrap();
        assert_eq!(slope[0].to_vec::<f32>().unwrap(), vec![1.0; 2 * rows]);
    });
}

/// Diagnosis evaluates op by op, also for what the fused executor had reduced.
#[test]
fn diagnosis_takes_no_more_memory_than_evaluation() {
    const N: usize = 40_000;
    let mut data = vec![1f32; 2 * N];
    data[N + 3] = 0.0;
    let lengths: Vec<usize> = std::iter::repeat_n(1, N).chain([N]).collect();
    let x = Ragged::new(Var::from_vec(data, &[2 * N], &Device::Cpu), &lengths);
    match check_finite(&[&(x.sum_per_seq().sum() + x.log().max_per_seq().sum())]) {
        Err(Error::NonFinite { op: "log", seq: Some(N), row: Some(3), .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_segment_without_rows_is_the_neutral_element() {
    let x = Var::from_vec(vec![1f64, f64::NAN, 3.0], &[3], &Device::Cpu);
    on_both(|| {
        for rank in 1..3 {
            let x = x.reshape(&[vec![3], vec![1; rank - 1]].concat());
            let x = Ragged::new(x, &[0, 1, 2, 0]);
            let bits = |v: Var| {
                v.to_vec::<f64>().unwrap().iter().map(|x| x.to_string()).collect::<Vec<_>>()
            };
            assert_eq!(bits(x.sum_per_seq()), ["0", "1", "NaN", "0"]);
            assert_eq!(bits(x.max_per_seq()), ["-inf", "1", "NaN", "-inf"]);
            assert_eq!(bits(x.min_per_seq()), ["inf", "1", "NaN", "inf"]);
        }
        let none = Ragged::new(Var::from_vec(Vec::<f64>::new(), &[0, 2], &Device::Cpu), &[0, 0]);
        assert_eq!(none.sum_per_seq().to_vec::<f64>().unwrap(), [0.0; 4]);
        assert_eq!(none.max_per_seq().to_vec::<f64>().unwrap(), [f64::NEG_INFINITY; 4]);
    });
}

/// A million times 0.1 in f32: added one after another it would be 100,958.
#[test]
fn sums_by_index_are_as_wide_as_reductions() {
    const N: usize = 1_000_000;
    let parts = Var::from_vec(vec![0.1f32; N], &[N], &Device::Cpu);
    let index = Var::from_vec(vec![0i64; N], &[N], &Device::Cpu);
    let one = Var::from_vec(vec![0f32], &[1], &Device::Cpu);
    let weights = parts.clone();
    on_both(|| {
        let batch = Ragged::new(one.clone(), &[1]);
        let repeated = batch.select(&vec![0; N]);
        let sums = [
            one.index_add(&index, &parts, 0),
            one.scatter_add(&index, &parts, 0),
            parts.cumsum(0).narrow(0, N - 1, 1),
            grad(&(one.index_select(&index, 0) * &weights).sum(), &[&one]).unwrap().remove(0),
            grad(&(one.gather(&index, 0) * &weights).sum(), &[&one]).unwrap().remove(0),
            grad(&(repeated.values() * &weights).sum(), &[&one]).unwrap().remove(0),
        ];
        for (i, sum) in sums.iter().enumerate() {
            let sum = sum.to_vec::<f32>().unwrap()[0];
            assert!((sum - 100_000.0).abs() < 0.1, "case {i}: {sum}");
        }
    });
}
