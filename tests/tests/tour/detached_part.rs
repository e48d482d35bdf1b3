use tinsmith_client::{Datum, Loss, LossCheck, Result, TensorData, check_loss_at};

pub fn check(data: &[Datum], logprobs: &[TensorData]) -> Result<LossCheck> {
    check_loss_at(data, logprobs, |batch| {
        let distance = batch.logprobs() - batch.input("logprobs")?;
        let squared = &distance * distance.detach(); // meant as a square
        Ok(Loss::new((squared * batch.input("weights")?).sum()))
    })
}
