//! Frequencies of the rotary embedding, and their stretching for contexts longer than those of
//! pretraining.

use std::f64::consts::TAU;

use super::config::{ModelConfig, RopeScaling};

impl RopeScaling {
    fn apply(self, frequency: f64) -> f64 {
        match self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: context,
            } => {
                let turns = context * frequency / TAU;
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                frequency * (kept + (1.0 - kept) / factor)
            }
        }
    }
}

/// The `head_dim / 2` angles by which one position turns: `theta^(-2i / head_dim)`, scaled.
pub(crate) fn frequencies(config: &ModelConfig) -> Vec<f64> {
    let half = config.head_dim / 2;
    (0..half)
        .map(|i| config.rope_scaling.apply(config.rope_theta.powf(-(i as f64) / half as f64)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_fast_frequencies_divides_slow_ones_and_blends_between() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        };
        let per_context = |turns: f64| TAU * turns / 8192.0;
        assert_eq!(scaling.apply(per_context(5.0)), per_context(5.0));
        assert_eq!(scaling.apply(per_context(0.5)), per_context(0.5) / 8.0);
        // Half way between 1 and 4 turns: the mean of 1 and 1/8.
        let middle = scaling.apply(per_context(2.5)) / per_context(2.5);
        assert!((middle - 0.5625).abs() < 1e-12, "{middle}");
    }
}
