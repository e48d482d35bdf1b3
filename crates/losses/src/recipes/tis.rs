use crate::config::config;

/// Log ratios beyond this are of no use and would overflow.
pub(super) const LOG_CAP: f64 = 20.0;

config! {
    /// The weight of truncated importance sampling, [`tis_weight`](super::tis_weight), which
    /// corrects for a sampler whose logprobs differ from the trainer's.
    pub struct TisConfig {
        /// The greatest weight.
        cap: f64 = 5.0,
        /// The log ratio is limited to plus and minus this; above 0.
        log_cap: f64 = LOG_CAP,
        /// Whether each token has its weight, or all tokens of a sequence their geometric mean.
        level: TisLevel = TisLevel::Token,
        /// If h, tokens whose ratio is outside of `1/h..=h` are left out (IcePop); at least 1, at
        /// token level only.
        icepop: Option<f64> = None,
    }
}

/// What the ratio of [`tis_weight`](super::tis_weight) is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TisLevel {
    /// Each token by itself.
    #[default]
    Token,
    /// The mean log ratio of a sequence's active tokens, for all of them.
    Sequence,
}
