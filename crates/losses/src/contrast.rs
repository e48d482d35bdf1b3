use tinsmith_grad::{Ragged, Var};

use crate::aggregate::Reduction;
use crate::at_caller;
use crate::config::config;
use crate::inputs::{positive_finite, tokens};
use crate::masked::masked_mean_per_seq;

config! {
    /// Options of [`info_nce`].
    pub struct InfoNceConfig {
        /// What scores are divided by; above 0.
        temperature: f64 = 1.0,
        /// The mean or the sum over queries.
        reduction: Reduction = Reduction::Mean,
    }
}

/// InfoNCE on given scores: `-s₊/τ + ln Σ_k e^(s_k/τ)` per query, the likelihood of picking the
/// right candidate among those of the query.
///
/// A sequence is a query, its rows are the scores of its candidates, of any number: `scores` and
/// `positives` are `[candidates]` per query. `positives` is 1 at the right candidate; with several,
/// or with fractions, the loss is their weighted mean. Scores come from wherever two things are
/// compared; logprobs of answers are scores. Gradient:
/// `(softmax(s/τ) - positives/Σ positives)/(τ N)`. van den Oord et al., 2018 (arXiv:1807.03748).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let scores = ragged(&[vec![3f64.ln(), 0.0], vec![2.0, 2.0, 2.0, 2.0]]);
/// let positives = ragged(&[vec![1.0, 0.0], vec![0.0, 0.0, 1.0, 0.0]]);
/// let loss = tinsmith_losses::info_nce(&scores, &positives, &Default::default());
/// // the right ones have the probabilities 3/4 and 1/4
/// assert!((loss.item()? - ((4.0f64 / 3.0).ln() + 4f64.ln()) / 2.0).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn info_nce(scores: &Ragged, positives: &Ragged, config: &InfoNceConfig) -> Var {
    at_caller! {
        tokens!("info_nce"; scores, positives);
        let temperature = match positive_finite("info_nce", "temperature", config.temperature) {
            Ok(temperature) => temperature,
            Err(error) => return error.into(),
        };
        let log_p = (scores / temperature).log_softmax_per_seq();
        config.reduction.apply(&-masked_mean_per_seq(&log_p, positives))
    }
}
