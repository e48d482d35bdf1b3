//! A slip costs a call, not a run: after a wrong argument to any call, what was trained can be
//! saved, and training goes on.

use std::time::Duration;

use tinsmith_client::{
    AdamParams, Batch, Datum, DimuonParams, Error, Loss, LossFn, ModelInput, OptimStep, Result,
    SaveOptions, TensorData, TrainingClient,
};
use tinsmith_tests::{train, train_in_json};
use tinsmith_trainer::Trainer;

type Slip = (&'static str, fn(&TrainingClient) -> Result<()>);

fn good() -> Datum {
    Datum::new(ModelInput::from_tokens(vec![1, 2, 3])).with("target_tokens", vec![2i64, 3, 4])
}

fn pass(training: &TrainingClient, data: &[Datum]) -> Result<()> {
    training.forward_backward(data, LossFn::CrossEntropy, None)?.result().map(drop)
}

fn custom(
    training: &TrainingClient,
    data: &[Datum],
    loss: fn(&Batch) -> anyhow::Result<Loss>,
) -> Result<()> {
    training.forward_backward_custom(data, loss)?.result().map(drop)
}

fn step(training: &TrainingClient, change: fn(&mut AdamParams)) -> Result<()> {
    let mut params = AdamParams::default();
    change(&mut params);
    training.optim_step(&params)?.result().map(drop)
}

fn save(training: &TrainingClient, name: &str, options: &SaveOptions) -> Result<()> {
    training.save_state_with(name, options)?.result().map(drop)
}

fn input(tokens: Vec<u32>, targets: impl Into<TensorData>) -> Datum {
    Datum::new(ModelInput::from_tokens(tokens)).with("target_tokens", targets)
}

fn shaped(values: Vec<i64>, shape: &[usize]) -> TensorData {
    TensorData::new(values, shape).unwrap()
}

fn ttl(seconds: u64) -> SaveOptions {
    SaveOptions::default().ttl(Duration::from_secs(seconds))
}

const SLIPS: &[Slip] = &[
    // Names, times, paths.
    ("a space in a name", |t| save(t, "epoch 1", &SaveOptions::default())),
    ("an empty name", |t| save(t, "", &SaveOptions::default())),
    ("a slash in a name", |t| save(t, "a/b", &SaveOptions::default())),
    ("a way out", |t| save(t, "../elsewhere", &SaveOptions::default())),
    ("a hidden name", |t| save(t, ".a", &SaveOptions::default())),
    ("a letter beyond ASCII", |t| save(t, "\u{e9}poque", &SaveOptions::default())),
    ("a long name", |t| save(t, &"x".repeat(256), &SaveOptions::default())),
    ("a ttl of a minute", |t| save(t, "a", &ttl(60))),
    ("a ttl of nothing", |t| save(t, "a", &ttl(0))),
    ("a ttl of a century", |t| save(t, "a", &ttl(100 * 365 * 24 * 3600))),
    ("a sampler's name", |t| t.save_weights_for_sampler(Some("a b"))?.result().map(drop)),
    ("a sampler's ttl", |t| {
        t.save_weights_for_sampler_with(Some("a"), &ttl(1))?.result().map(drop)
    }),
    ("an external name", |t| {
        t.save_weights_external("a b", &[], &SaveOptions::default())?.result().map(drop)
    }),
    ("a call that the trainer does not have", |t| {
        t.save_weights_external("a", &[], &SaveOptions::default())?.result().map(drop)
    }),
    ("a name for a path", |t| t.load_state("a")?.result().map(drop)),
    ("no name in a path", |t| t.load_state("tinker://run")?.result().map(drop)),
    ("a way out in a path", |t| t.load_state("tinker://run/weights/../x")?.result().map(drop)),
    ("a path to nothing", |t| t.load_state("tinker://run/weights/x")?.result().map(drop)),
    ("a path to nothing, with optimizer", |t| {
        t.load_state_with_optimizer("tinker://run/weights/x")?.result().map(drop)
    }),
    // Optimizers.
    ("a schedule's last step", |t| step(t, |p| p.learning_rate = -1e-20)),
    ("a learning rate that is no number", |t| step(t, |p| p.learning_rate = f64::NAN)),
    ("an infinite learning rate", |t| step(t, |p| p.learning_rate = f64::INFINITY)),
    ("a learning rate beyond f32", |t| step(t, |p| p.learning_rate = 1e39)),
    ("a beta of 1", |t| step(t, |p| p.beta1 = 1.0)),
    ("a beta that is 1 in f32", |t| step(t, |p| p.beta2 = 1.0 - 1e-12)),
    ("a beta below 0", |t| step(t, |p| p.beta2 = -0.5)),
    ("an eps below 0", |t| step(t, |p| p.eps = -1e-8)),
    ("a weight decay below 0", |t| step(t, |p| p.weight_decay = -0.1)),
    ("a clip norm that is no number", |t| step(t, |p| p.grad_clip_norm = f64::NAN)),
    ("another model's optimizer", |t| {
        t.optim_step_with(&OptimStep::from(DimuonParams::default()))?.result().map(drop)
    }),
    // Data.
    ("no data", |t| pass(t, &[])),
    ("no tokens", |t| pass(t, &[good(), input(vec![], Vec::<i64>::new())])),
    ("no targets", |t| pass(t, &[Datum::new(ModelInput::from_tokens(vec![1, 2]))])),
    ("targets of another length", |t| pass(t, &[input(vec![1, 2, 3], vec![2i64, 3])])),
    ("targets of another shape", |t| {
        pass(t, &[input(vec![1, 2], shaped(vec![2, 3, 4, 5], &[1, 2, 2]))])
    }),
    ("targets of another dtype", |t| pass(t, &[input(vec![1, 2], vec![2.0f32, 3.0])])),
    ("a target below 0", |t| pass(t, &[input(vec![1, 2], vec![2i64, -1])])),
    ("a token beyond the vocabulary", |t| pass(t, &[good(), input(vec![1, 320], vec![2i64, 3])])),
    ("a target beyond the vocabulary", |t| pass(t, &[input(vec![1, 2], vec![2i64, 9999])])),
    ("more tokens than the context", |t| pass(t, &[input(vec![1; 5000], vec![1i64; 5000])])),
    ("weights that are no numbers", |t| pass(t, &[good().with("weights", vec![f32::NAN; 3])])),
    ("weights of another length", |t| pass(t, &[good().with("weights", vec![1.0f32; 2])])),
    ("a loss that the trainer does not have", |t| {
        t.forward_backward(&[good()], LossFn::Other("mystery".into()), None)?.result().map(drop)
    }),
    // Losses.
    ("a custom loss on bad data", |t| {
        custom(t, &[input(vec![1, 320], vec![2i64, 3])], |b| Ok(Loss::new(b.logprobs().sum())))
    }),
    ("a loss that is no scalar", |t| {
        custom(t, &[good()], |b| Ok(Loss::new(b.logprobs().values().clone())))
    }),
    ("a loss that is no number", |t| {
        custom(t, &[good()], |b| Ok(Loss::new((b.logprobs().sum() * 1e30).exp().log() * 0.0)))
    }),
    ("an input that is not there", |t| {
        custom(t, &[good()], |b| Ok(Loss::new((b.logprobs() * b.input("advantages")?).sum())))
    }),
    ("a loss that gives up", |t| custom(t, &[good()], |_| anyhow::bail!("no"))),
];

#[test]
fn after_each_of_them_the_model_is_saved_and_trained_on() {
    assert!(SLIPS.len() >= 40);
    let trainer = Trainer::spawn().unwrap();
    for training in [train(&trainer.url()).unwrap(), train_in_json(&trainer.url()).unwrap()] {
        for (i, (what, slip)) in SLIPS.iter().enumerate() {
            let error = match slip(&training) {
                Err(error) => error,
                Ok(()) => panic!("{what}: no error"),
            };
            assert!(!matches!(error, Error::Poisoned { .. }), "{what}: {error}");
            let saved = training.save_state(&format!("after-{i}")).and_then(|it| it.result());
            assert!(saved.is_ok(), "{what}: {saved:?}");
            pass(&training, &[good()]).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
}
