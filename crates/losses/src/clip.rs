use tinsmith_grad::Error;

use crate::inputs::out_of_range;

/// The range that an importance ratio is clipped to.
///
/// Sources give it as ratios (0.8 and 1.2) or as distances from 1 (ε = 0.2); here the name of the
/// constructor says which is meant. A range that does not contain 1, the ratio of a policy that has
/// not moved, would cut off every gradient: a loss that is given one is an error.
///
/// ```
/// use tinsmith_losses::Clip;
///
/// assert_eq!(Clip::eps(0.25), Clip::ratio(0.75, 1.25));
/// assert_eq!(Clip::eps_low_high(0.25, 0.5), Clip::ratio(0.75, 1.5));
/// assert_eq!(Clip::eps_low_high(1.0, 0.5).low(), 0.0); // 1 or more: no lower bound
/// assert_eq!(Clip::NONE.high(), f64::INFINITY);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    low: f64,
    high: f64,
}

impl Clip {
    /// No bounds.
    pub const NONE: Clip = Clip::ratio(0.0, f64::INFINITY);

    /// To `low..=high`, which are ratios; 0 and infinity for no bound.
    pub const fn ratio(low: f64, high: f64) -> Clip {
        Clip { low, high }
    }

    /// To `1 - eps..=1 + eps`.
    pub const fn eps(eps: f64) -> Clip {
        Clip::eps_low_high(eps, eps)
    }

    /// To `1 - low..=1 + high`.
    pub const fn eps_low_high(low: f64, high: f64) -> Clip {
        let low = if low >= 1.0 { 0.0 } else { 1.0 - low };
        Clip::ratio(low, 1.0 + high)
    }

    /// The lower bound, a ratio.
    pub const fn low(self) -> f64 {
        self.low
    }

    /// The upper bound, a ratio.
    pub const fn high(self) -> f64 {
        self.high
    }

    /// The bounds of the log ratio.
    #[track_caller]
    pub(crate) fn log_bounds(self, op: &'static str) -> Result<(f64, f64), Error> {
        let Clip { low, high } = self;
        // NaN fails both comparisons.
        if (0.0..=1.0).contains(&low) && high >= 1.0 {
            return Ok((low.ln(), high.ln()));
        }
        let why = format!(
            "an importance ratio cannot be clipped to {low}..={high}: the range must contain 1 and \
             begin at 0 or more; Clip::ratio takes ratios, Clip::eps distances from 1"
        );
        Err(out_of_range(op, why))
    }
}
