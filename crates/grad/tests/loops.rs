//! Loops over sequences, which are rewritten as ops on the whole batch, against formulas.

use tinsmith_grad::{Device, Executor, Ragged, Var, with_executor};

const LENGTHS: &[usize] = &[2, 1, 3, 1, 4, 2, 1];

fn batch() -> (Var, Vec<Vec<f64>>) {
    let rows: usize = LENGTHS.iter().sum();
    let values: Vec<f64> = (0..rows).map(|i| (i as f64 * 1.7).sin()).collect();
    let mut rest = &values[..];
    let seqs = LENGTHS.iter().map(|&n| rest.split_off(..n).unwrap().to_vec()).collect();
    (Var::from_vec(values.clone(), &[rows], &Device::Cpu), seqs)
}

fn on_both(test: impl Fn()) {
    for executor in [Executor::Fused { threads: 1 }, Executor::Reference] {
        with_executor(executor, &test);
    }
}

/// A learned temperature: one number in any shape, by which Σ tanh(t · Σx) is differentiated.
#[test]
fn one_shared_number_may_have_any_shape() {
    let (x, seqs) = batch();
    let sums: Vec<f64> = seqs.iter().map(|seq| seq.iter().sum()).collect();
    let t = 0.7f64;
    let loss: f64 = sums.iter().map(|s| (s * t).tanh()).sum();
    let slope = |s: f64| 1.0 - (s * t).tanh().powi(2);
    let by_t: f64 = sums.iter().map(|&s| s * slope(s)).sum();
    let by_x: Vec<f64> =
        seqs.iter().zip(&sums).flat_map(|(seq, &s)| vec![t * slope(s); seq.len()]).collect();
    on_both(|| {
        for count in 1..=LENGTHS.len() {
            for shape in [&[][..], &[1], &[1, 1], &[1, 1, 1], &[1, 1, 1, 1]] {
                let leaf = Var::from_vec(vec![t], shape, &Device::Cpu);
                let first = x.narrow(0, 0, LENGTHS[..count].iter().sum());
                let mut total = Var::scalar(0.0);
                for seq in Ragged::new(first, &LENGTHS[..count]).seqs() {
                    total = total + (seq.sum() * &leaf).tanh().sum();
                }
                let found = total.backward(&[&leaf, &x]).unwrap();
                assert_eq!(found[0].dims(), shape);
                if count < LENGTHS.len() {
                    continue;
                }
                assert!((found.value() - loss).abs() < 1e-13, "{shape:?}");
                assert!(
                    (found[0].sum_all().unwrap().to_scalar::<f64>().unwrap() - by_t).abs() < 1e-13
                );
                let found = found[1].to_vec1::<f64>().unwrap();
                assert!(found.iter().zip(&by_x).all(|(a, b)| (a - b).abs() < 1e-13), "{shape:?}");
            }
        }
    });
}

/// Each op of two or three numbers, with the shared one on either side, its results of rank 2 added
/// up as such.
#[test]
fn numbers_of_higher_rank_are_added_up() {
    let (x, seqs) = batch();
    let t = 0.7f64;
    let sums: Vec<f64> = seqs.iter().map(|seq| seq.iter().sum()).collect();
    type Case = (fn(&Var, &Var) -> Var, fn(f64, f64) -> f64);
    let cases: [Case; 6] = [
        (|s, t| s + t, |s, t| s + t),
        (|s, t| t - s, |s, t| t - s),
        (|s, t| t / (s + 3.0), |s, t| t / (s + 3.0)),
        (|s, t| s.maximum(t), |s, t| s.max(t)),
        (|s, t| s.gt(t).select(s, t) * t, |s, t| s.max(t) * t),
        (|s, t| (s * t).exp() - t, |s, t| (s * t).exp() - t),
    ];
    on_both(|| {
        for (i, (of_vars, of_numbers)) in cases.iter().enumerate() {
            let leaf = Var::from_vec(vec![t], &[1, 1], &Device::Cpu);
            let parts = Ragged::new(x.clone(), LENGTHS)
                .seqs()
                .into_iter()
                .map(|seq| of_vars(&seq.sum(), &leaf));
            let total = parts.reduce(|a, b| a + b).unwrap();
            assert_eq!(total.shape(), [1, 1]);
            let expected: f64 = sums.iter().map(|&s| of_numbers(s, t)).sum();
            assert!((total.item().unwrap() - expected).abs() < 1e-12, "case {i}");
            let h = 1e-6;
            let quotient: f64 = sums
                .iter()
                .map(|&s| (of_numbers(s, t + h) - of_numbers(s, t - h)) / (2.0 * h))
                .sum();
            let slope = total.sum().backward(&[&leaf]).unwrap()[0]
                .flatten_all()
                .unwrap()
                .to_vec1::<f64>()
                .unwrap();
            assert!((slope[0] - quotient).abs() < 1e-8, "case {i}: {slope:?} {quotient}");
        }
    });
}
