use tinsmith_client::{Datum, Loss, LossCheck, Result, check_loss};

pub fn check(data: &[Datum]) -> Result<LossCheck> {
    check_loss(data, |batch| {
        let rewards = batch.input("token_rewards")?; // one for each token of prompt and answer
        Ok(Loss::new(-(batch.logprobs() * rewards).sum()))
    })
}
