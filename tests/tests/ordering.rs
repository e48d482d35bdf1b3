//! Requests run in the order of the calls, and what was saved is what was trained.

use tinsmith_client::{
    Datum, LoraConfig, Loss, LossFn, ModelInput, SamplingClient, SamplingParams, TrainingClient,
};
use tinsmith_tests::{BASE_MODEL, adam, connect, data, train, unnamed, weights};
use tinsmith_trainer::{Trainer, tokenizer};

/// One step on a custom loss, each result read before the next request.
fn step(training: &TrainingClient, data: &[Datum]) {
    let step = training
        .forward_backward_custom(data, |batch| Ok(Loss::new(batch.logprobs().square().mean())));
    step.unwrap().result().unwrap();
    training.optim_step(&adam()).unwrap().result().unwrap();
}

fn digest(trainer: &Trainer, training: &TrainingClient) -> u64 {
    trainer.weights_digest(training.model_id()).unwrap()
}

#[test]
fn when_results_are_read_makes_no_difference() {
    let trainer = Trainer::spawn().unwrap();
    let data = data();
    let loss = |batch: &tinsmith_client::Batch| Ok(Loss::new(batch.logprobs().square().mean()));

    let one_by_one = train(&trainer.url()).unwrap();
    (0..3).for_each(|_| step(&one_by_one, &data));
    let expected = digest(&trainer, &one_by_one);

    // The optimizer step is sent before the custom step's result is read, and the step after that
    // too.
    let ahead = train(&trainer.url()).unwrap();
    let mut pending = Vec::new();
    for _ in 0..3 {
        let custom = ahead.forward_backward_custom(&data, loss).unwrap();
        pending.push((custom, ahead.optim_step(&adam()).unwrap()));
    }
    // And read backwards.
    let norms: Vec<f64> = pending
        .into_iter()
        .rev()
        .map(|(custom, optim)| {
            let norm = optim.result().unwrap().metrics["grad_norm"];
            custom.result().unwrap();
            norm
        })
        .collect();
    assert_eq!(digest(&trainer, &ahead), expected);
    assert!(norms.iter().all(|&norm| norm > 0.0), "{norms:?}");

    // Nor does it when nobody reads them at all.
    let unread = train(&trainer.url()).unwrap();
    for _ in 0..3 {
        drop(unread.forward_backward_custom(&data, loss).unwrap());
        drop(unread.optim_step(&adam()).unwrap());
    }
    assert_eq!(digest(&trainer, &unread), expected);
}

#[test]
fn gradients_gather_until_the_optimizer_step() {
    // Two passes on halves of the data, then one step; against one pass on all of it. Adam sees
    // sums in another order.
    let trainer = Trainer::spawn().unwrap();
    let data = data();
    let whole = train(&trainer.url()).unwrap();
    let pass = |training: &TrainingClient, data: &[Datum]| {
        training.forward_backward(data, LossFn::CrossEntropy, None).unwrap()
    };
    let _ = pass(&whole, &data).result().unwrap();
    let whole_norm = whole.optim_step(&adam()).unwrap().result().unwrap();

    let halves = train(&trainer.url()).unwrap();
    let (first, second) = (pass(&halves, &data[..2]), pass(&halves, &data[2..]));
    let optim = halves.optim_step(&adam()).unwrap();
    let sum =
        first.result().unwrap().metrics["loss:sum"] + second.result().unwrap().metrics["loss:sum"];
    let halves_norm = optim.result().unwrap();

    let before = train(&trainer.url()).unwrap();
    let at_start = before.forward(&data, LossFn::CrossEntropy, None).unwrap();
    let at_start = at_start.result().unwrap().metrics["loss:sum"];
    assert!((sum - at_start).abs() <= 1e-4 * at_start, "{sum} {at_start}");
    let (a, b) = (whole_norm.metrics["grad_norm"], halves_norm.metrics["grad_norm"]);
    assert!((a - b).abs() <= 1e-4 * a, "{a} {b}");
}

#[test]
fn training_goes_on_from_a_checkpoint_in_a_fresh_trainer() {
    let folder = tempfile::tempdir().unwrap();
    let spawn = || Trainer::builder().state_dir(folder.path()).spawn().unwrap();
    let data = data();

    let (path, expected, middle) = {
        let trainer = spawn();
        let training = train(&trainer.url()).unwrap();
        (0..2).for_each(|_| step(&training, &data));
        let saved = training.save_state("middle").unwrap();
        let middle = digest(&trainer, &training);
        (0..3).for_each(|_| step(&training, &data));
        (saved.result().unwrap().path, digest(&trainer, &training), middle)
    };
    assert_ne!(middle, expected);

    let trainer = spawn();
    let service = connect(&trainer.url()).unwrap();
    let fresh = |seed| {
        let config = LoraConfig::rank(4).seed(seed);
        service.create_lora_training_client(BASE_MODEL, &config).unwrap()
    };
    let training = fresh(99);
    assert_ne!(digest(&trainer, &training), middle);
    let loaded = training.load_state_with_optimizer(&path).unwrap();
    loaded.result().unwrap();
    assert_eq!(digest(&trainer, &training), middle);
    (0..3).for_each(|_| step(&training, &data));
    assert_eq!(digest(&trainer, &training), expected);

    // Without the optimizer's moments the weights are the same, and the way from there is not.
    let training = fresh(98);
    training.load_state(&path).unwrap().result().unwrap();
    assert_eq!(digest(&trainer, &training), middle);
    (0..3).for_each(|_| step(&training, &data));
    assert_ne!(digest(&trainer, &training), expected);

    let info = service.weights_info(&path).unwrap();
    assert_eq!((info.base_model.as_str(), info.lora_rank), (BASE_MODEL, Some(4)));
}

#[test]
fn sampled_logprobs_are_those_of_the_model_that_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let spawn = || Trainer::builder().state_dir(folder.path()).spawn().unwrap();
    let prompt = tokenizer::encode("the tin");
    let params = SamplingParams { seed: Some(3), ..SamplingParams::max_tokens(12) };
    let sample = |sampler: &SamplingClient| {
        let input = ModelInput::from_tokens(&prompt[..]);
        let answer = sampler.sample(&input, 3, &params).unwrap().result().unwrap();
        assert_eq!(answer.sequences.len(), 3);
        unnamed(answer.sequences)
    };

    let trainer = spawn();
    let training = train(&trainer.url()).unwrap();
    (0..3).for_each(|_| step(&training, &data()));
    let sampler = training.save_weights_for_sampler(Some("now")).unwrap();
    let throw_away = training.save_weights_for_sampler(None).unwrap();
    let (sampler, throw_away) = (sampler.result().unwrap(), throw_away.result().unwrap());
    let sequences = sample(&sampler);
    assert_eq!(sample(&throw_away), sequences);

    for sequence in &sequences {
        assert!(!sequence.tokens.is_empty());
        let tokens: Vec<u32> = prompt.iter().chain(&sequence.tokens).copied().collect();
        let sampled = sequence.logprobs.as_ref().unwrap();
        // Token by token with a cache, in one go for sampling, and in one go for training.
        let whole = ModelInput::from_tokens(&tokens[..]);
        let computed = sampler.compute_logprobs(&whole).unwrap().result().unwrap();
        assert_eq!(computed[0], None);
        let computed: Vec<f32> = computed[prompt.len()..].iter().map(|lp| lp.unwrap()).collect();
        assert_near(sampled, &computed);
        let targets: Vec<i64> = tokens[1..].iter().map(|&token| token.into()).collect();
        let datum = Datum::new(ModelInput::from_tokens(&tokens[..tokens.len() - 1]))
            .with("target_tokens", targets);
        let output = training.forward(&[datum], LossFn::CrossEntropy, None).unwrap();
        let output = output.result().unwrap();
        let forward = output.loss_fn_outputs[0]["logprobs"].as_f32().unwrap();
        assert_near(sampled, &forward[prompt.len() - 1..]);
    }

    // What was saved stays as it was: while the model is trained on, and in another trainer.
    step(&training, &data());
    assert_eq!(sample(&sampler), sequences);
    let path = sampler.path().unwrap().to_owned();
    drop((sampler, throw_away, training));
    drop(trainer);
    let trainer = spawn();
    let sampler = connect(&trainer.url()).unwrap().create_sampling_client(&path).unwrap();
    assert_eq!(sample(&sampler), sequences);
}

#[test]
fn threads_that_share_a_client_take_turns() {
    // The order between threads is chance; that every request has its place in one order is not.
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    let start = weights(&trainer, training.model_id()).unwrap();
    let data = data();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (training, data) = (training.clone(), &data);
            scope.spawn(move || (0..2).for_each(|_| step(&training, data)));
        }
    });
    let stats = trainer.stats(training.model_id()).unwrap();
    let ran = stats.executed;
    assert_eq!((ran.forward, ran.forward_backward, ran.optim_step), (8, 8, 8));
    assert_eq!(stats.received, ran);
    assert_ne!(weights(&trainer, training.model_id()).unwrap(), start);
}

fn assert_near(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4;
    assert!(a.iter().zip(b).all(near), "{a:?} against {b:?}");
}
