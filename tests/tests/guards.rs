//! Between the passes: a loss that cannot be right is an error that says where, the trainer gets no
//! second pass, and training goes on as if nothing had been tried.

use tinsmith_client::{
    Batch, Datum, Error, Loss, ModelInput, TrainingClient,
    grad::{Device, Error as GradError, Ragged},
};
use tinsmith_tests::{adam, data, train};
use tinsmith_trainer::Trainer;

/// A good step, in full.
fn good_step(training: &TrainingClient) {
    let step = training
        .forward_backward_custom(&data(), |batch| Ok(Loss::new(batch.logprobs().square().mean())));
    let optim = training.optim_step(&adam()).unwrap();
    step.unwrap().result().unwrap();
    optim.result().unwrap();
}

/// The error of a step with a bad loss, tried between two good ones. The trainer must have seen its
/// first pass only, and end with the weights that the good ones alone give.
fn refused(loss: impl FnOnce(&Batch) -> anyhow::Result<Loss>) -> Error {
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    good_step(&training);
    let error = training.forward_backward_custom(&data(), loss).unwrap_err();
    let received = trainer.stats(training.model_id()).unwrap().received;
    assert_eq!(
        (received.forward, received.forward_backward),
        (2, 1),
        "a second pass was sent: {error}"
    );
    assert!(error.to_string().ends_with("nothing was trained"), "{error}");
    assert!(!error.may_have_been_applied() && !error.is_retryable());
    good_step(&training);

    let undisturbed = train(&trainer.url()).unwrap();
    good_step(&undisturbed);
    good_step(&undisturbed);
    let digest = |training: &TrainingClient| trainer.weights_digest(training.model_id()).unwrap();
    assert_eq!(digest(&training), digest(&undisturbed), "{error}");
    error
}

/// Whether the error names this line of this file.
fn names_line(error: &Error, line: u32) -> bool {
    error.to_string().contains(&format!("guards.rs:{line}:"))
}

#[test]
fn a_loss_that_does_not_touch_a_datum() {
    let mut line = 0;
    let error = refused(|batch| {
        let seqs = batch.logprobs().seqs();
        line = line!() + 1;
        Ok(Loss::new(seqs[0].sum() + seqs[1].mean() + seqs[3].sum()))
    });
    assert!(matches!(&error, Error::UnusedData { data, .. } if *data == [2]), "{error}");
    assert!(error.to_string().contains("datum 2"), "{error}");
    assert!(names_line(&error, line), "{error}");
}

#[test]
fn a_loss_that_is_not_a_scalar() {
    let mut line = 0;
    let error = refused(|batch| {
        let per_seq = batch.logprobs().mean_per_seq();
        line = line!() + 1;
        Ok(Loss::new(per_seq))
    });
    assert!(matches!(&error, Error::LossNotScalar { shape, .. } if *shape == [4]), "{error}");
    assert!(error.to_string().contains(".mean()"), "{error}");
    assert!(names_line(&error, line), "{error}");
}

#[test]
fn a_loss_that_is_nan() {
    let mut line = 0;
    let error = refused(|batch| {
        let lp = batch.logprobs();
        line = line!() + 1;
        let log = lp.log(); // of numbers below 0
        Ok(Loss::new(log.mean()))
    });
    let Error::LossNotFinite { value, cause, .. } = &error else {
        panic!("{error}");
    };
    assert!(value.is_nan());
    assert!(matches!(cause.as_deref(), Some(GradError::NonFinite { op: "log", .. })), "{error}");
    assert!(names_line(&error, line), "{error}");
}

#[test]
fn lengths_that_do_not_match() {
    // The third of the lines is `solder and flux hold`: 19 targets. Here it has 5.
    let mut lengths: Vec<usize> = data().iter().map(targets).collect();
    assert_eq!(lengths[2], 19);
    lengths[2] = 5;
    let mut line = 0;
    let error = refused(|batch| {
        let lp = batch.logprobs();
        let ones = lengths.iter().map(|&len| vec![1f32; len]);
        let advantages = Ragged::from_vecs(&ones.collect::<Vec<_>>(), &Device::Cpu);
        line = line!() + 1;
        Ok(Loss::new(-(&lp * &advantages).sum()))
    });
    assert!(
        matches!(
            &error,
            Error::Loss(GradError::SequenceLength { op: "mul", seq: 2, left: 19, right: 5, .. })
        ),
        "{error}"
    );
    assert!(names_line(&error, line), "{error}");
}

#[test]
fn inputs_that_do_not_match_the_logprobs() {
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    let mut data = data();
    data[1] = data[1].clone().with("advantages", vec![1f32; 3]);
    for i in [0, 2, 3] {
        data[i] = data[i].clone().with("advantages", vec![1f32; targets(&data[i])]);
    }
    let line = line!() + 1;
    let step = training.forward_backward_custom(&data, |batch| {
        let advantages = batch.input("advantages")?;
        Ok(Loss::new((batch.logprobs() * advantages).sum()))
    });
    let error = step.unwrap_err();
    assert!(matches!(error, Error::LossFailed { .. }), "{error}");
    assert!(
        error.to_string().contains("datum 1: `advantages` has shape [3], it must be [8, ..]"),
        "{error}"
    );
    assert!(names_line(&error, line), "{error}");
    let received = trainer.stats(training.model_id()).unwrap().received;
    assert_eq!((received.forward, received.forward_backward), (1, 0));
}

#[test]
fn a_huge_but_finite_loss_passes() {
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    let datum =
        Datum::new(ModelInput::from_tokens(vec![1, 2])).with("target_tokens", vec![2i64, 3]);
    let step = training
        .forward_backward_custom(&[datum], |batch| Ok(Loss::new(batch.logprobs().sum() * 1e30)));
    let output = step.unwrap().result().unwrap();
    assert!(output.report.loss < -1e30);
}

fn targets(datum: &Datum) -> usize {
    datum.input("target_tokens").unwrap().elem_count()
}
