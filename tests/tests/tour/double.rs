use tinsmith_client::{Batch, Loss, losses};

pub fn loss(batch: &Batch) -> anyhow::Result<Loss> {
    let (lp, weights) = (batch.logprobs(), batch.input("weights")?);
    let loss = losses::token_mean_cross_entropy(&lp, &weights); // a mean over tokens already
    Ok(Loss::new(loss / weights.sum()).metric("nll", losses::mean_nll(&lp, &weights)))
}
