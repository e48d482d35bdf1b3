use tinsmith_client::{Batch, Datum, Loss, ModelInput, TensorData, check_loss_at};

/// The loss where the first answer of a pair has gained 2 nats, and where the second has.
pub fn both_orders(loss: fn(&Batch) -> anyhow::Result<Loss>) -> tinsmith_client::Result<String> {
    let answer = Datum::new(ModelInput::from_tokens(vec![1]))
        .with("target_tokens", vec![2i64])
        .with("ref_logprobs", vec![-3f32]);
    let at = |chosen: f32, rejected: f32| {
        let logprobs = [chosen, rejected].map(|lp| TensorData::from(vec![lp]));
        check_loss_at(&[answer.clone(), answer.clone()], &logprobs, loss)
    };
    let (right, wrong) = (at(-1.0, -3.0)?.report.loss, at(-3.0, -1.0)?.report.loss);
    Ok(format!("chosen likelier: {right:.4}, rejected likelier: {wrong:.4}"))
}
