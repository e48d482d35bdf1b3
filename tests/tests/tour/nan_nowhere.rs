use tinsmith_client::{Batch, Loss};

pub fn loss(batch: &Batch) -> anyhow::Result<Loss> {
    let answer = batch.input("weights")?.gt(0.0);
    let p = answer.where_(batch.logprobs().exp(), 0.0);
    Ok(Loss::new(-(1.0 - p).log().sum()))
}
