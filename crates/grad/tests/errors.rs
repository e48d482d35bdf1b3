//! Errors ride in the graph, and come out with the op and the line that recorded it.

use tinsmith_grad::{Backward, DType, Device, Error, Ragged, Var, check_finite, grad};

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
    assert!(
        error
            .to_string()
            .contains("dimension 3 is out of range for rank 1"),
        "{error}"
    );
}

#[test]
fn a_vector_root_says_which_reduction_to_add() {
    let x = vector(&[1.0, 2.0]);
    let root = x.exp();
    let error = root.backward(&[&x]).unwrap_err();
    assert!(matches!(&error, Error::NotScalar { op: "exp", shape, .. } if *shape == [2]));
    assert!(error.to_string().contains(".sum() or .mean()"), "{error}");

    let seeded = Backward::new(&root)
        .seed(&vector(&[1.0, 10.0]))
        .run(&[&x])
        .unwrap();
    let expected = [1f64.exp(), 10.0 * 2f64.exp()];
    assert_eq!(seeded[0].to_vec1::<f64>().unwrap(), expected);

    let misfit = Backward::new(&root)
        .seed(&vector(&[1.0]))
        .run(&[&x])
        .unwrap_err();
    assert!(matches!(misfit, Error::Shape { op: "backward", .. }));
}

#[test]
fn a_leaf_without_a_path_is_never_a_silent_zero() {
    let (x, y) = (vector(&[1.0]), vector(&[2.0, 3.0]).label("reference"));
    for loss in [
        x.sum(),
        x.sum() + y.detach().sum(),
        x.sum() + y.gt(0.0).to_dtype(DType::F64).sum(),
    ] {
        match loss.backward(&[&x, &y]).unwrap_err() {
            Error::Unused {
                index: 1,
                label: Some(label),
                ..
            } => assert_eq!(label, "reference"),
            other => panic!("{other}"),
        }
        let zeros = Backward::new(&loss).allow_unused().run(&[&x, &y]).unwrap();
        assert_eq!(zeros[1].to_vec1::<f64>().unwrap(), [0.0, 0.0]);
    }
    // A gradient that is 0 is not a gradient that is missing.
    assert_eq!(
        (y.sign().sum() + x.sum()).backward(&[&y]).unwrap()[0]
            .to_vec1::<f64>()
            .unwrap(),
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
        matches!(
            error,
            Error::SequenceLength {
                op: "mul",
                seq: 0,
                left: 2,
                right: 1,
                ..
            }
        ),
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
        assert!(
            text.starts_with("log `log-ratio` gives -inf at index [1]"),
            "{text}"
        );
    }
}

#[test]
fn a_value_that_is_finite_until_differentiated_is_found_in_the_backward() {
    let x = vector(&[0.0, 1.0]);
    let line = line!() + 1;
    let loss = x.sqrt().sum();
    assert!(check_finite(&[&loss]).is_ok());
    let error = Backward::new(&loss).check_finite().run(&[&x]).unwrap_err();
    assert!(
        matches!(
            error,
            Error::NonFinite {
                backward: true,
                value: f64::INFINITY,
                ..
            }
        ),
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
        Var::cat(
            &[x.clone(), Var::zeros(&[1, 1], DType::F64, &Device::Cpu)],
            0,
        ),
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
