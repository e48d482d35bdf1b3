//! Two passes train what one pass trains, and the same way each time.

use tinsmith_client::{
    Batch, Datum, Loss, LossFn, TrainingClient,
    losses::{PpoConfig, cross_entropy, ppo},
};
use tinsmith_tests::{adam, data, train, weights};
use tinsmith_trainer::Trainer;

const STEPS: usize = 10;
/// Between weights of about 0.1 that each moved by about 0.1.
const TOLERANCE: f32 = 1e-5;

/// The weights before and after `STEPS` steps, on a trainer of their own, and the digest of the latter.
fn after_steps(step: impl Fn(&TrainingClient)) -> (Vec<f32>, Vec<f32>, u64) {
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    let id = training.model_id();
    let before = weights(&trainer, id).unwrap();
    for _ in 0..STEPS {
        step(&training);
        training.optim_step(&adam()).unwrap().result().unwrap();
    }
    let ran = trainer.stats(id).unwrap().executed;
    assert_eq!(
        (ran.forward_backward, ran.optim_step),
        (STEPS as u64, STEPS as u64)
    );
    (
        before,
        weights(&trainer, id).unwrap(),
        trainer.weights_digest(id).unwrap(),
    )
}

fn built_in(data: &[Datum], loss: LossFn) -> (Vec<f32>, Vec<f32>, u64) {
    after_steps(|training| {
        let step = training.forward_backward(data, loss.clone(), None);
        step.unwrap().result().unwrap();
    })
}

fn custom(data: &[Datum], loss: impl Fn(&Batch) -> anyhow::Result<Loss>) -> Vec<f32> {
    let (_, after, _) = after_steps(|training| {
        let step = training.forward_backward_custom(data, &loss).unwrap();
        let (_, report) = step.result_with_report().unwrap();
        assert_eq!(report.drift.unwrap().max_abs, 0.0);
    });
    after
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[test]
fn cross_entropy_as_a_custom_loss_trains_as_the_built_in_one() {
    let data = data();
    let (before, expected, _) = built_in(&data, LossFn::CrossEntropy);
    assert!(
        largest_difference(&before, &expected) > 0.05,
        "it hardly trained"
    );

    let by_hand = custom(&data, |batch| {
        let (lp, weights) = (batch.logprobs().seqs(), batch.input("weights")?.seqs());
        let terms = lp.iter().zip(&weights).map(|(lp, w)| -(lp * w).sum());
        Ok(Loss::new(terms.reduce(|sum, term| sum + term).unwrap()))
    });
    assert!(largest_difference(&by_hand, &expected) <= TOLERANCE);

    let from_catalogue = custom(&data, |batch| {
        let weights = batch.input("weights")?;
        Ok(Loss::new(cross_entropy(&batch.logprobs(), &weights)))
    });
    assert!(largest_difference(&from_catalogue, &expected) <= TOLERANCE);
}

#[test]
fn ppo_as_a_custom_loss_trains_as_the_built_in_one() {
    // Old logprobs of a model somewhat off from this one, so that some ratios are clipped from the start.
    let off_policy = |datum: &Datum| {
        let len = datum.model_input.len().unwrap();
        let old: Vec<f32> = (0..len).map(|i| -5.0 - (i % 5) as f32 * 0.4).collect();
        let advantages: Vec<f32> = (0..len).map(|i| [1.0, -0.5, 0.0][i % 3]).collect();
        Datum::new(datum.model_input.clone())
            .with(
                "target_tokens",
                datum.input("target_tokens").unwrap().clone(),
            )
            .with("logprobs", old)
            .with("advantages", advantages)
    };
    let data: Vec<Datum> = data().iter().map(off_policy).collect();
    let (before, expected, _) = built_in(&data, LossFn::Ppo);
    assert!(
        largest_difference(&before, &expected) > 0.05,
        "it hardly trained"
    );
    let ours = custom(&data, |batch| {
        let (old, advantages) = (batch.input("logprobs")?, batch.input("advantages")?);
        let config = PpoConfig::default();
        Ok(Loss::new(ppo(
            &batch.logprobs(),
            &old,
            &advantages,
            &config,
        )))
    });
    assert!(largest_difference(&ours, &expected) <= TOLERANCE);
}

#[test]
fn the_same_seed_gives_the_same_weights_to_the_bit() {
    let data = data();
    let run = || {
        after_steps(|training| {
            let loss = |batch: &Batch| Ok(Loss::new(batch.logprobs().square().mean()));
            let step = training.forward_backward_custom(&data, loss).unwrap();
            step.result().unwrap();
        })
    };
    let ((start, one, first), (_, two, second)) = (run(), run());
    assert_eq!(first, second);
    assert!(
        one.iter()
            .map(|x| x.to_bits())
            .eq(two.iter().map(|x| x.to_bits()))
    );
    assert_ne!(one, start);
}
