use tinsmith_client::{Batch, Loss};

pub fn loss(batch: &Batch) -> anyhow::Result<Loss> {
    let p = batch.logprobs().exp();
    let unlikely = -(1.0 - p).log(); // infinite where p is 1
    Ok(Loss::new((unlikely * batch.input("weights")?).sum()))
}
