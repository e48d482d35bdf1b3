use tinsmith_client::{Batch, Loss, losses};

pub fn loss(batch: &Batch) -> anyhow::Result<Loss> {
    let (lp, weights) = (batch.logprobs(), batch.input("weights")?);
    let moved = losses::kl_k2(&lp, &batch.input("logprobs")?);
    Ok(Loss::new(losses::token_mean_cross_entropy(&lp, &weights))
        .regularize("kl", 0.125, moved.mean())
        .metric("nll", losses::mean_nll(&lp, &weights))
        .gradient_norms())
}
