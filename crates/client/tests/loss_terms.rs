//! The terms of a loss: each is named when it is at fault, and tells about itself.

mod support;

use support::{Fake, datum};
use tinsmith_client::{
    Batch, Error, Loss, Result, StepReport,
    grad::{Device, Var},
};

/// A step over two data of two tokens, whose logprobs are -1.
fn step(loss: impl FnOnce(&Batch) -> anyhow::Result<Loss>) -> Result<StepReport> {
    let step = Fake::start().training().forward_backward_custom(&[datum(2), datum(2)], loss)?;
    Ok(step.report().clone())
}

/// The negative sum of logprobs, and a term of this value.
fn with_term(term: impl Fn(&Batch) -> Var) -> impl FnOnce(&Batch) -> anyhow::Result<Loss> {
    move |batch| Ok(Loss::new(-batch.logprobs().sum()).regularize("kl", 0.5, term(batch)))
}

#[track_caller]
fn says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    assert!(text.ends_with("nothing was trained"), "{text}");
}

#[test]
fn a_term_that_does_not_depend_on_the_logprobs_is_refused_by_name_and_line() {
    let line = line!() + 2;
    let error = step(|batch| {
        let loss = Loss::new(-batch.logprobs().sum()).regularize("kl", 0.5, Var::scalar(2.0));
        Ok(loss.regularize("square", 1.0, batch.logprobs().square().sum()))
    });
    let error = error.unwrap_err();
    assert!(matches!(&error, Error::ConstantTerm { name, .. } if name == "kl"), "{error}");
    says(&error, &["the term \"kl\"", &format!("loss_terms.rs:{line}:"), "allow_constant_terms"]);

    let detached = with_term(|batch| batch.logprobs().square().sum().detach());
    assert!(matches!(step(detached), Err(Error::ConstantTerm { .. })));
    let main = step(|batch| {
        Ok(Loss::new(Var::scalar(0.0)).regularize("square", 1.0, batch.logprobs().square().sum()))
    });
    assert!(matches!(main, Err(Error::ConstantTerm { name, .. }) if name == "loss"));
}

#[test]
fn constant_terms_that_are_meant_add_to_the_value_alone() {
    let report = step(|batch| Ok(with_term(|_| Var::scalar(3.0))(batch)?.allow_constant_terms()));
    let report = report.unwrap();
    // Four logprobs of -1, and half of 3.
    assert_eq!((report.loss, report.gradient.norm), (5.5, 2.0));
}

#[test]
fn data_may_be_reached_by_different_terms() {
    let halves = |batch: &Batch| {
        let seqs = batch.logprobs().seqs();
        Ok(Loss::new(seqs[1].sum()).regularize("first", 1.0, seqs[0].sum()))
    };
    assert_eq!(step(halves).unwrap().gradient.zeros, 0.0);
    let twice_the_same = |batch: &Batch| {
        let seqs = batch.logprobs().seqs();
        Ok(Loss::new(seqs[1].sum()).regularize("again", 1.0, seqs[1].square().sum()))
    };
    let error = step(twice_the_same).unwrap_err();
    assert!(matches!(&error, Error::UnusedData { data, .. } if *data == [0]), "{error}");
}

#[test]
fn a_term_that_is_not_finite_is_named() {
    let error = step(with_term(|batch| batch.logprobs().log().sum())).unwrap_err();
    let Error::LossNotFinite { term, value, cause, .. } = &error else { panic!("{error}") };
    assert_eq!((term.as_deref(), value.is_nan(), cause.is_some()), (Some("kl"), true, true));
    says(&error, &["the term \"kl\" of the loss (made at", "loss_terms.rs:", "is NaN", "log"]);

    let error = step(|batch| {
        let lp = batch.logprobs();
        Ok(Loss::new(lp.log().sum()).regularize("kl", 0.5, lp.sum()))
    });
    says(&error.unwrap_err(), &["the term \"loss\" of the loss"]);
}

/// 3e38 and 3e38 are f32; their sum is not.
#[test]
fn terms_that_are_finite_and_whose_sum_is_not_are_not_blamed() {
    let error = step(|batch| {
        let huge = -batch.logprobs().sum() * 0.75e38;
        Ok(Loss::new(huge.clone()).regularize("kl", 1.0, huge))
    });
    let error = error.unwrap_err();
    assert!(matches!(&error, Error::LossNotFinite { term: None, .. }), "{error}");
}

#[test]
fn a_term_that_is_not_one_number_is_named() {
    let error = step(with_term(|batch| batch.logprobs().sum_per_seq())).unwrap_err();
    let Error::LossNotScalar { term, shape, .. } = &error else { panic!("{error}") };
    assert_eq!((term.as_deref(), &shape[..]), (Some("kl"), &[2][..]));
    says(&error, &["the term \"kl\" of the loss (made at", "shape [2]", ".mean()"]);
}

#[test]
fn a_term_that_cannot_be_computed_is_named() {
    let unfit = |batch: &Batch| {
        let three = Var::from_vec(vec![1f32; 3], &[3], &Device::Cpu);
        (batch.logprobs().values() * three).sum()
    };
    let error = step(with_term(unfit)).unwrap_err();
    assert!(matches!(&error, Error::Term { name, .. } if name == "kl"), "{error}");
    says(&error, &["the term \"kl\" of the loss (added at", "mul"]);
    let metric = step(|batch| Ok(Loss::new(-batch.logprobs().sum()).metric("odd", unfit(batch))));
    let error = metric.unwrap_err();
    assert!(matches!(&error, Error::Metric { name, .. } if name == "odd"), "{error}");
    says(&error, &["metric \"odd\"", "mul"]);
}

#[test]
fn a_term_whose_gradient_is_not_finite_is_named() {
    // The square root of 0 has an infinite slope: at the second row of the second datum.
    let root = |batch: &Batch| {
        let shift = Var::from_vec(vec![2f32, 2.0, 2.0, 1.0], &[4], &Device::Cpu);
        (batch.logprobs().values() + shift).sqrt().sum()
    };
    let error = step(with_term(root)).unwrap_err();
    let Error::GradientNotFinite { term, index, position, .. } = &error else { panic!("{error}") };
    assert_eq!((term.as_deref(), *index, *position), (Some("kl"), 1, 1));
    says(&error, &["the gradient of the term \"kl\" of the loss (made at", "datum 1, element 1"]);
}
