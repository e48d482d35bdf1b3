use std::{array::from_fn, f32::consts::LOG2_E, sync::Arc};

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
        (sums.tokens > 0.0).then(|| RolloutGap {
            tokens: sums.tokens as usize,
            mean_ratio: sums.ratio / sums.tokens,
            // A NaN shows in the sum alone.
            max_ratio: if sums.ratio.is_nan() { sums.ratio } else { sums.max_ratio },
            k1: -sums.log_ratio / sums.tokens,
            k3: sums.k3 / sums.tokens,
            outside: sums.outside / sums.tokens,
        })
    }
}

#[derive(Default)]
struct Sums {
    tokens: f64,
    ratio: f64,
    max_ratio: f64,
    log_ratio: f64,
    k3: f64,
    outside: f64,
}

impl Sums {
    fn add_datum(&mut self, datum: &Datum, new: &TensorData) {
        let like = |name: &str| datum.input(name).filter(|tensor| tensor.shape() == new.shape());
        let old = like("logprobs").and_then(|old| old.to_dense().ok());
        let (Some(new), Some(old)) = (new.as_f32(), old.as_ref().and_then(|old| old.as_f32()))
        else {
            return;
        };
        let masks = MASKS.map(|name| like(name).and_then(numbers));
        let masks: Vec<&[f32]> = masks.iter().flatten().map(|mask| &**mask).collect();
        match masks[..] {
            [] => self.add(new, old, []),
            [a] => self.add(new, old, [a]),
            [a, b] => self.add(new, old, [a, b]),
            [a, b, c, ..] => self.add(new, old, [a, b, c]),
        }
    }

    fn add<const N: usize>(&mut self, new: &[f32], old: &[f32], masks: [&[f32]; N]) {
        let (new, rest_of_new) = new.as_chunks::<LANES>();
        let (old, rest_of_old) = old.as_chunks::<LANES>();
        let masks = masks.map(|mask| mask.as_chunks::<LANES>());
        let mut lanes = Lanes::default();
        for (i, (new, old)) in new.iter().zip(old).enumerate() {
            lanes.add(new, old, masks.map(|(mask, _)| &mask[i]), LANES);
        }
        let padded = |rest: &[f32]| {
            let mut lanes = [0.0; LANES];
            lanes[..rest.len()].copy_from_slice(rest);
            lanes
        };
        let rest = masks.map(|(_, mask)| padded(mask));
        let count = rest_of_new.len();
        lanes.add(&padded(rest_of_new), &padded(rest_of_old), rest.each_ref(), count);
        self.tokens += sum(lanes.tokens);
        self.ratio += sum(lanes.ratio);
        self.max_ratio = lanes.max_ratio.iter().fold(self.max_ratio, |a, &b| a.max(f64::from(b)));
        self.log_ratio += sum(lanes.log_ratio);
        self.k3 += sum(lanes.k3);
        self.outside += sum(lanes.outside);
    }
}

/// None for what cannot be read, which then masks nothing.
fn numbers(mask: &TensorData) -> Option<Arc<[f32]>> {
    Some(match mask.to_dense().ok()?.data() {
        Data::F32(values) => values.clone(),
        Data::I64(values) => values.iter().map(|&x| x as f32).collect(),
    })
}

const LANES: usize = 8;

/// Sums in lanes that do not wait for one another. Each line below is a loop of its own, which the
/// compiler turns into vector instructions; in one loop it does not.
#[derive(Default)]
struct Lanes {
    tokens: [f64; LANES],
    ratio: [f64; LANES],
    max_ratio: [f32; LANES],
    log_ratio: [f64; LANES],
    k3: [f64; LANES],
    outside: [f64; LANES],
}

impl Lanes {
    /// Of these only the first `count` are tokens.
    #[inline(always)]
    fn add<const N: usize>(
        &mut self,
        new: &[f32; LANES],
        old: &[f32; LANES],
        masks: [&[f32; LANES]; N],
        count: usize,
    ) {
        let mut on: [f32; LANES] = from_fn(|i| if i < count { 1.0 } else { 0.0 });
        for mask in masks {
            on = from_fn(|i| if mask[i] != 0.0 { on[i] } else { 0.0 });
        }
        // A token that is off has the ratio 1 until it is taken out.
        let log_ratio: [f32; LANES] = from_fn(|i| if on[i] != 0.0 { new[i] - old[i] } else { 0.0 });
        let both = log_ratio.map(ratio_and_k3);
        let ratio: [f32; LANES] = from_fn(|i| if on[i] != 0.0 { both[i].0 } else { 0.0 });
        let outside: [f32; LANES] =
            from_fn(|i| if (ratio[i] < 0.8) | (ratio[i] > 1.2) { on[i] } else { 0.0 });
        add(&mut self.tokens, on);
        add(&mut self.ratio, ratio);
        self.max_ratio =
            from_fn(|i| if ratio[i] > self.max_ratio[i] { ratio[i] } else { self.max_ratio[i] });
        add(&mut self.log_ratio, log_ratio);
        add(&mut self.k3, both.map(|(_, k3)| k3));
        add(&mut self.outside, outside);
    }
}

#[inline(always)]
fn add(sums: &mut [f64; LANES], terms: [f32; LANES]) {
    for (sum, term) in sums.iter_mut().zip(terms) {
        *sum += f64::from(term);
    }
}

fn sum(lanes: [f64; LANES]) -> f64 {
    lanes.iter().sum()
}

/// `exp(x)` and `exp(x) - 1 - x`, to a few ulp in f32, without a branch. The standard library's
/// `exp` takes six times as long, more than all else that a step does to a token.
///
/// With `n` the nearest integer to `x / ln 2` and `r = x - n ln 2` it is `2^n (1 + r + q(r))`, `q`
/// by its Taylor series; and near 0, where a difference would leave only rounding, k3 is `q`
/// itself.
#[inline(always)]
fn ratio_and_k3(x: f32) -> (f32, f32) {
    // Adding 1.5 * 2^23 leaves an integer in the last bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2, of which the first part times a small integer is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // Beyond these 2^n is 0 or infinite. A NaN passes.
    let near = if x < -87.0 { -87.0 } else { x };
    let near = if near > 89.0 { 89.0 } else { near };
    let n = (near * LOG2_E + ROUND) - ROUND;
    let r = near - n * LN_2[0] - n * LN_2[1];
    let tail = 1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5_040.0)));
    let q = r * r * (0.5 + r * (1.0 / 6.0 + r * tail));
    let power = f32::from_bits((n + (ROUND + 127.0)).to_bits() << 23);
    let ratio = power * (1.0 + (r + q));
    (ratio, if n == 0.0 { q } else { ratio - 1.0 - x })
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
        assert!((gap.mean_ratio - (1.0 + ratio) / 2.0).abs() < 1e-7);
        assert!((gap.k3 - (ratio - 1.0 + 0.5) / 2.0).abs() < 1e-7);
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

    /// Against the standard library's in f64.
    #[test]
    fn ratios_and_k3_are_right_to_a_few_ulp_of_f32() {
        for i in -8_000..=8_000 {
            let x = i as f32 * 0.01;
            let (ratio, k3) = ratio_and_k3(x);
            let (x, ratio, k3) = (f64::from(x), f64::from(ratio), f64::from(k3));
            assert!((ratio / x.exp() - 1.0).abs() < 4e-7, "exp({x}) = {ratio}");
            let error = (k3 - (x.exp_m1() - x)).abs();
            assert!(error <= 4e-7 * (1.0 + x.abs() + x.exp()), "k3({x}) = {k3}");
            if x.abs() < 0.3 && x != 0.0 {
                let exact = x.exp_m1() - x;
                assert!((k3 / exact - 1.0).abs() < 1e-6, "k3({x}) = {k3}, not {exact}");
            }
        }
        assert_eq!(ratio_and_k3(0.0), (1.0, 0.0));
        assert_eq!(ratio_and_k3(f32::INFINITY).0, f32::INFINITY);
        assert_eq!(ratio_and_k3(f32::NEG_INFINITY).1, f32::INFINITY);
        assert!(ratio_and_k3(f32::NAN).0.is_nan() && ratio_and_k3(f32::NAN).1.is_nan());
    }

    #[test]
    fn every_token_counts_once_however_many_there_are() {
        for n in [1usize, 7, 8, 9, 16, 100] {
            let old: Vec<f32> = (0..n).map(|i| -(i as f32)).collect();
            let new: Vec<f32> = old.iter().map(|lp| lp + 0.5).collect();
            let masked =
                datum(old).with("mask", (0..n).map(|i| (i % 2) as f32).collect::<Vec<_>>());
            let found =
                RolloutGap::of(&[masked.clone(), masked], &[new.clone().into(), new.into()]);
            let found = found.map(|gap| (gap.tokens, gap.k1, gap.outside));
            assert_eq!(found, (n > 1).then_some((n / 2 * 2, -0.5, 1.0)), "{n}");
        }
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
