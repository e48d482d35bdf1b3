//! Schedules are kept by structure: a graph like an earlier one must give its own values, and one
//! that differs in anything that an evaluation depends on must not be taken for it.

mod support;

use proptest::prelude::*;
use support::{all_steps, numbers, programs};
use tinsmith_grad::{Backward, DType, Device, Executor, Ragged, Tensor, Var, eval, with_executor};

fn values(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
    flat.to_vec1().unwrap()
}

/// The loss of `record`, half of it and its gradients, by the executor.
fn step(record: &dyn Fn(&[Var]) -> Var, leaves: &[Var], executor: Executor) -> Vec<Vec<f64>> {
    with_executor(executor, || {
        let loss = record(leaves);
        let half = &loss * 0.5;
        let wrt: Vec<&Var> = leaves.iter().collect();
        let found = Backward::new(&loss).aux(&[&half]).allow_unused().run(&wrt).unwrap();
        let evaluated = eval(&[&half, &loss]).unwrap();
        let tensors = found.aux().iter().chain(found.as_slice()).chain(&evaluated);
        tensors.map(values).collect()
    })
}

fn agree(record: &dyn Fn(&[Var]) -> Var, leaves: &[Var]) -> Result<(), TestCaseError> {
    let fused = step(record, leaves, Executor::Fused { threads: 1 });
    let reference = step(record, leaves, Executor::Reference);
    for (fused, reference) in fused.iter().zip(&reference) {
        prop_assert_eq!(fused.len(), reference.len());
        let scale =
            reference.iter().filter(|x| x.is_finite()).fold(1.0, |m: f64, x| m.max(x.abs()));
        for (x, y) in fused.iter().zip(reference) {
            let same = x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= 1e-11 * scale;
            prop_assert!(same, "fused {:?}, reference {:?}", fused, reference);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two programs in turn, each on other values every time, so that nearly all but the first
    /// rounds find a kept schedule.
    #[test]
    fn random_graphs_give_their_own_values(programs in [programs(), programs()]) {
        for round in 0..5 {
            for program in &programs {
                let mut other = program.clone();
                other.seed = program.seed ^ (round << 32);
                let program = other.decided(&all_steps());
                agree(&|leaves| program.record(leaves, &all_steps()), &other.leaves())?;
            }
        }
    }

    /// A ragged loss and the same in a loop, with other lengths, numbers and parameters in turn.
    #[test]
    fn lengths_and_parameters_tell_structures_apart(
        lengths in prop::collection::vec(prop::collection::vec(0usize..5, 4..6), 3),
        numbers_ in prop::collection::vec(-2.0f64..2.0, 3),
        order in prop::collection::vec((0usize..3, 0usize..3, 0usize..3, any::<bool>()), 24),
    ) {
        for (seed, &(of_lengths, number, bound, is_loop)) in order.iter().enumerate() {
            let (lengths, number) = (&lengths[of_lengths], numbers_[number]);
            let total = lengths.iter().sum();
            let leaf = |seed| Var::from_vec(numbers(seed, total), &[total], &Device::Cpu);
            let high = [0.5, 1.0, 1.5][bound];
            let record = |leaves: &[Var]| {
                let (x, y) = (Ragged::new(leaves[0].clone(), lengths), Ragged::new(leaves[1].clone(), lengths));
                if !is_loop {
                    let ratio = (&x - &y).exp().clamp(0.5, high);
                    return (ratio * number).sum_per_seq().square().sum() + x.max_per_seq().clamp_min(-3.0).sum();
                }
                let pairs = x.seqs().into_iter().zip(y.seqs()).enumerate();
                pairs.fold(Var::scalar(0.0), |sum, (i, (x, y))| {
                    sum + ((x - y).exp().clamp(0.5, high) * (number + i as f64)).sum().square()
                })
            };
            agree(&record, &[leaf(seed as u64), leaf(seed as u64 + 99)])?;
        }
    }
}

/// What a leaf is, a transposed tensor or one of another dtype, is no part of a structure's values.
#[test]
fn leaves_of_any_layout_take_part_as_they_are() {
    let tensor = |slope: f64| {
        let values: Vec<f64> = (0..6).map(|i| f64::from(i) * slope).collect();
        Tensor::from_vec(values, (2, 3), &Device::Cpu).unwrap()
    };
    for round in 1..6 {
        let plain = tensor(f64::from(round));
        let transposed = tensor(f64::from(round)).reshape((3, 2)).unwrap().t().unwrap();
        for leaf in [plain, transposed] {
            let want: Vec<f64> = values(&leaf).iter().map(|x| x * x).collect();
            let x = Var::new(leaf);
            assert_eq!(x.square().reshape(&[6]).to_vec::<f64>().unwrap(), want);
        }
    }
}

/// An unused leaf is an error however often the same graph was evaluated with zeros allowed.
#[test]
fn a_kept_schedule_allows_what_its_request_allowed() {
    let leaf = |x: f64| Var::from_vec(vec![x], &[1], &Device::Cpu);
    for round in 0..4 {
        let (x, y) = (leaf(f64::from(round)), leaf(2.0));
        let loss = (x.square() + y.detach()).sum();
        let zeros = Backward::new(&loss).allow_unused().run(&[&x, &y]).unwrap();
        assert_eq!(values(&zeros[1]), [0.0]);
        assert_eq!(values(&zeros[0]), [2.0 * f64::from(round)]);
        assert!(loss.backward(&[&x, &y]).is_err());
        assert!(loss.backward(&[&y]).is_err());
    }
}

/// Errors name the line of the graph at hand, not of an earlier one of its structure.
#[test]
fn errors_name_their_own_line() {
    let index = |at: i64| Var::from_vec(vec![at], &[1], &Device::Cpu);
    let x = Var::from_vec(vec![1.0, 2.0], &[2], &Device::Cpu);
    for _ in 0..4 {
        assert_eq!(x.index_select(&index(1), 0).item().unwrap(), 2.0);
    }
    let line = line!() + 1;
    let error = x.index_select(&index(5), 0).item().unwrap_err();
    assert!(error.to_string().contains(&format!("{}:{line}:", file!())), "{error}");
}
