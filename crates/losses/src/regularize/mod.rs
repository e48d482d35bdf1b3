//! Terms that are added to a loss to hold the logprobs back: `loss + 0.01 * regularize::l2(&lp)`.
//!
//! Terms over elements reduce over all elements of all sequences; terms over rows (distributions)
//! over all rows. A row is the K values of one position where `lp` is `[tokens, K]`, and a whole
//! sequence where it is `[tokens]`.

mod distribution;
mod gradient_penalty;
mod magnitude;
mod orthogonality;

pub use distribution::{
    ConsistencyConfig, ConsistencyMetric, EntropyConfig, EntropyMode, KlDirection,
    KlDivergenceConfig, consistency, entropy, jensen_shannon, kl_divergence,
};
pub use gradient_penalty::gradient_penalty;
pub use magnitude::{
    Center, ElasticNetConfig, L1Config, L2Config, MagnitudeTarget, OutputMagnitudeConfig,
    elastic_net, l1, l1_with, l2, l2_with, output_magnitude,
};
pub use orthogonality::{GramAxis, GramMode, OrthogonalityConfig, orthogonality};
