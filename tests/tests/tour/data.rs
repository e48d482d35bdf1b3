use tinsmith_client::{Datum, ModelInput, TensorData};

/// Two sampled answers: three tokens after a prompt of two, and two tokens after a prompt of one.
pub fn data() -> [Datum; 2] {
    [
        Datum::new(ModelInput::from_tokens(vec![11, 12, 21, 22]))
            .with("target_tokens", vec![12i64, 21, 22, 23])
            .with("weights", vec![0f32, 1.0, 1.0, 1.0])
            .with("logprobs", vec![0f32, -1.0, -2.0, -0.5]) // as the sampler gave them
            .with("advantages", vec![0f32, 1.0, 1.0, 1.0]),
        Datum::new(ModelInput::from_tokens(vec![31, 41]))
            .with("target_tokens", vec![41i64, 42])
            .with("weights", vec![1f32, 1.0])
            .with("logprobs", vec![-1.5f32, -0.25])
            .with("advantages", vec![-1f32, -1.0]),
    ]
}

/// What the model gives the target tokens at the first step: on the answers, what the sampler gave
/// them.
pub fn logprobs() -> [TensorData; 2] {
    [vec![-3f32, -1.0, -2.0, -0.5].into(), vec![-1.5f32, -0.25].into()]
}
