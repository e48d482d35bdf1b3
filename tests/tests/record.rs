//! Recorded steps, run again without a trainer; and losses checked without one.

use std::fs;

use tinsmith_client::{Batch, Datum, Error, Loss, ModelInput, check_loss, losses, replay};
use tinsmith_tests::{adam, data, train};
use tinsmith_trainer::Trainer;

fn loss(batch: &Batch) -> anyhow::Result<Loss> {
    let lp = batch.logprobs();
    let entropy = (&lp * lp.exp()).sum_per_seq().log_sigmoid();
    Ok(Loss::new(entropy.mean()).metric("mean", lp.mean()))
}

#[test]
fn a_recorded_step_gives_the_same_bits_again() {
    let folder = tempfile::tempdir().unwrap();
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        // As two programs one after the other would.
        training.record(folder.path()).unwrap();
        for _ in 0..2 {
            let step = training.forward_backward_custom(&data(), loss).unwrap();
            let optim = training.optim_step(&adam()).unwrap();
            seen.push(step.result().unwrap().report);
            optim.result().unwrap();
        }
    }
    let again = replay(folder.path(), loss).unwrap();
    assert_eq!(again.len(), 4);
    for (step, report) in again.iter().zip(&seen) {
        assert!(step.is_identical, "{step:?}");
        assert_eq!((step.loss, &step.metrics), (report.loss, &report.metrics));
    }
    assert_ne!(again[0].loss, again[3].loss);

    let other = replay(folder.path(), |batch| Ok(Loss::new(batch.logprobs().mean()))).unwrap();
    assert!(other.iter().all(|step| !step.is_identical && step.gradient_difference > 1e-4));
    // On every trainer with an honest cross entropy the surrogate agrees.
    assert!(
        seen.iter().all(|report| report.surrogate.unwrap().agrees && report.warnings.is_empty())
    );
}

#[test]
fn a_step_that_cannot_be_recorded_is_not_trained() {
    let folder = tempfile::tempdir().unwrap();
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    training.record(folder.path().join("steps")).unwrap();
    fs::remove_dir_all(folder.path().join("steps")).unwrap();
    let error = training.forward_backward_custom(&data(), loss).unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    assert!(error.to_string().contains("step-000001"), "{error}");
    assert_eq!(trainer.stats(training.model_id()).unwrap().received.forward_backward, 0);
}

#[test]
fn a_file_that_is_no_step_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("step-000007.json"), "{\"format\": 1").unwrap();
    let error = replay(folder.path(), loss).unwrap_err().to_string();
    assert!(error.contains("step-000007.json: "), "{error}");
}

fn datum(tokens: &[i64], advantages: &[f32]) -> Datum {
    let old: Vec<f32> = tokens.iter().map(|&t| -0.1 * t as f32).collect();
    Datum::new(ModelInput::from_tokens(tokens.iter().map(|&t| t as u32).collect::<Vec<_>>()))
        .with("target_tokens", tokens.to_vec())
        .with("logprobs", old)
        .with("advantages", advantages.to_vec())
}

fn batch_of_two() -> [Datum; 2] {
    [datum(&[5, 9, 20], &[1.0, -1.0, 0.5]), datum(&[3, 30], &[-2.0, 0.25])]
}

/// A loss of the catalogue passes in f64 although the data are f32.
#[test]
fn a_good_loss_passes_its_check() {
    let check = check_loss(&batch_of_two(), |batch| {
        let (lp, old) = (batch.logprobs(), batch.input("logprobs")?);
        let advantages = batch.input("advantages")?;
        Ok(Loss::new(losses::ppo(&lp, &old, &advantages, &Default::default())).regularize(
            "kl",
            0.1,
            losses::kl_k3(&lp, &old).mean(),
        ))
    });
    let check = check.unwrap();
    assert_eq!(check.derivatives.compared, 5);
    assert!(check.derivatives.max_error < 1e-6);
    let shown = check.to_string();
    assert!(shown.contains("0.1 x ") && shown.ends_with(&check.derivatives.to_string()), "{shown}");
}

#[test]
fn bad_losses_fail_their_check_as_they_would_fail_in_training() {
    let data = batch_of_two();
    let fails = |loss: fn(&Batch) -> anyhow::Result<Loss>| check_loss(&data, loss).unwrap_err();
    // Numbers taken out of the graph: the classic loss that does not train.
    let error = fails(|batch| {
        let lp = batch.logprobs();
        Ok(Loss::new((&lp * lp.exp().map(|p| p.detach())).sum()))
    });
    assert!(matches!(error, Error::WrongGradient { .. }), "{error}");
    let error = fails(|batch| Ok(Loss::new(batch.logprobs().seqs()[0].sum())));
    assert!(matches!(error, Error::UnusedData { ref data, .. } if *data == [1]), "{error}");
    let error = fails(|batch| Ok(Loss::new(batch.logprobs().log().sum())));
    assert!(matches!(error, Error::LossNotFinite { .. }), "{error}");
    let error = fails(|batch| Ok(Loss::new(batch.logprobs().sum_per_seq())));
    assert!(matches!(error, Error::LossNotScalar { .. }), "{error}");
    let error = fails(|batch| Ok(Loss::new(batch.input("rewards")?.sum())));
    assert!(error.to_string().contains("`rewards` is missing"), "{error}");
}
