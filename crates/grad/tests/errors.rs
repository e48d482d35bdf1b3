//! Errors ride in the graph, and come out with the op and the line that recorded it.

use std::sync::Arc;

use tinsmith_grad::{
    Backward, CustomOp, DType, Device, Error, Ragged, Tensor, Var, check_finite, grad, located,
};

fn vector(data: &[f64]) -> Var {
    Var::from_vec(data.to_vec(), &[data.len()], &Device::Cpu)
}

fn line_of(error: &Error) -> u32 {
    match error {
        Error::Shape { at, .. }
        | Error::DType { at, .. }
        | Error::Argument { at, .. }
        | Error::SequenceLength { at, .. }
        | Error::Index { at, .. }
        | Error::NotScalar { at, .. }
        | Error::Unused { at, .. }
        | Error::NonFinite { at, .. } => at.line(),
        other => panic!("no line in {other}"),
    }
}

#[test]
fn the_first_error_is_the_one_reported() {
    let (x, y) = (vector(&[1.0, 2.0]), vector(&[1.0, 2.0, 3.0]));
    let line = line!() + 1;
    let first = &x + &y;
    let later = (first.exp() * &y.reshape(&[7])).sum();
    let error = later.backward(&[&x]).unwrap_err();
    assert!(
        matches!(&error, Error::Shape { op: "add", shapes, .. } if *shapes == [vec![2], vec![3]]),
        "{error}"
    );
    assert_eq!(line_of(&error), line);
}

#[test]
fn composites_are_attributed_to_the_line_that_calls_them() {
    let x = vector(&[1.0, 2.0]);
    let line = line!() + 1;
    let error = x.softmax(3).item().unwrap_err();
    assert_eq!(line_of(&error), line);
    assert!(error.to_string().contains("dimension 3 is out of range for rank 1"), "{error}");
}

#[test]
fn a_vector_root_says_which_reduction_to_add() {
    let x = vector(&[1.0, 2.0]);
    let root = x.exp();
    let error = root.backward(&[&x]).unwrap_err();
    assert!(matches!(&error, Error::NotScalar { op: "exp", shape, .. } if *shape == [2]));
    assert!(error.to_string().contains(".sum() or .mean()"), "{error}");

    let seeded = Backward::new(&root).seed(&vector(&[1.0, 10.0])).run(&[&x]).unwrap();
    let expected = [1f64.exp(), 10.0 * 2f64.exp()];
    assert_eq!(seeded[0].to_vec1::<f64>().unwrap(), expected);

    let misfit = Backward::new(&root).seed(&vector(&[1.0])).run(&[&x]).unwrap_err();
    assert!(matches!(misfit, Error::Shape { op: "backward", .. }));
}

#[test]
fn a_leaf_without_a_path_is_never_a_silent_zero() {
    let (x, y) = (vector(&[1.0]), vector(&[2.0, 3.0]).label("reference"));
    for loss in
        [x.sum(), x.sum() + y.detach().sum(), x.sum() + y.gt(0.0).to_dtype(DType::F64).sum()]
    {
        match loss.backward(&[&x, &y]).unwrap_err() {
            Error::Unused { index: 1, label: Some(label), .. } => assert_eq!(label, "reference"),
            other => panic!("{other}"),
        }
        let zeros = Backward::new(&loss).allow_unused().run(&[&x, &y]).unwrap();
        assert_eq!(zeros[1].to_vec1::<f64>().unwrap(), [0.0, 0.0]);
    }
    // A gradient that is 0 is not a gradient that is missing.
    assert_eq!(
        (y.sign().sum() + x.sum()).backward(&[&y]).unwrap()[0].to_vec1::<f64>().unwrap(),
        [0.0, 0.0]
    );
}

#[test]
fn ragged_lengths_are_checked_by_sequence() {
    let x = Ragged::from_vecs(&[vec![1f64, 2.0], vec![3.0]], &Device::Cpu);
    let y = Ragged::from_vecs(&[vec![1f64], vec![2.0, 3.0]], &Device::Cpu);
    let line = line!() + 1;
    let error = (&x * &y).sum().item().unwrap_err();
    assert!(
        matches!(error, Error::SequenceLength { op: "mul", seq: 0, left: 2, right: 1, .. }),
        "{error}"
    );
    assert_eq!(line_of(&error), line);

    let aligned = x.truncate_to(&[1, 1]) * y.truncate_to(&[1, 1]);
    assert_eq!(aligned.sum().item().unwrap(), 1.0 + 6.0);
    assert!(
        x.truncate_to(&[3, 1])
            .sum()
            .item()
            .unwrap_err()
            .to_string()
            .contains("sequence 0 has 2 rows")
    );
    assert!(x.select(&[2]).sum().item().is_err());
    assert_eq!(x.select(&[1, 0, 1]).lengths(), [1, 2, 1]);
}

#[test]
fn an_index_out_of_range_is_an_error_on_evaluation() {
    let table = Var::zeros(&[3, 2], DType::F32, &Device::Cpu);
    for bad in [3i64, -1] {
        let index = Var::from_vec(vec![0, bad], &[2], &Device::Cpu);
        let error = table.index_select(&index, 0).sum().item().unwrap_err();
        assert!(
            matches!(error, Error::Index { op: "index_select", index, size: 3, .. } if index == bad),
            "{error}"
        );
    }
}

#[test]
fn the_first_non_finite_value_is_found_with_its_label_and_line() {
    let x = vector(&[2.0, 0.0]);
    let line = line!() + 1;
    let log = x.log().label("log-ratio");
    let loss = (log * 0.0).sum();
    for error in [
        check_finite(&[&loss]).unwrap_err(),
        Backward::new(&loss).check_finite().run(&[&x]).unwrap_err(),
    ] {
        assert_eq!(line_of(&error), line);
        let text = error.to_string();
        assert!(text.starts_with("log `log-ratio` gives -inf at index [1]"), "{text}");
    }
}

/// The place of the first value that is not finite, as a report of the loss and of its gradient
/// name it.
fn place_of(loss: &Var) -> (Option<usize>, Option<usize>) {
    match check_finite(&[loss]).unwrap_err() {
        Error::NonFinite { seq, row, .. } => (seq, row),
        other => panic!("{other}"),
    }
}

#[test]
fn a_non_finite_value_of_a_packed_batch_is_placed_in_its_sequence() {
    let x = Ragged::from_vecs(&[vec![1f64, 2.0], vec![], vec![3.0, 0.0, 4.0]], &Device::Cpu);
    let error = check_finite(&[&x.log().mean()]).unwrap_err().to_string();
    assert!(
        error.starts_with("log gives -inf at index [3], row 1 of sequence 2 (recorded at "),
        "{error}"
    );

    let old = x.detach().map(|v| v * 1.0);
    let placed = [
        (&x / &old).exp().sum(),
        old.log().gt(0.0).where_(&x, 0.0).sum(),
        x.map(|v| v.reshape(&[5, 1]).recip()).sum(),
        // A sequence on its own counts from the start of the batch that it was taken from.
        x.seqs()[2].log().sum(),
        Var::cat(&[x.seqs()[0].clone(), x.seqs()[2].log()], 0).exp().log().sum(),
        x.truncate_to(&[1, 0, 2]).log().sum(),
    ];
    for (i, loss) in placed.iter().enumerate() {
        assert_eq!(place_of(loss), (Some(2), Some(1)), "case {i}");
    }
    // In a batch of its own, a sequence has its own number.
    assert_eq!(place_of(&x.select(&[2, 0]).log().sum()), (Some(0), Some(1)));
}

#[test]
fn a_value_that_belongs_to_a_whole_sequence_names_that() {
    let x = Ragged::from_vecs(&[vec![1f64, 2.0], vec![], vec![-2.0, 0.5]], &Device::Cpu);
    let line = line!() + 1;
    let error = check_finite(&[&x.mean_per_seq().sum()]).unwrap_err();
    assert_eq!(line_of(&error), line);
    let text = error.to_string();
    assert!(text.starts_with("div gives NaN at index [1], of sequence 1 (recorded"), "{text}");
    assert_eq!(place_of(&x.sum_per_seq().log().sum()), (Some(1), None));
    assert_eq!(place_of(&x.seqs()[2].sum().log()), (Some(2), None));
}

#[test]
fn what_mixes_sequences_is_given_no_place() {
    let x = Ragged::from_vecs(&[vec![1f64, -1.0], vec![1.0, 2.0]], &Device::Cpu);
    let [a, b] = [&x.seqs()[0], &x.seqs()[1]];
    for loss in [(a - b).log().sum(), (x.sum() - 3.0).log(), (a.sum() - b.sum()).log()] {
        assert_eq!(place_of(&loss), (None, None));
    }
    let text = check_finite(&[&(a - b).log().sum()]).unwrap_err().to_string();
    assert!(text.starts_with("log gives -inf at index [0] (recorded"), "{text}");
}

#[test]
fn the_backward_places_its_values_too() {
    let leaf = vector(&[1.0, 4.0, 9.0, 0.0]);
    let x = Ragged::new(leaf.clone(), &[1, 3]);
    let line = line!() + 1;
    let loss = x.sqrt().mean();
    assert!(check_finite(&[&loss]).is_ok());
    let error = Backward::new(&loss).check_finite().run(&[&leaf]).unwrap_err();
    assert_eq!(line_of(&error), line);
    let text = error.to_string();
    assert!(
        text.starts_with("sqrt gives inf at index [3], row 2 of sequence 1 (recorded"),
        "{text}"
    );
    assert!(text.ends_with("in the derivative of that op"), "{text}");
}

#[test]
fn a_value_that_is_finite_until_differentiated_is_found_in_the_backward() {
    let x = vector(&[0.0, 1.0]);
    let line = line!() + 1;
    let loss = x.sqrt().sum();
    assert!(check_finite(&[&loss]).is_ok());
    let error = Backward::new(&loss).check_finite().run(&[&x]).unwrap_err();
    assert!(
        matches!(error, Error::NonFinite { backward: true, value: f64::INFINITY, .. }),
        "{error}"
    );
    assert_eq!(line_of(&error), line);
}

#[test]
fn bad_arguments_are_errors_not_panics() {
    let x = vector(&[1.0, 2.0, 3.0]);
    let refused = [
        x.narrow(0, 2, 2),
        x.narrow(0, usize::MAX, 2),
        x.permute(&[0, 0]),
        x.squeeze(0),
        x.unsqueeze(3),
        x.slice_step(0, 0, 3, 0),
        x.slice_step(0, 0, 9, 1).sum(),
        x.pad(0, usize::MAX, 1),
        x.roll(1, 1),
        x.sum_dims(&[0, 0]),
        x.broadcast_to(&[2, 2]),
        x.matmul(&vector(&[1.0])),
        x.matmul(&Var::zeros(&[2, 2], DType::F64, &Device::Cpu)),
        x.gather(&x, 0),
        x.to_dtype(DType::F32) + &x,
        x.select(&x, &x),
        Var::cat(&[], 0),
        Var::cat(&[x.clone(), Var::zeros(&[1, 1], DType::F64, &Device::Cpu)], 0),
        Var::zeros(&[0], DType::F64, &Device::Cpu).max(),
        Var::from_vec(vec![1f64], &[2], &Device::Cpu),
        Ragged::new(x.clone(), &[1, 1]).sum(),
        Ragged::new(x.clone(), &[usize::MAX, 4]).sum(),
        Ragged::from_seqs(&[]).sum(),
    ];
    for (i, var) in refused.iter().enumerate() {
        assert!(var.to_vec::<f64>().is_err(), "case {i}: {var:?}");
        assert!(grad(&var.sum(), &[&x]).is_err(), "case {i}: {var:?}");
    }
}

/// Each method made of others, refused: its name, and the shapes that it was given.
#[test]
fn composites_name_themselves_their_operands_and_the_callers_line() {
    let (v, m) = (vector(&[1.0, 2.0]), Var::ones(&[2, 3], DType::F64, &Device::Cpu));
    let mask = m.gt(0.0);
    let rows = Ragged::new(mask.clone(), &[1, 1]);
    let ragged = Ragged::new(v.clone(), &[1, 1]);
    let unequal = Ragged::new(v.clone(), &[2, 0]);
    type Case<'a> = (&'static str, &'a [&'a [usize]], Box<dyn Fn() -> Var + 'a>);
    let cases: Vec<Case> = vec![
        ("mean_dims", &[&[2, 3]], Box::new(|| m.mean_dims(&[2]))),
        ("mean_keepdim", &[&[2, 3]], Box::new(|| m.mean_keepdim(&[2]))),
        ("mean", &[&[2, 3]], Box::new(|| mask.mean())),
        ("sum_dims", &[&[2, 3]], Box::new(|| m.sum_dims(&[2]))),
        ("max_dims", &[&[2, 3]], Box::new(|| mask.max_dims(&[0]))),
        ("min_keepdim", &[&[2, 3]], Box::new(|| m.min_keepdim(&[0, 0]))),
        ("clamp_min", &[&[2, 3]], Box::new(|| mask.clamp_min(0.0))),
        ("clamp_max", &[&[2, 3]], Box::new(|| mask.clamp_max(0.0))),
        ("var_dims", &[&[2, 3]], Box::new(|| m.var_dims(&[2], 1.0))),
        ("var_keepdim", &[&[2, 3]], Box::new(|| m.var_keepdim(&[2], 1.0))),
        ("std_dims", &[&[2, 3]], Box::new(|| m.std_dims(&[2], 1.0))),
        ("std_keepdim", &[&[2, 3]], Box::new(|| m.std_keepdim(&[2], 1.0))),
        ("norm", &[&[2, 3]], Box::new(|| mask.norm())),
        ("softmax", &[&[2, 3]], Box::new(|| m.softmax(2))),
        ("log_softmax", &[&[2, 3]], Box::new(|| m.log_softmax(2))),
        ("logsumexp", &[&[2, 3]], Box::new(|| m.logsumexp(2))),
        ("logsumexp_keepdim", &[&[2, 3]], Box::new(|| m.logsumexp_keepdim(2))),
        ("relu", &[&[2, 3]], Box::new(|| mask.relu())),
        ("softplus", &[&[2, 3]], Box::new(|| mask.softplus())),
        ("silu", &[&[2, 3]], Box::new(|| mask.silu())),
        ("gelu", &[&[2, 3]], Box::new(|| mask.gelu())),
        ("gelu_erf", &[&[2, 3]], Box::new(|| mask.gelu_erf())),
        ("log1mexp", &[&[2, 3]], Box::new(|| mask.log1mexp())),
        ("t", &[&[2]], Box::new(|| v.t())),
        ("transpose", &[&[2]], Box::new(|| v.transpose(0, 1))),
        ("roll", &[&[2]], Box::new(|| v.roll(1, 1))),
        ("slice_step", &[&[2]], Box::new(|| v.slice_step(0, 0, 3, 1))),
        ("matmul", &[&[2], &[3]], Box::new(|| v.matmul(&vector(&[1.0; 3])))),
        ("matmul", &[&[2, 3], &[2]], Box::new(|| m.matmul(&v))),
        ("dot", &[&[2, 3], &[2]], Box::new(|| m.dot(&v))),
        ("stack", &[&[2, 3], &[2]], Box::new(|| Var::stack(&[m.clone(), v.clone()], 0))),
        ("stack", &[], Box::new(|| Var::stack(&[], 0))),
        ("cat", &[], Box::new(|| Var::cat(&[], 0))),
        ("from_seqs", &[], Box::new(|| Ragged::from_seqs(&[]).values().clone())),
        (
            "from_seqs",
            &[&[2, 3], &[2]],
            Box::new(|| Ragged::from_seqs(&[m.clone(), v.clone()]).values().clone()),
        ),
        ("mean_per_seq", &[&[2, 3]], Box::new(|| rows.mean_per_seq())),
        ("logsumexp_per_seq", &[&[2, 3]], Box::new(|| rows.logsumexp_per_seq())),
        ("softmax_per_seq", &[&[2, 3]], Box::new(|| rows.softmax_per_seq().values().clone())),
        (
            "log_softmax_per_seq",
            &[&[2, 3]],
            Box::new(|| rows.log_softmax_per_seq().values().clone()),
        ),
        ("dot_per_seq", &[], Box::new(|| ragged.dot_per_seq(&unequal))),
    ];
    for (name, operands, case) in cases {
        let error = case().error().expect(name).clone();
        let text = error.to_string();
        assert!(text.starts_with(&format!("{name}: ")), "{name}: {text}");
        match &error {
            Error::Shape { shapes, .. } => assert_eq!(*shapes, operands, "{text}"),
            Error::DType { dtypes, .. } => assert_eq!(dtypes.len(), operands.len(), "{text}"),
            Error::Argument { why, .. } => {
                assert!(operands.iter().all(|shape| why.contains(&format!("{shape:?}"))), "{text}")
            }
            Error::SequenceLength { .. } => {}
            other => panic!("{other}"),
        }
        assert!(text.contains("tests/errors.rs:"), "{text}");
    }
}

struct Unwilling;

impl CustomOp for Unwilling {
    fn name(&self) -> &'static str {
        "unwilling"
    }
    fn output(&self, _: &[Var]) -> Result<(Vec<usize>, DType), String> {
        Err("never fits".into())
    }
    fn forward(&self, inputs: &[Tensor]) -> candle_core::Result<Tensor> {
        Ok(inputs[0].clone())
    }
    fn vjp(&self, _: &[Var], _: &Var, _: usize, _: &Var) -> Option<Var> {
        None
    }
}

#[test]
fn a_method_inside_of_a_located_function_is_named_with_the_line_outside() {
    #[track_caller]
    fn wraps(f: impl FnOnce() -> Var) -> Var {
        located(std::panic::Location::caller(), f)
    }
    let x = vector(&[1.0, 2.0]);
    let line = line!() + 2;
    let refused = [
        wraps(|| x.softmax(4)),
        wraps(|| x.dot(&x.reshape(&[2, 1]))),
        wraps(|| Var::stack(&[], 0)),
        wraps(|| Var::cat(&[], 0)),
        wraps(|| Ragged::from_seqs(&[]).sum()),
        wraps(|| Var::custom(Arc::new(Unwilling), &[])),
        wraps(|| Var::custom(Arc::new(Unwilling), &[&x])),
        wraps(|| Var::from_vec(vec![1f64], &[2], &Device::Cpu)),
    ];
    for refused in refused {
        let text = refused.error().unwrap().to_string();
        let lines = (line..line + 16).any(|line| text.contains(&format!("errors.rs:{line}:")));
        assert!(lines, "{text}");
    }
}

/// The derivative of `sqrt` is made of a division, which the user never wrote.
#[test]
fn a_value_of_the_gradient_names_the_users_op() {
    let x = vector(&[0.0, 1.0]);
    for (loss, name) in [
        ((x.sqrt() * 0.0).sum(), "sqrt"),
        (x.powf(-0.5).relu().sum() * 0.0, "powf"),
        (x.log().sum(), "log"),
    ] {
        let found = Backward::new(&loss).check_finite().run(&[&x]).unwrap_err();
        assert!(matches!(found, Error::NonFinite { op, .. } if op == name), "{found}");
    }
}
