//! Two passes train what one pass trains, and the same way each time.

use tinsmith_client::{
    Batch, Datum, Loss, LossFn, TrainingClient,
    losses::{PpoConfig, cross_entropy, ppo},
};
use tinsmith_tests::{adam, data, train, weights};
use tinsmith_trainer::Trainer;

const STEPS: usize = 10;
/// Between weights that have moved by 0.05 and more.
const TOLERANCE: f32 = 1e-5;

/// A model before and after its training.
struct Trained {
    before: Vec<f32>,
    after: Vec<f32>,
    digest: u64,
    /// Of the gradient at each step: Adam's steps hardly depend on it, so the weights alone would
    /// not show its scale.
    norms: Vec<f64>,
}

impl Trained {
    /// On a trainer of its own.
    fn by(pass: impl Fn(&TrainingClient)) -> Self {
        let trainer = Trainer::spawn().unwrap();
        let training = train(&trainer.url()).unwrap();
        let id = training.model_id();
        let before = weights(&trainer, id).unwrap();
        let step = |_| {
            pass(&training);
            let optim = training.optim_step(&adam()).unwrap();
            optim.result().unwrap().metrics["grad_norm"]
        };
        let norms = (0..STEPS).map(step).collect();
        let ran = trainer.stats(id).unwrap().executed;
        assert_eq!((ran.forward_backward, ran.optim_step), (10, 10));
        Trained {
            before,
            after: weights(&trainer, id).unwrap(),
            digest: trainer.weights_digest(id).unwrap(),
            norms,
        }
    }

    fn by_built_in(data: &[Datum], loss: LossFn) -> Self {
        Self::by(|training| {
            let pass = training.forward_backward(data, loss.clone(), None);
            pass.unwrap().result().unwrap();
        })
    }

    fn by_custom(data: &[Datum], loss: impl Fn(&Batch) -> anyhow::Result<Loss>) -> Self {
        Self::by(|training| {
            let pass = training.forward_backward_custom(data, &loss).unwrap();
            let report = pass.result().unwrap().report;
            assert_eq!(report.drift.unwrap().max_abs, 0.0);
        })
    }

    fn assert_like(&self, expected: &Trained) {
        assert!(largest_difference(&expected.before, &expected.after) > 0.05);
        assert!(largest_difference(&self.after, &expected.after) <= TOLERANCE);
        for (norm, expected) in self.norms.iter().zip(&expected.norms) {
            assert!((norm - expected).abs() <= 1e-5 * expected);
        }
    }
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

#[test]
fn cross_entropy_as_a_custom_loss_trains_as_the_built_in_one() {
    let data = data();
    let expected = Trained::by_built_in(&data, LossFn::CrossEntropy);
    let by_hand = Trained::by_custom(&data, |batch| {
        let (lp, weights) = (batch.logprobs().seqs(), batch.input("weights")?.seqs());
        let terms = lp.iter().zip(&weights).map(|(lp, w)| -(lp * w).sum());
        Ok(Loss::new(terms.reduce(|sum, term| sum + term).unwrap()))
    });
    by_hand.assert_like(&expected);
    let from_catalogue = Trained::by_custom(&data, |batch| {
        let weights = batch.input("weights")?;
        Ok(Loss::new(cross_entropy(&batch.logprobs(), &weights)))
    });
    from_catalogue.assert_like(&expected);
}

#[test]
fn ppo_as_a_custom_loss_trains_as_the_built_in_one() {
    // Old logprobs of a model somewhat off from this one, so that some ratios are clipped from the
    // start.
    let off_policy = |datum: &Datum| {
        let targets = datum.input("target_tokens").unwrap();
        let len = targets.elem_count();
        let old: Vec<f32> = (0..len).map(|i| -5.0 - (i % 5) as f32 * 0.4).collect();
        let advantages: Vec<f32> = (0..len).map(|i| [1.0, -0.5, 0.0][i % 3]).collect();
        Datum::new(datum.model_input.clone())
            .with("target_tokens", targets.clone())
            .with("logprobs", old)
            .with("advantages", advantages)
    };
    let data: Vec<Datum> = data().iter().map(off_policy).collect();
    let expected = Trained::by_built_in(&data, LossFn::Ppo);
    let ours = Trained::by_custom(&data, |batch| {
        let (old, advantages) = (batch.input("logprobs")?, batch.input("advantages")?);
        let config = PpoConfig::default();
        let loss = ppo(&batch.logprobs(), &old, &advantages, &config);
        Ok(Loss::new(loss))
    });
    ours.assert_like(&expected);
}

#[test]
fn the_same_seed_gives_the_same_weights_to_the_bit() {
    let data = data();
    let run = || Trained::by_custom(&data, |batch| Ok(Loss::new(batch.logprobs().square().mean())));
    let (one, two) = (run(), run());
    assert_eq!(one.digest, two.digest);
    let bits = |trained: &Trained| trained.after.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&one), bits(&two));
    assert_ne!(one.after, one.before);
}
