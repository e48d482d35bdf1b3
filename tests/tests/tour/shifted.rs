use tinsmith_client::{Batch, Loss, losses};

pub fn loss(batch: &Batch) -> anyhow::Result<Loss> {
    let (lp, old) = (batch.logprobs(), batch.input("logprobs")?);
    let (advantages, weights) = (batch.input("advantages")?, batch.input("weights")?);
    let mean = |x| losses::aggregate(x, &weights, losses::Aggregation::TokenMean);
    let ppo = losses::ppo(&lp, &old, &advantages, &Default::default());
    Ok(Loss::new(ppo)
        .metric("kl", mean(&losses::kl_k2(&lp, &old)))
        .metric("clipped", mean(&losses::clipped(&lp, &old, losses::Clip::eps(0.2)))))
}
