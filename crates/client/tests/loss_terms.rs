//! The terms of a loss: each is named when it is at fault, and tells about itself.

mod support;

use proptest::prelude::*;
use support::{Fake, datum};
use tinsmith_client::{
    Batch, Datum, Error, Loss, ModelInput, Result, StepReport, TensorData, check_loss_at,
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

#[test]
fn the_result_has_the_numbers_of_every_term() {
    let step = Fake::start().training().forward_backward_custom(&[datum(2), datum(2)], |batch| {
        let lp = batch.logprobs();
        Ok(Loss::new(lp.sum() * 2.0)
            .term_metric("tokens", 4.0)
            .regularize("square", 0.5, lp.square().sum())
            .term_metric("mean", lp.square().mean() * 3.0)
            .metric("own", lp.mean() * 5.0)
            .gradient_norms())
    });
    let done = step.unwrap().result().unwrap();
    // Four logprobs of -1.
    let expected = [
        ("loss:sum", -6.0),
        ("loss/loss", -8.0),
        ("loss/loss:weighted", -8.0),
        ("loss/loss:grad_norm", 4.0),
        ("loss/loss/tokens", 4.0),
        ("loss/square", 4.0),
        ("loss/square:weighted", 2.0),
        ("loss/square:grad_norm", 2.0),
        ("loss/square/mean", 3.0),
        ("own", -5.0),
    ];
    for (name, x) in expected {
        assert_eq!(done.output.metrics.get(name), Some(x), "{name}: {:?}", done.output.metrics);
    }
    let shown = done.report.to_string();
    assert!(shown.contains("\n  square "), "{shown}");
    assert!(shown.contains("\n    mean ") && shown.contains("\n    tokens "), "{shown}");
    assert_eq!(done.report.metrics.len(), 1, "the metrics of terms are theirs");
}

#[test]
fn a_metric_that_takes_the_name_of_a_terms_number_is_refused() {
    let error = step(|batch| {
        let loss = with_term(|batch| batch.logprobs().square().sum())(batch)?;
        Ok(loss.metric("loss/kl:weighted", 1.0))
    });
    says(&error.unwrap_err(), &["the name \"loss/kl:weighted\" twice"]);
    let error = step(|batch| {
        let loss = Loss::new(batch.logprobs().sum());
        Ok(loss.term_metric("max", 1.0).term_metric("max", 2.0))
    });
    says(&error.unwrap_err(), &["the name \"max\" twice"]);
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-5 * (1.0 + a.abs().max(b.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The loss is the sum of its weighted terms, and its gradient that of their gradients.
    #[test]
    fn a_loss_is_the_sum_of_its_weighted_terms(
        values in prop::collection::vec(-4f32..-0.01, 1..9),
        weights in prop::array::uniform2(0.01f64..3.0),
    ) {
        let tokens = values.len();
        let data = [Datum::new(ModelInput::from_tokens(vec![1; tokens]))
            .with("target_tokens", vec![2i64; tokens])];
        let logprobs = [TensorData::from(values.clone())];
        let check = check_loss_at(&data, &logprobs, |batch| {
            let lp = batch.logprobs();
            Ok(Loss::new(-lp.mean())
                .regularize("square", weights[0], lp.square().sum())
                .regularize("p", weights[1], lp.exp().sum())
                .gradient_norms())
        });
        let report = check.unwrap().report;
        let sum: f64 = report.terms.iter().map(|term| term.weighted()).sum();
        prop_assert!(near(sum, report.loss), "{sum} and {}", report.loss);

        let gradients = values.iter().map(|&l| {
            let l = f64::from(l);
            [-1.0 / tokens as f64, 2.0 * weights[0] * l, weights[1] * l.exp()]
        });
        let gradients: Vec<[f64; 3]> = gradients.collect();
        let norm = |of: &dyn Fn(&[f64; 3]) -> f64| {
            gradients.iter().map(|g| of(g).powi(2)).sum::<f64>().sqrt()
        };
        prop_assert!(near(norm(&|g| g.iter().sum()), report.gradient.norm));
        for (i, term) in report.terms.iter().enumerate() {
            prop_assert!(near(norm(&|g| g[i]), term.gradient_norm.unwrap()), "{}", term.name);
        }
    }
}
