use candle_core::{Device, Tensor};
use proptest::prelude::*;

use super::autobatch;
use crate::graph::table::unary_ops;
use crate::graph::walk::Graph;
use crate::{Ragged, Var, exec, grad};

/// What the rewriting makes of `root`, if anything.
fn rewritten(root: &Var) -> Option<Var> {
    let graph = Graph::reaching([root]);
    let at = graph.position(root)?;
    autobatch(&graph, &[at], &[])?.pop()
}

fn size(root: &Var) -> usize {
    Graph::reaching([root]).len()
}

fn value_as_recorded(root: &Var) -> Vec<f64> {
    let values = exec::run(&Graph::reaching([root]), &[root]).unwrap();
    flat(&values[0])
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Numbers between -1 and 1.
fn numbers(seed: usize, n: usize) -> Vec<f64> {
    (0..n).map(|i| ((seed * 7919 + i * 104_729) as f64 * 0.618).sin()).collect()
}

fn batch(seed: usize, lengths: &[usize]) -> Ragged {
    let rows = lengths.iter().sum();
    let values = Var::from_vec(numbers(seed, rows), &[rows], &Device::Cpu);
    Ragged::new(values, lengths)
}

/// PPO as the trainers' documentation writes it.
fn loop_of_ppo(lp: &Ragged, old: &Ragged, advantages: &[f64]) -> Var {
    let mut total = Var::scalar(0.0);
    for ((lp, old), &advantage) in lp.seqs().iter().zip(old.seqs()).zip(advantages) {
        let ratio = (lp - &old).exp();
        let clipped = ratio.clamp(0.8, 1.2) * advantage;
        total = total - (ratio * advantage).minimum(clipped).mean();
    }
    total
}

#[test]
fn a_loop_becomes_as_small_as_its_body() {
    let sizes = [50, 500].map(|n| {
        let lengths: Vec<usize> = (0..n).map(|i| i % 7 + 1).collect();
        let (lp, old) = (batch(1, &lengths), batch(2, &lengths));
        let loss = loop_of_ppo(&lp, &old, &numbers(3, n));
        assert!(size(&loss) > 10 * n);
        size(&rewritten(&loss).expect("a loop"))
    });
    assert_eq!(sizes[0], sizes[1]);
    assert!(sizes[0] < 25, "{sizes:?}");
}

#[test]
fn a_loop_has_the_value_and_gradient_of_the_batch() {
    let lengths = [3, 1, 0, 5, 2];
    let (x, w) = (batch(1, &lengths), batch(2, &lengths));
    let mut total = Var::scalar(1.5);
    for (x, w) in x.seqs().iter().zip(w.seqs()) {
        total = total + (x.exp() * w).sum();
    }
    let (xs, ws) = (flat(&x.values().tensor().unwrap()), flat(&w.values().tensor().unwrap()));
    let gradient: Vec<f64> = xs.iter().zip(&ws).map(|(x, w)| x.exp() * w).collect();
    let found = total.backward(&[x.values()]).unwrap();
    assert!((found.value() - 1.5 - gradient.iter().sum::<f64>()).abs() < 1e-12);
    flat(&found[0]).iter().zip(&gradient).for_each(|(a, b)| assert!((a - b).abs() < 1e-14));
}

/// A constant for each sequence that happens to be 1 for some, a number used twice, a loop that
/// runs backwards.
#[test]
fn members_may_come_in_any_order_and_with_any_constants() {
    let lengths = [2, 3, 2, 4, 1, 6];
    let x = batch(1, &lengths);
    let mut total = Var::scalar(0.0);
    for (i, x) in x.seqs().iter().enumerate().rev() {
        let scale = if i % 2 == 0 { 1.0 } else { 0.25 * i as f64 };
        let mean = (x * scale).mean();
        total = total + (x - &mean).square().sum() + &mean * 2.0;
    }
    let small = rewritten(&total).expect("a loop");
    assert!(size(&small) < 25, "{}", size(&small));
    let (a, b) = (value_as_recorded(&total), value_as_recorded(&small));
    assert!((a[0] - b[0]).abs() < 1e-12);
}

type Parametrized = (&'static str, fn(&Var, usize) -> Var);

macro_rules! with_parameters {
    ($($(#[$doc:meta])* $Op:ident = $method:ident($x:ident $(, $($p:ident),+)?) $columns:tt)*) => {
        /// Every op with parameters, called with parameters that grow with the sequence and from
        /// one to the next.
        fn with_parameters() -> Vec<Parametrized> {
            let mut all: Vec<Parametrized> = Vec::new();
            $(with_parameters!(@push all $method $($($p)+)?);)*
            all
        }
    };
    (@push $all:ident $method:ident) => {};
    (@push $all:ident $method:ident $($p:ident)+) => {
        $all.push((stringify!($method), |x, seq| {
            let mut next = 0.2 * seq as f64 - 1.7;
            $(let $p = { next += 1.0; next };)+
            x.$method($($p),+)
        }));
    };
}
unary_ops!(with_parameters);

/// A loop in which each sequence has its own parameter has the value and the gradient of as many
/// separate graphs.
#[test]
fn parameters_of_sequences_are_not_confused() {
    let others: [Parametrized; 8] = [
        ("narrow", |x, seq| x.narrow(0, seq % 3, 2)),
        ("pad", |x, seq| x.pad(0, seq, 1).cumsum(0)),
        ("roll", |x, seq| x.roll(seq as isize, 0) * x),
        ("full", |x, seq| x * Var::full(seq as f64, &[4], x.dtype(), x.device())),
        ("sum_dims", |x, seq| x.reshape(&[2, 2]).sum_dims(&[seq as isize % 2])),
        ("permute", |x, seq| {
            let x = x.reshape(&[2, 2]);
            x.permute(&[[0, 1], [1, 0]][seq % 2]).cumsum(0)
        }),
        ("flip", |x, seq| x.reshape(&[2, 2]).flip(&[seq as isize % 2]).cumsum(0)),
        ("cumsum", |x, seq| x.reshape(&[2, 2]).cumsum(seq as isize % 2)),
    ];
    let sequences: Vec<Vec<f64>> = (0..8).map(|seq| numbers(seq, 4)).collect();
    for (name, f) in with_parameters().into_iter().chain(others) {
        let of_one = |x: &Var, seq| f(&x.square().clamp_min(0.01), seq).sin().sum();
        let batch = Ragged::from_vecs(&sequences, &Device::Cpu);
        let seqs = batch.seqs().into_iter().enumerate();
        let sum = seqs.map(|(seq, x)| of_one(&x, seq)).reduce(|a, b| a + b);
        let together = sum.unwrap().backward(&[batch.values()]).unwrap();

        let (mut value, mut slopes) = (0.0, Vec::new());
        for (seq, numbers) in sequences.iter().enumerate() {
            let x = Var::from_vec(numbers.clone(), &[4], &Device::Cpu);
            let apart = of_one(&x, seq).backward(&[&x]).unwrap();
            value += apart.value();
            slopes.extend(flat(&apart[0]));
        }
        assert!((together.value() - value).abs() < 1e-12, "{name}");
        let gaps = flat(&together[0]).into_iter().zip(slopes);
        let gap = gaps.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(gap < 1e-12, "{name}: {gap}");
    }
}

/// Pairs mix two sequences, so each pair's numbers are gathered from the batch's.
#[test]
fn pairs_of_sequences_are_batched() {
    let lengths: Vec<usize> = (0..40).map(|i| i % 5 + 1).collect();
    let x = batch(1, &lengths);
    let sums: Vec<Var> = x.seqs().iter().map(|x| x.sum()).collect();
    let pairs: Vec<Var> = sums.chunks(2).map(|pair| (&pair[0] - &pair[1]).log_sigmoid()).collect();
    let loss = Var::stack(&pairs, 0).mean();
    let small = rewritten(&loss).expect("a loop");
    assert!(size(&small) < 20, "{}", size(&small));

    let (packed, mut expected, mut at) = (flat(&x.values().tensor().unwrap()), Vec::new(), 0);
    for &length in &lengths {
        expected.push(packed[at..at + length].iter().sum::<f64>());
        at += length;
    }
    let log_sigmoid = |z: f64| -(-z).exp().ln_1p();
    let mean = expected.chunks(2).map(|pair| log_sigmoid(pair[0] - pair[1])).sum::<f64>() / 20.0;
    assert!((loss.item().unwrap() - mean).abs() < 1e-12);
}

#[test]
fn sequences_joined_again_are_the_batch_itself() {
    let x = batch(1, &[3, 1, 4, 2, 2]);
    let joined = Var::cat(&x.seqs().iter().map(|x| x.exp()).collect::<Vec<_>>(), 0);
    let small = rewritten(&joined.sum()).expect("a loop");
    assert_eq!(size(&small), 3);

    let whole = rewritten(&Var::cat(&x.seqs(), 0).exp()).expect("a loop");
    assert_eq!(size(&whole), 2);
}

#[test]
fn what_is_not_a_loop_is_left_alone() {
    let x = batch(1, &[3, 1, 4, 2]);
    let seqs = x.seqs();
    // Three of four sequences, and then each in its own way.
    assert!(rewritten(&(seqs[0].sum() + seqs[1].sum() + seqs[3].sum())).is_none());
    let each = [seqs[0].exp(), seqs[1].sin(), seqs[2].cos(), seqs[3].square()];
    assert!(rewritten(&each.iter().map(Var::sum).reduce(|a, b| a + b).unwrap()).is_none());
}

/// The leaf may be one of the narrowed rows.
#[test]
fn gradients_of_single_sequences_are_found() {
    let x = batch(1, &[2, 3, 1, 2, 2]);
    let seqs = x.seqs();
    let loss = seqs.iter().map(|x| x.square().sum()).reduce(|a, b| a + b).unwrap();
    let found = loss.backward(&[&seqs[1], x.values()]).unwrap();
    let doubled: Vec<f64> = flat(&x.values().tensor().unwrap()).iter().map(|x| 2.0 * x).collect();
    assert_eq!(flat(&found[0]), doubled[2..5]);
    assert_eq!(flat(&found[1]), doubled);
}

#[test]
fn rows_of_vectors_are_batched() {
    let lengths = [2, 1, 3, 2];
    let values = Var::from_vec(numbers(4, 8 * 3), &[8, 3], &Device::Cpu);
    let scale = Var::from_vec(vec![0.5, -1.0, 2.0], &[3], &Device::Cpu);
    let x = Ragged::new(values.clone(), &lengths);
    let mut total = Var::scalar(0.0);
    for x in x.seqs() {
        let centred = &x - x.max_keepdim(&[1]);
        total = total + (centred.exp() * &scale).sum() + x.sum_dims(&[-1]).square().mean();
    }
    let small = rewritten(&total).expect("a loop");
    assert!(size(&small) < 25, "{}", size(&small));
    let (a, b) = (value_as_recorded(&total), value_as_recorded(&small));
    assert!((a[0] - b[0]).abs() < 1e-12);
}

/// One step of a loop's body. Values of the body so far are chosen by position.
#[derive(Clone, Debug)]
struct Step {
    op: usize,
    operands: [usize; 2],
    /// Sequences for which this step is another one: the loop then is none.
    exception: Option<usize>,
}

fn step() -> impl Strategy<Value = Step> {
    let exception = prop_oneof![9 => Just(None), 1 => (0usize..8).prop_map(Some)];
    (0usize..14, any::<[usize; 2]>(), exception).prop_map(|(op, operands, exception)| Step {
        op,
        operands,
        exception,
    })
}

fn body(steps: &[Step], seq: usize, leaves: Vec<Var>, constant: f64) -> Var {
    let mut rows = leaves;
    let mut numbers = vec![Var::scalar(constant) + rows[0].sum() * 0.1];
    for step in steps {
        let [a, b] = step.operands;
        let (x, y) = (&rows[a % rows.len()], &rows[b % rows.len()]);
        let (n, m) = (&numbers[a % numbers.len()], &numbers[b % numbers.len()]);
        let op = step.op + usize::from(step.exception == Some(seq));
        match op {
            0 => rows.push(x + y),
            1 => rows.push(x * y),
            2 => rows.push(x.tanh()),
            3 => rows.push(x * constant),
            4 => rows.push(x.minimum(n)),
            5 => rows.push((x - n).sin()),
            6 => rows.push(x.gt(y).select(x, n)),
            7 => rows.push(x.clamp(-0.5, 0.75)),
            8 => numbers.push(x.sum().tanh()),
            9 => numbers.push(x.max_keepdim(&[0]).reshape(&[])),
            10 => numbers.push(n * m),
            11 => numbers.push((n - constant).cos()),
            12 => numbers.push((x * y).mean()),
            13 => rows.push(n.broadcast_to(x.shape()) + x),
            _ => rows.push(x.detach() * y),
        }
    }
    rows[rows.len() - 1].sum() * 0.1 - &numbers[numbers.len() - 1]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Loss, and gradients of both leaves, as recorded and as rewritten.
    #[test]
    fn rewriting_changes_no_value(
        lengths in prop::collection::vec(1usize..5, 4..8),
        steps in prop::collection::vec(step(), 1..10),
    ) {
        let (x, y) = (batch(1, &lengths), batch(2, &lengths));
        let constants = numbers(5, lengths.len());
        let mut total = Var::scalar(0.0);
        for (seq, (a, b)) in x.seqs().into_iter().zip(y.seqs()).enumerate() {
            total = total + body(&steps, seq, vec![a, b], constants[seq]);
        }
        let wrt = [x.values(), y.values()];
        let total = total + x.values().sum() - y.values().sum();
        let recorded = grad(&total, &wrt).unwrap();
        let recorded = [&total].into_iter().chain(&recorded).flat_map(value_as_recorded);
        let found = total.backward(&wrt).unwrap();
        let found = [found.root()].into_iter().chain(found.as_slice()).flat_map(flat);
        for (at, (a, b)) in recorded.zip(found).enumerate() {
            prop_assert!((a - b).abs() <= 1e-11 * (1.0 + a.abs()), "{at}: {a} and {b}");
        }
    }
}
