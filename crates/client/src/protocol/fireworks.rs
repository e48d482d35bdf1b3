//! What Fireworks leaves to its clients, and how its answers differ.

use tinsmith_wire::{Data, Datum, Metrics};

const NAME: &str = "response_tokens";

/// The number of tokens that enter the cross entropy: those of weight other than 0, or all when
/// there are no weights.
pub(crate) fn response_tokens(data: &[Datum]) -> usize {
    let of = |datum: &Datum| match datum.input("weights").map(|weights| weights.data()) {
        Some(Data::F32(weights)) => weights.iter().filter(|&&w| w != 0.0).count(),
        _ => datum.input("target_tokens").map_or(0, |targets| targets.elem_count()),
    };
    data.iter().map(of).sum()
}

/// Adds the number of tokens to the metrics, unless the server has done so: `loss:sum` over it is
/// the mean loss.
pub(crate) fn complete(metrics: &mut Metrics, tokens: Option<usize>) {
    if let Some(tokens) = tokens
        && metrics.get(NAME).is_none()
    {
        metrics.insert(NAME, tokens as f64);
    }
}

/// Whether a conflict (409) may pass: while there is no capacity or a trainer recovers, not when
/// another request has the same id.
pub(crate) fn may_conflict_pass(conflict: &[u8]) -> bool {
    let words = String::from_utf8_lossy(conflict).to_ascii_lowercase();
    words.trim().is_empty() || ["capacity", "recover"].iter().any(|it| words.contains(it))
}

#[cfg(test)]
mod tests {
    use tinsmith_wire::ModelInput;

    use super::*;

    #[test]
    fn tokens_count_when_they_have_weight_and_the_servers_own_count_stays() {
        let datum = Datum::new(ModelInput::from_tokens(vec![1, 2, 3]))
            .with("target_tokens", vec![2i64, 3, 4]);
        let weighted = datum.clone().with("weights", vec![0.0f32, 0.5, -1.0]);
        assert_eq!(response_tokens(&[datum, weighted]), 3 + 2);
        let mut metrics = Metrics::default();
        complete(&mut metrics, Some(5));
        complete(&mut metrics, Some(6));
        assert_eq!(metrics["response_tokens"], 5.0);
    }
}
