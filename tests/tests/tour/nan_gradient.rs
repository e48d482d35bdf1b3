use tinsmith_client::{Batch, Loss};

pub fn loss(batch: &Batch) -> anyhow::Result<Loss> {
    let answer = batch.input("weights")?.gt(0.0);
    let p = batch.logprobs().exp();
    let unlikely = -(1.0 - p).log();
    Ok(Loss::new(answer.where_(unlikely, 0.0).sum()))
}
