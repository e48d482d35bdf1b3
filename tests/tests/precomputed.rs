//! One forward pass for several losses, as long as the weights are the same.

use tinsmith_client::{
    Batch, Datum, Error, ForwardProblem, Loss, PrecomputedForward, TrainingClient,
};
use tinsmith_tests::{adam, data, datum, train};
use tinsmith_trainer::Trainer;

fn precompute(training: &TrainingClient, data: &[Datum]) -> PrecomputedForward {
    training.precompute_forward(data).unwrap().result().unwrap()
}

fn squares(batch: &Batch) -> anyhow::Result<Loss> {
    Ok(Loss::new(batch.logprobs().square().sum()))
}

fn sum(batch: &Batch) -> anyhow::Result<Loss> {
    Ok(Loss::new(-batch.logprobs().sum()))
}

/// Gradients add up on the server, so both ways the norm is that of the sum.
#[test]
fn it_trains_what_a_pass_of_its_own_trains() {
    let norm = |is_reused: bool| {
        let trainer = Trainer::spawn().unwrap();
        let training = train(&trainer.url()).unwrap();
        let data = data();
        for loss in [squares, sum] {
            let step = match is_reused {
                true => {
                    let forward = precompute(&training, &data);
                    training.forward_backward_custom_after(&forward, &data, loss)
                }
                false => training.forward_backward_custom(&data, loss),
            };
            let report = step.unwrap().result().unwrap().report;
            assert_eq!(report.drift.unwrap().max_abs, 0.0);
        }
        let optim = training.optim_step(&adam()).unwrap().result().unwrap();
        optim.metrics["grad_norm"]
    };
    assert_eq!(norm(true), norm(false));
}

#[test]
fn one_pass_serves_several_losses_and_is_paid_once() {
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    let data = data();
    let forward = precompute(&training, &data);
    let lengths: Vec<usize> = forward.logprobs().iter().map(|lp| lp.elem_count()).collect();
    let expected: Vec<usize> =
        data.iter().map(|datum| datum.loss_fn_inputs["target_tokens"].elem_count()).collect();
    assert_eq!(lengths, expected);
    let mut losses = Vec::new();
    for loss in [squares, sum] {
        let step = training.forward_backward_custom_after(&forward, &data, loss).unwrap();
        let report = step.result().unwrap().report;
        assert_eq!(report.times.forward.as_nanos(), 0);
        assert_eq!(report.usage.forward_tokens, 0);
        assert_eq!(report.usage.forward_backward_tokens, lengths.iter().sum::<usize>() as u64);
        losses.push(report.loss);
    }
    let all = forward.logprobs().iter().flat_map(|lp| lp.as_f32().unwrap());
    let by_hand = all.fold([0.0, 0.0], |[squares, sum], &l| {
        let l = f64::from(l);
        [squares + l * l, sum - l]
    });
    for (loss, by_hand) in losses.iter().zip(by_hand) {
        assert!((loss - by_hand).abs() < 1e-5 * by_hand.abs(), "{loss} and {by_hand}");
    }
    let received = trainer.stats(training.model_id()).unwrap().received;
    assert_eq!((received.forward, received.forward_backward), (1, 2));
}

#[test]
fn it_is_refused_once_the_weights_or_the_batch_are_others() {
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    let data = data();
    let forward = precompute(&training, &data);
    let problem = |data: &[_]| match training.forward_backward_custom_after(&forward, data, sum) {
        Err(Error::StaleForward { seq_id: 1, problem }) => problem,
        other => panic!("{other:?}"),
    };
    let mut others = data.clone();
    others[2] = datum("something else");
    assert_eq!(problem(&others), ForwardProblem::OtherData { index: 2 });
    let (expected, found) = (data.len(), 1);
    assert_eq!(problem(&data[..1]), ForwardProblem::OtherCount { expected, found });

    let another = train(&trainer.url()).unwrap();
    let error = another.forward_backward_custom_after(&forward, &data, sum).unwrap_err();
    assert!(matches!(error, Error::StaleForward { problem: ForwardProblem::OtherModel, .. }));

    // Gathering a gradient does not change the weights; a step of the optimizer does, and so does
    // loading.
    training.forward_backward_custom(&data, sum).unwrap().result().unwrap();
    training.forward_backward_custom_after(&forward, &data, sum).unwrap().result().unwrap();
    let saved = training.save_state("here").unwrap().result().unwrap();
    training.optim_step(&adam()).unwrap().result().unwrap();
    assert_eq!(problem(&data), ForwardProblem::WeightsChanged { by: 6 });
    training.load_state(&saved.path).unwrap().result().unwrap();
    assert_eq!(problem(&data), ForwardProblem::WeightsChanged { by: 7 });
    let error = training.forward_backward_custom_after(&forward, &data, sum).unwrap_err();
    let words = "the forward pass (request 1) cannot be used again: request 7 has changed the weights since; make a new one";
    assert!(error.to_string().starts_with(words), "{error}");
}
