//! Importance ratios, as logarithms until the last moment: `r = e^d` with `d = l - old`.

use tinsmith_grad::Ragged;

use crate::at_caller;
use crate::clip::Clip;
use crate::inputs::{out_of_range, positive, refused, tokens};
use crate::masked::{masked, masked_mean_per_seq, only};

/// Which tokens have an importance ratio out of bounds, as 1 and 0.
///
/// Its mean is the clip fraction that PPO runs are watched by; [`aggregate`](crate::aggregate)
/// averages it under a mask.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::{Clip, clipped};
///
/// let lp = ragged(&[vec![-0.5, -0.5], vec![-3.0, -1.0]]);
/// let old = ragged(&[vec![-0.6, -1.5], vec![-1.0, -1.0]]); // ratios 1.1, 2.7, 0.1, 1
/// let outside = clipped(&lp, &old, Clip::eps(0.2));
/// assert_eq!(outside.mean().item()?, 0.5);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn clipped(lp: &Ragged, old: &Ragged, clip: Clip) -> Ragged {
    at_caller! {
        tokens!("clipped"; lp, old);
        outside("clipped", &(lp - old), clip)
    }
}

#[track_caller]
pub(crate) fn outside(op: &'static str, log_ratio: &Ragged, clip: Clip) -> Ragged {
    match clip.log_bounds(op) {
        Ok((low, high)) => {
            let above = log_ratio.gt(high).to_dtype(log_ratio.values().dtype());
            log_ratio.lt(low).where_(1.0, above)
        }
        Err(error) => refused(log_ratio, error),
    }
}

/// The log ratio limited to plus and minus `cap`, beyond which it has no gradient.
#[track_caller]
pub(crate) fn capped(op: &'static str, log_ratio: Ragged, cap: Option<f64>) -> Ragged {
    let Some(cap) = cap else { return log_ratio };
    match positive(op, "ratio_log_cap", cap) {
        Ok(cap) => log_ratio.clamp(-cap, cap),
        Err(error) => refused(&log_ratio, error),
    }
}

/// `r·A` with `r = e^d`, 0 where `A` is 0 whatever `d` is.
#[track_caller]
pub(crate) fn weighted_ratio(log_ratio: &Ragged, advantages: &Ragged) -> Ragged {
    importance(&only(&advantages.ne(0.0), log_ratio)) * advantages
}

/// `sg(clip(r))·l·A` with `r = e^d`, 0 where `A` is 0 whatever `d` and `l` are.
#[track_caller]
pub(crate) fn clipped_importance(
    op: &'static str,
    log_ratio: &Ragged,
    lp: &Ragged,
    advantages: &Ragged,
    clip: Clip,
) -> Ragged {
    match clip.log_bounds(op) {
        Ok((low, high)) => {
            let log_ratio = only(&advantages.ne(0.0), &log_ratio.detach());
            importance(&log_ratio.clamp(low, high)) * masked(lp, advantages)
        }
        Err(error) => refused(lp, error),
    }
}

/// `min(r·A, clip(r)·A)` with `r = e^d`, at least `c·A` if `dual_clip` is c, and 0 where `A` is 0
/// whatever `d` is.
///
/// Limiting `d` before the exponential, on the one side that can be chosen, keeps `e^d` finite
/// wherever it is clipped; clipping `r` would multiply a gradient of 0 with an infinite ratio. A
/// gradient passes where the limit changes nothing, so a ratio on the bound keeps it; a NaN has
/// none, but stays NaN in the value.
#[track_caller]
pub(crate) fn clipped_surrogate(
    op: &'static str,
    log_ratio: &Ragged,
    advantages: &Ragged,
    clip: Clip,
    dual_clip: Option<f64>,
) -> Ragged {
    let (low, high) = match clip.log_bounds(op) {
        Ok(bounds) => bounds,
        Err(error) => return refused(log_ratio, error),
    };
    let d = log_ratio.detach();
    let if_bad = match dual_clip {
        None => d.maximum(low),
        Some(c) if c > 1.0 => d.maximum(low).minimum(c.ln()),
        Some(c) => {
            let why = format!("`dual_clip` is {c}; it is a ratio above 1");
            return refused(log_ratio, out_of_range(op, why));
        }
    };
    let if_bad = advantages.lt(0.0).where_(if_bad, 0.0);
    let limited = advantages.gt(0.0).where_(d.minimum(high), if_bad);
    importance(&limited.eq(&d).where_(log_ratio, limited)) * advantages
}

/// The mean over `weights` of `sg(l) - old`, on every token, with the gradient of that token's `l`.
#[track_caller]
pub(crate) fn sequence_log_ratio(lp: &Ragged, old: &Ragged, weights: &Ragged) -> Ragged {
    let fixed = lp.detach();
    let mean = masked_mean_per_seq(&(&fixed - old), weights);
    lp.expand(&mean) + (lp - fixed)
}

/// `e^d`, named so that a report of a value that is not finite points to it.
#[track_caller]
pub(crate) fn importance(log_ratio: &Ragged) -> Ragged {
    log_ratio.map(|log_ratio| log_ratio.exp().label("importance ratio"))
}
