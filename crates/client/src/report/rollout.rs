use serde::Serialize;
use tinsmith_wire::{Data, Datum, TensorData};

/// How far the model is from the policy that sampled the tokens: the logprobs of the first pass
/// against the data's own input `logprobs`. With the ratio `r = exp(new - old)`, the importance
/// ratio of a policy gradient, `k1` and `k3` are Schulman's estimators of the divergence of the
/// sampling policy from the model (<http://joschu.net/blog/kl-approx.html>): `k1` is unbiased and
/// may be negative, `k3` is never negative and varies less.
///
/// A token counts unless one of the inputs `mask`, `weights` and `advantages` of its datum is 0
/// there; those among them that have another shape than the logprobs have no say.
///
/// ```
/// use tinsmith_client::{Datum, Loss, ModelInput, check_loss_at};
/// let data = [Datum::new(ModelInput::from_tokens(vec![1, 2, 3]))
///     .with("target_tokens", vec![2i64, 3, 4])
///     .with("logprobs", vec![0.0f32, -1.0, -2.0])
///     .with("mask", vec![0.0f32, 1.0, 1.0])];
/// // Of the two tokens that count, the second is twice as likely as it was.
/// let now = [vec![-3.0f32, -1.0, -2.0 + 2f32.ln()].into()];
/// let check = check_loss_at(&data, &now, |batch| Ok(Loss::new(-batch.logprobs().sum())))?;
/// let gap = check.report.rollout.unwrap();
/// assert_eq!(gap.tokens, 2);
/// assert!((gap.max_ratio - 2.0).abs() < 1e-6 && (gap.mean_ratio - 1.5).abs() < 1e-6);
/// assert!((gap.k1 + 2f64.ln() / 2.0).abs() < 1e-6);
/// assert_eq!(gap.outside, 0.5);
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RolloutGap {
    /// Tokens that count.
    pub tokens: usize,
    /// Mean of `r`.
    pub mean_ratio: f64,
    /// Greatest `r`.
    pub max_ratio: f64,
    /// Mean of `old - new`, in nats.
    pub k1: f64,
    /// Mean of `r - 1 - (new - old)`, in nats.
    pub k3: f64,
    /// Share of tokens whose `r` is not in `[0.8, 1.2]`, which PPO clips at its usual range.
    pub outside: f64,
}

/// What takes tokens out.
const MASKS: [&str; 3] = ["mask", "weights", "advantages"];

impl RolloutGap {
    /// More than this is a [`Warning`](super::Warning): far from what rounding makes between a
    /// sampler and a trainer, and near to where clipping sets in.
    pub(crate) const CONSPICUOUS: f64 = 0.05;

    /// Whether it is more than rounding and a step or two explain.
    pub(crate) fn is_conspicuous(&self) -> bool {
        !self.k3.is_finite() || self.k3 > Self::CONSPICUOUS
    }

    /// `new[i]` are the model's logprobs of datum i. None unless a datum has such an input in their
    /// shape, and a token that counts.
    pub(crate) fn of(data: &[Datum], new: &[TensorData]) -> Option<Self> {
        let mut sums = Sums::default();
        for (datum, new) in data.iter().zip(new) {
            sums.add_datum(datum, new);
        }
        let count = sums.tokens as f64;
        (sums.tokens > 0).then(|| RolloutGap {
            tokens: sums.tokens,
            mean_ratio: sums.ratio / count,
            // A NaN shows in the sum alone.
            max_ratio: if sums.ratio.is_nan() { sums.ratio } else { sums.max_ratio },
            k1: -sums.log_ratio / count,
            k3: sums.k3 / count,
            outside: sums.outside as f64 / count,
        })
    }
}

#[derive(Default)]
struct Sums {
    tokens: usize,
    ratio: f64,
    max_ratio: f64,
    log_ratio: f64,
    k3: f64,
    outside: usize,
}

impl Sums {
    fn add_datum(&mut self, datum: &Datum, new: &TensorData) {
        let like = |name: &str| datum.input(name).filter(|tensor| tensor.shape() == new.shape());
        let old = like("logprobs").and_then(|old| old.to_dense().ok());
        let masks = MASKS.map(|name| like(name).and_then(|mask| mask.to_dense().ok()));
        let (Some(new), Some(old)) = (new.as_f32(), old.as_ref().and_then(|old| old.as_f32()))
        else {
            return;
        };
        let is_masked = |i: usize| {
            masks.iter().flatten().any(|mask| match mask.data() {
                Data::F32(mask) => mask[i] == 0.0,
                Data::I64(mask) => mask[i] == 0,
            })
        };
        for (i, (&new, &old)) in new.iter().zip(old).enumerate() {
            if !is_masked(i) {
                self.add(f64::from(new) - f64::from(old));
            }
        }
    }

    fn add(&mut self, log_ratio: f64) {
        let ratio = log_ratio.exp();
        self.tokens += 1;
        self.ratio += ratio;
        self.max_ratio = self.max_ratio.max(ratio);
        self.log_ratio += log_ratio;
        // Rounding may make it negative, and `f64::max` would pass over NaN.
        let k3 = log_ratio.exp_m1() - log_ratio;
        self.k3 += if k3 < 0.0 { 0.0 } else { k3 };
        self.outside += usize::from(!(0.8..=1.2).contains(&ratio));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tinsmith_wire::ModelInput;

    use super::*;

    fn datum(old: Vec<f32>) -> Datum {
        Datum::new(ModelInput::from_tokens(vec![1; old.len()])).with("logprobs", old)
    }

    #[test]
    fn only_tokens_that_train_count() {
        let data = datum(vec![0.0, -1.0, -2.0, -3.0])
            .with("mask", vec![0i64, 1, 1, 1])
            .with("weights", vec![1.0f32, 1.0, 0.0, 1.0])
            .with("advantages", vec![0.5f32]); // for the sequence, so it has no say
        let new = [vec![9.0f32, -1.0, 9.0, -3.5].into()];
        let gap = RolloutGap::of(&[data], &new).unwrap();
        let ratio = (-0.5f64).exp();
        assert_eq!((gap.tokens, gap.max_ratio, gap.k1, gap.outside), (2, 1.0, 0.25, 0.5));
        assert!((gap.mean_ratio - (1.0 + ratio) / 2.0).abs() < 1e-15);
        assert!((gap.k3 - (ratio - 1.0 + 0.5) / 2.0).abs() < 1e-15);
        assert!(gap.is_conspicuous()); // 0.053
    }

    #[test]
    fn without_logprobs_of_that_shape_or_tokens_there_is_none() {
        let new = [TensorData::from(vec![-1.0f32, -2.0])];
        assert_eq!(RolloutGap::of(&[datum(vec![-1.0])], &new), None);
        let none = Datum::new(ModelInput::from_tokens(vec![1, 2]));
        assert_eq!(RolloutGap::of(std::slice::from_ref(&none), &new), None);
        let masked = datum(vec![-1.0, -2.0]).with("advantages", vec![0.0f32; 2]);
        assert_eq!(RolloutGap::of(&[masked], &new), None);
        // A datum without them is left out, and the others count.
        let new = [new[0].clone(), new[0].clone()];
        let gap = RolloutGap::of(&[none, datum(vec![-1.0, -2.0])], &new).unwrap();
        assert_eq!((gap.tokens, gap.k3, gap.mean_ratio), (2, 0.0, 1.0));
    }

    #[test]
    fn what_is_not_finite_is_conspicuous() {
        for (old, new) in [(f32::NAN, -1.0), (f32::NEG_INFINITY, -1.0), (-1.0, f32::NEG_INFINITY)] {
            let gap = RolloutGap::of(&[datum(vec![old, -1.0])], &[vec![new, -1.0].into()]);
            let gap = gap.unwrap();
            assert!(gap.is_conspicuous(), "{gap:?}");
            assert_eq!(gap.max_ratio.is_nan(), old.is_nan());
        }
    }

    proptest! {
        /// Shifting every logprob by c makes every ratio e^c.
        #[test]
        fn a_shift_is_found_in_closed_form(
            old in prop::collection::vec(-5f32..0.0, 1..40),
            shift in -2f32..2.0,
        ) {
            let new: Vec<f32> = old.iter().map(|old| old + shift).collect();
            let gap = RolloutGap::of(&[datum(old)], &[new.into()]).unwrap();
            let c = f64::from(shift);
            let near = |found: f64, expected: f64| (found - expected).abs() < 1e-5;
            prop_assert!(near(gap.mean_ratio, c.exp()) && near(gap.max_ratio, c.exp()), "{gap:?}");
            prop_assert!(near(gap.k1, -c) && near(gap.k3, c.exp() - 1.0 - c), "{gap:?}");
        }

        #[test]
        fn k3_is_never_negative_and_the_mean_never_above_the_greatest(
            pairs in prop::collection::vec((-20f32..0.0, -20f32..0.0), 1..40),
        ) {
            let (old, new): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let gap = RolloutGap::of(&[datum(old)], &[new.into()]).unwrap();
            prop_assert!(gap.k3 >= 0.0 && (0.0..=1.0).contains(&gap.outside));
            prop_assert!(gap.mean_ratio <= gap.max_ratio * (1.0 + 1e-12));
        }
    }
}
