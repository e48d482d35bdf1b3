//! Rows of ragged batches meet rows, whatever the shape of each.

use proptest::prelude::*;
use tinsmith_grad::{DType, Device, Error, Ragged, Var};

const LENGTHS: &[usize] = &[2, 0, 1];
const ROWS: usize = 3;

/// As many columns as rows, so that they can be mistaken for one another.
const TRAILING: &[&[usize]] = &[&[], &[1], &[ROWS], &[1, ROWS], &[ROWS, ROWS]];

fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let number = |i: usize| ((seed % 1000) as f64 * 0.7 + i as f64 * 2.9).sin();
    (0..count).map(number).collect()
}

fn batch(seed: u64, trailing: &[usize]) -> Ragged {
    let shape = [&[ROWS], trailing].concat();
    let values = numbers(seed, shape.iter().product());
    Ragged::new(Var::from_vec(values, &shape, &Device::Cpu), LENGTHS)
}

/// What `f` makes of each pair of rows on their own.
fn row_by_row(operands: &[&Ragged], f: impl Fn(&[Var]) -> Var) -> Vec<f64> {
    (0..ROWS)
        .flat_map(|row| {
            let rows: Vec<Var> =
                operands.iter().map(|x| x.values().narrow(0, row, 1).squeeze(0)).collect();
            f(&rows).to_dtype(DType::F64).to_vec::<f64>().unwrap()
        })
        .collect()
}

type Method = (fn(&Ragged, &Ragged) -> Ragged, fn(&Var, &Var) -> Var);

const METHODS: &[Method] = &[
    (|a, b| a + b, |a, b| a + b),
    (|a, b| a - b, |a, b| a - b),
    (|a, b| a * b, |a, b| a * b),
    (|a, b| a / b, |a, b| a / b),
    (|a, b| a.maximum(b), |a, b| a.maximum(b)),
    (|a, b| a.minimum(b), |a, b| a.minimum(b)),
    (|a, b| a.square().pow(b), |a, b| a.square().pow(b)),
    (|a, b| a.eq(b), |a, b| a.eq(b)),
    (|a, b| a.ne(b), |a, b| a.ne(b)),
    (|a, b| a.lt(b), |a, b| a.lt(b)),
    (|a, b| a.le(b), |a, b| a.le(b)),
    (|a, b| a.gt(b), |a, b| a.gt(b)),
    (|a, b| a.ge(b), |a, b| a.ge(b)),
];

fn combine(a: &[usize], b: &[usize]) -> bool {
    a.len() == b.len() || a.is_empty() || b.is_empty()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_row_meets_the_same_row_only(
        seed in any::<u64>(),
        method in prop::sample::select(METHODS),
        shapes in prop::collection::vec(prop::sample::select(TRAILING), 3),
    ) {
        let [a, b, c] = [0, 1, 2].map(|i| batch(seed ^ i as u64, shapes[i]));
        let (of_batches, of_rows) = method;
        let found = of_batches(&a, &b);
        if combine(shapes[0], shapes[1]) {
            let expected = row_by_row(&[&a, &b], |x| of_rows(&x[0], &x[1]));
            let found = found.values().to_dtype(DType::F64).to_vec::<f64>().unwrap();
            prop_assert_eq!(found, expected);
        } else {
            let error = found.values().error();
            prop_assert!(matches!(error, Some(Error::Shape { shapes, .. }) if shapes[0] == a.values().shape()), "{:?}", error);
        }
        let chosen = a.gt(0.0).where_(&b, &c);
        if [(0, 1), (1, 2), (0, 2)].iter().all(|&(i, j)| combine(shapes[i], shapes[j])) {
            let expected = row_by_row(&[&a, &b, &c], |x| x[0].gt(0.0).select(&x[1], &x[2]));
            prop_assert_eq!(chosen.values().to_vec::<f64>().unwrap(), expected);
        } else {
            let error = chosen.values().error();
            prop_assert!(matches!(error, Some(Error::Shape { op: "where_", .. })), "{:?}", error);
        }
    }
}

/// Advantages as a column: one row each all the same, and what becomes of a sequence stays its own.
#[test]
fn a_column_of_numbers_is_expanded_to_columns() {
    let x = batch(1, &[]);
    let advantages = Var::from_vec(vec![1f64, 5.0, 2.0], &[3, 1], &Device::Cpu);
    let weighted = &x * x.expand(&advantages);
    assert_eq!(weighted.values().shape(), [ROWS, 1]);
    let rows = x.values().to_vec::<f64>().unwrap();
    assert_eq!(weighted.values().to_vec::<f64>().unwrap(), [rows[0], rows[1], 2.0 * rows[2]]);
    assert_eq!(x.dot_per_seq(&batch(2, &[1])).shape(), [3, 1]);
}

/// Every method of a batch that was refused passes the error on, however long the sequences are
/// said to be.
#[test]
fn a_batch_that_was_refused_stays_refused() {
    let refused =
        |lengths: &[usize]| Ragged::new(Var::ones(&[3], DType::F64, &Device::Cpu), lengths);
    for bad in [refused(&[usize::MAX, 2]), refused(&[2, 2])] {
        let words = bad.values().error().unwrap().to_string();
        let numbers = Var::ones(&[2], DType::F64, &Device::Cpu);
        let others = [
            bad.select(&[0]),
            bad.select(&[1, 0]),
            bad.truncate_to(&[1, 2]),
            bad.truncate_to(&[usize::MAX, 2]),
            bad.expand(&numbers),
            bad.map(|_| numbers.clone()),
            &bad + 1.0,
            2.0 * &bad,
            -&bad,
            bad.exp(),
            bad.gt(0.5),
            bad.detach(),
            &bad * &bad,
            bad.where_(1.0, 0.0),
            batch(1, &[]) + &bad,
            bad.softmax_per_seq(),
            bad.log_softmax_per_seq(),
            Ragged::from_seqs(&bad.seqs()),
        ];
        let mut vars: Vec<Var> = others.iter().map(|x| x.values().clone()).collect();
        vars.extend([
            bad.counts(),
            bad.sum_per_seq(),
            bad.mean_per_seq(),
            bad.max_per_seq(),
            bad.min_per_seq(),
            bad.logsumexp_per_seq(),
            bad.dot_per_seq(&bad),
            bad.sum(),
            bad.mean(),
            bad.max(),
            bad.min(),
        ]);
        vars.extend(bad.seqs());
        for (i, var) in vars.iter().enumerate() {
            assert_eq!(var.error().map(ToString::to_string).as_deref(), Some(&*words), "case {i}");
        }
    }
}
