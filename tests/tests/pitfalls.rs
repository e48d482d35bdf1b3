//! The mistakes that the documentation of custom losses warns of: each is an error or a warning
//! here.

use tinsmith_client::{
    Batch, Datum, Error, Loss, ModelInput, OptimStep, StepOutput, Warning, check_loss, losses,
};
use tinsmith_tests::{adam, data, train};
use tinsmith_trainer::Trainer;

/// The error of a step that must not have sent its second pass.
fn refused(data: &[Datum], loss: impl Fn(&Batch) -> anyhow::Result<Loss>) -> Error {
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    let error = training.forward_backward_custom(data, loss).unwrap_err();
    let received = trainer.stats(training.model_id()).unwrap().received;
    assert_eq!(received.forward_backward, 0, "{error}");
    error
}

fn cross_entropy(batch: &Batch) -> anyhow::Result<Loss> {
    let (lp, weights) = (batch.logprobs(), batch.input("weights")?);
    Ok(Loss::new(losses::cross_entropy(&lp, &weights)))
}

#[test]
fn weights_for_all_tokens_instead_of_all_targets() {
    // Four tokens make three targets.
    let datum = Datum::new(ModelInput::from_tokens(vec![1, 2, 3]))
        .with("target_tokens", vec![2i64, 3, 4])
        .with("weights", vec![0f32, 1.0, 1.0, 1.0]);
    let error = refused(&[datum], cross_entropy);
    let expected = "datum 0: `weights` has shape [4], it must be [3], as target_tokens";
    assert_eq!(error.to_string(), expected);

    // Built from the full sequence they are for all tokens, and then none may be missing.
    let error = Datum::from_tokens_and_weights(&[1, 2, 3, 4], &[0.0, 1.0, 1.0]).unwrap_err();
    assert!(error.to_string().contains("3 weights for 4 tokens"), "{error}");
}

#[test]
fn targets_that_were_not_shifted() {
    let datum = Datum::new(ModelInput::from_tokens(vec![1, 2, 3]))
        .with("target_tokens", vec![1i64, 2, 3, 4]);
    let error = refused(&[datum], |batch| Ok(Loss::new(batch.logprobs().sum())));
    assert!(
        error
            .to_string()
            .starts_with("datum 0: `target_tokens` has shape [4], it must be [3] or [3, K]"),
        "{error}"
    );
}

/// The loss is computed on numbers that were taken out of the graph.
#[test]
fn a_loss_that_cannot_be_differentiated() {
    let of_numbers = |batch: &Batch| {
        let numbers = batch.logprobs().values().to_vec::<f32>()?;
        let loss = -numbers.iter().sum::<f32>();
        Ok(Loss::new(tinsmith_client::grad::Var::scalar(loss.into())))
    };
    let error = refused(&data(), of_numbers);
    assert!(matches!(&error, Error::UnusedData { data, .. } if *data == [0, 1, 2, 3]), "{error}");

    // A comparison has a value and no derivative.
    let step_function = |batch: &Batch| {
        let lp = batch.logprobs();
        Ok(Loss::new(lp.gt(-1.0).map(|x| x.to_dtype(lp.values().dtype())).sum()))
    };
    let error = refused(&data(), step_function);
    assert!(matches!(&error, Error::UnusedData { .. }), "{error}");
}

#[test]
fn metrics_that_would_replace_the_loss() {
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    for name in ["loss:sum", "surrogate_loss:sum"] {
        let loss = |batch: &Batch| Ok(cross_entropy(batch)?.metric(name, 12_345.0));
        let step = training.forward_backward_custom(&data(), loss).unwrap();
        let StepOutput { output, report, .. } = step.result().unwrap();
        assert_eq!(report.warnings, [Warning::MetricReplaced(name)]);
        assert_ne!(output.metrics[name], 12_345.0);
    }
}

/// The result has the loss and the server's linear loss side by side; both are known here in closed
/// form.
#[test]
fn the_loss_and_the_servers_own_do_not_overwrite_each_other() {
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    let step = training
        .forward_backward_custom(&data(), |batch| Ok(Loss::new(batch.logprobs().square().sum())));
    let StepOutput { output, report, .. } = step.unwrap().result().unwrap();
    // The gradient of l² is 2l, so the linear loss is Σ 2l·l: twice the loss.
    let (loss, linear) = (output.metrics["loss:sum"], output.metrics["surrogate_loss:sum"]);
    assert_eq!(loss, report.loss);
    assert!((linear / loss - 2.0).abs() < 1e-5, "{linear} and {loss}");
}

#[test]
fn a_gradient_that_the_server_divides_once_more() {
    use tinsmith_client::GradAccumulationNormalization::{NumLossTokens, NumSequences};
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    let normalized = |batch: &Batch| Ok(cross_entropy(batch)?.normalize(NumLossTokens));
    let step = training.forward_backward_custom(&data(), normalized);
    step.unwrap().result().unwrap();
    let again = OptimStep::from(adam()).grad_accumulation_normalization(NumSequences);
    let error = training.optim_step_with(&again).unwrap_err();
    assert!(matches!(error, Error::NormalizedTwice { pass: 2 }), "{error}");
    let received = trainer.stats(training.model_id()).unwrap().received;
    assert_eq!(received.optim_step, 0);
}

/// Whether a loss is a mean cannot be seen from its value, so nothing refuses to divide it again;
/// the report shows a gradient that is too small by the number of tokens.
#[test]
fn a_mean_that_is_divided_again() {
    let datum = Datum::new(ModelInput::from_tokens(vec![1, 2, 3, 4]))
        .with("target_tokens", vec![2i64, 3, 4, 5])
        .with("weights", vec![1f32; 4]);
    let greatest = |divisor: f64| {
        let check = check_loss(std::slice::from_ref(&datum), |batch| {
            let (lp, weights) = (batch.logprobs(), batch.input("weights")?);
            Ok(Loss::new(losses::token_mean_cross_entropy(&lp, &weights) / divisor))
        });
        check.unwrap().report.gradient.max_abs
    };
    assert_eq!((greatest(1.0), greatest(4.0)), (0.25, 0.0625));
}
