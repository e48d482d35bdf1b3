//! What the examples of the guide are tried on. Its pages are doc tests of this crate.

use tinsmith_client::{Batch, Datum, Loss, LossCheck, ModelInput, Result, TensorData, check_loss};

/// Tries a loss on two pairs of sequences with every input that the guide's examples ask for.
///
/// # Errors
/// As [`check_loss`].
#[track_caller]
pub fn check(loss: impl Fn(&Batch) -> anyhow::Result<Loss>) -> Result<LossCheck> {
    check_loss(&[4, 3, 5, 2].map(sequence), loss)
}

/// Tries a loss on two sequences whose positions have three targets each.
///
/// # Errors
/// As [`check_loss`].
#[track_caller]
pub fn check_topk(loss: impl Fn(&Batch) -> anyhow::Result<Loss>) -> Result<LossCheck> {
    check_loss(&[2, 3].map(topk), loss)
}

/// `n` tokens, of which the first is a prompt's where there are more than two.
fn sequence(n: usize) -> Datum {
    let each = |f: fn(f32) -> f32| (0..n).map(|t| f((t + n) as f32)).collect::<Vec<f32>>();
    let mut answer = vec![1f32; n];
    answer[0] = if n > 2 { 0.0 } else { 1.0 };
    let advantage = if n.is_multiple_of(2) { 0.5 } else { -1.0 };
    let advantages: Vec<f32> = answer.iter().map(|w| w * advantage).collect();
    Datum::new(ModelInput::from_tokens(vec![1; n]))
        .with("target_tokens", vec![2i64; n])
        .with("weights", answer)
        .with("logprobs", each(|t| -0.3 * t))
        .with("ref_logprobs", each(|t| -0.25 * t - 0.2))
        .with("teacher_logprobs", each(|t| -0.2 * t - 0.1))
        .with("paired_logprobs", each(|t| -0.35 * t))
        .with("advantages", advantages)
        .with("advantage", vec![advantage])
        .with("desirable", vec![(n % 2) as f32])
        .with("mismatched_log_ratio", vec![0.25f32])
}

fn topk(n: usize) -> Datum {
    let table = |row: [f32; 3]| {
        let values: Vec<f32> = (0..n).flat_map(|_| row).collect();
        TensorData::new(values, &[n, 3]).expect("n rows of three are [n, 3]")
    };
    let targets = TensorData::new(vec![2i64; 3 * n], &[n, 3]).expect("n rows of three are [n, 3]");
    Datum::new(ModelInput::from_tokens(vec![1; n]))
        .with("target_tokens", targets)
        .with("teacher", table([0.5, 0.3, 0.2]))
        .with("choice", table([0.0, 1.0, 0.0]))
        .with("ref_logprobs", table([-0.7, -1.2, -1.6]))
        .with("weights", table([1.0, 1.0, 1.0]))
        .with("answer", vec![1f32; n])
}

/// A result that nobody looks at is a warning when the program is compiled: a step that failed
/// would go unseen.
///
/// ```
/// #![deny(unused_must_use)]
/// fn step(training: &tinsmith_client::TrainingClient, data: &[tinsmith_client::Datum]) -> tinsmith_client::Result<()> {
///     training.forward_backward(data, tinsmith_client::LossFn::CrossEntropy, None)?.result()?;
///     Ok(())
/// }
/// ```
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// fn step(training: &tinsmith_client::TrainingClient, data: &[tinsmith_client::Datum]) -> tinsmith_client::Result<()> {
///     training.forward_backward(data, tinsmith_client::LossFn::CrossEntropy, None)?;
///     Ok(())
/// }
/// ```
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// use tinsmith_client::{Datum, Loss, TrainingClient};
/// fn step(training: &TrainingClient, data: &[Datum]) -> tinsmith_client::Result<()> {
///     training.forward_backward_custom(data, |batch| Ok(Loss::new(batch.logprobs().sum())))?;
///     Ok(())
/// }
/// ```
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// use tinsmith_client::{Batch, Loss};
/// fn forgets_its_metric(batch: &Batch) -> Loss {
///     let loss = Loss::new(batch.logprobs().sum());
///     loss.clone().metric("mean", batch.logprobs().mean());
///     loss
/// }
/// ```
#[cfg(doctest)]
pub struct ForgottenResults;

/// The pages.
#[cfg(doctest)]
mod pages {
    macro_rules! pages {
        ($($name:ident = $path:literal;)*) => {
            $(
                #[doc = include_str!(concat!("../../docs/src/", $path, ".md"))]
                pub struct $name;
            )*
        };
    }

    pages! {
        GettingStarted = "getting-started";
        TwoPasses = "two-passes";
        WritingALoss = "writing-a-loss";
        WhichLoss = "losses/index";
        CrossEntropy = "losses/cross-entropy";
        Policy = "losses/policy";
        Recipes = "losses/recipes";
        Preference = "losses/preference";
        Kl = "losses/kl";
        Distillation = "losses/distillation";
        Choice = "losses/choice";
        Regularizers = "losses/regularizers";
        Aggregation = "losses/aggregation";
        Advantages = "losses/advantages";
        StepReport = "step-report";
        WhenTrainingGoesWrong = "when-training-goes-wrong";
        Servers = "servers";
        Networks = "networks";
        Offline = "offline";
    }
}
