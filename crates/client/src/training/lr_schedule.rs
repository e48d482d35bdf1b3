//! The learning rate over a run.

use std::f64::consts::PI;

use crate::{Error, Result};

/// How the learning rate falls over a run.
///
/// ```
/// use tinsmith_client::LrSchedule;
///
/// assert_eq!(LrSchedule::Linear.multiplier(3, 4), 0.25);
/// assert_eq!(LrSchedule::Cosine.multiplier(0, 4), 1.0);
/// assert!((LrSchedule::Cosine.multiplier(2, 4) - 0.5).abs() < 1e-15);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LrSchedule {
    /// Not at all: `d(p) = 1`.
    Constant,
    /// In a straight line, to the floor after the last step: `d(p) = 1 - p`.
    #[default]
    Linear,
    /// Along half a cosine, to the floor after the last step: `d(p) = (1 + cos(pi p)) / 2`
    /// (Loshchilov & Hutter, 2017, <https://arxiv.org/abs/1608.03983>, without restarts).
    Cosine,
    /// Warm-up, stable, decay (Hu et al., 2024, <https://arxiv.org/abs/2404.06395>): at its peak
    /// until the last `decay_steps`, in which it falls in a straight line to the floor after the
    /// last step (the linear form of Hägele et al., 2024, <https://arxiv.org/abs/2405.18392>). A
    /// run can be made longer before the decay begins.
    WarmupStableDecay {
        /// How many steps the decay takes.
        decay_steps: usize,
    },
}

impl LrSchedule {
    /// What to multiply the learning rate with at `step`, counted from 0, of `total_steps`, without
    /// warm-up and down to 0; in `[0, 1]`. From `total_steps` on, what it has fallen to. Of a run
    /// of no steps it is that of a run of one.
    pub fn multiplier(self, step: usize, total_steps: usize) -> f64 {
        self.decay(step, total_steps.max(1))
    }

    /// The schedule of a whole run, with warm-up and floor.
    ///
    /// # Errors
    /// [`Error::Config`] for a run of no steps, a warm-up that is longer than the run, a floor
    /// outside of `[0, 1]`, and a decay that has no room after the warm-up.
    ///
    /// ```
    /// use tinsmith_client::{AdamParams, LrOptions, LrSchedule};
    ///
    /// let options = LrOptions { warmup_steps: 10, floor: 0.1 };
    /// let curve = LrSchedule::Cosine.curve(100, options)?;
    /// let adam = |step| AdamParams::default().learning_rate(1e-4 * curve.multiplier(step));
    /// assert_eq!(curve.multiplier(9), 1.0);     // the peak, after ten steps
    /// assert_eq!(curve.multiplier(100), 0.1);   // the floor, after the run
    /// # drop(adam(0));
    ///
    /// let wsd = LrSchedule::WarmupStableDecay { decay_steps: 20 }.curve(100, options)?;
    /// assert_eq!([10, 80, 90, 100].map(|step| wsd.multiplier(step)), [1.0, 1.0, 0.55, 0.1]);
    /// # anyhow::Ok(())
    /// ```
    pub fn curve(self, total_steps: usize, options: LrOptions) -> Result<LrCurve> {
        let LrOptions { warmup_steps, floor } = options;
        let bad = |reason: String| Err(Error::Config { what: "learning rate schedule", reason });
        if total_steps == 0 {
            return bad("a run needs one step at least".into());
        }
        if warmup_steps > total_steps {
            return bad(format!(
                "a warm-up of {warmup_steps} steps does not fit into a run of {total_steps}"
            ));
        }
        if !(0.0..=1.0).contains(&floor) {
            return bad(format!("the floor is a share of the peak, 0 to 1, and not {floor}"));
        }
        if let LrSchedule::WarmupStableDecay { decay_steps } = self
            && decay_steps > total_steps - warmup_steps
        {
            return bad(format!(
                "a decay of {decay_steps} steps does not fit behind a warm-up of {warmup_steps} into a run of {total_steps}"
            ));
        }
        Ok(LrCurve { schedule: self, total_steps, warmup_steps, floor })
    }

    /// From 1 to 0, at `step` of the `steps` that there are without warm-up.
    fn decay(self, step: usize, steps: usize) -> f64 {
        let progress = |step: usize, steps: usize| match steps {
            0 => 1.0,
            steps => (step as f64 / steps as f64).min(1.0),
        };
        match self {
            LrSchedule::Constant => 1.0,
            LrSchedule::Linear => 1.0 - progress(step, steps),
            LrSchedule::Cosine => 0.5 * (1.0 + (PI * progress(step, steps)).cos()),
            LrSchedule::WarmupStableDecay { decay_steps } => {
                let decay_steps = decay_steps.min(steps);
                match step.checked_sub(steps - decay_steps) {
                    Some(decayed) => 1.0 - progress(decayed, decay_steps),
                    None => 1.0,
                }
            }
        }
    }
}

/// How a run begins, and where its learning rate ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LrOptions {
    /// Steps in which the rate rises in a straight line; the last of them has the peak.
    pub warmup_steps: usize,
    /// The least rate, as a share of the peak.
    pub floor: f64,
}

/// The learning rate of a run, as a share of its peak: from [`LrSchedule::curve`]. With a warm-up
/// of W steps, the floor f, N steps in all and the schedule's d, at step s counted from 0
///
/// ```text
/// f + (1 - f) (s + 1) / W               s < W
/// f + (1 - f) d((s - W) / (N - W))      W <= s < N
/// f + (1 - f) d(1)                      N <= s
/// ```
///
/// which is never outside of `[f, 1]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LrCurve {
    schedule: LrSchedule,
    total_steps: usize,
    warmup_steps: usize,
    floor: f64,
}

impl LrCurve {
    /// What to multiply the learning rate with at `step`, counted from 0.
    pub fn multiplier(&self, step: usize) -> f64 {
        let share = match step.checked_sub(self.warmup_steps) {
            None => (step + 1) as f64 / self.warmup_steps as f64,
            Some(step) => self.schedule.decay(step, self.total_steps - self.warmup_steps),
        };
        // Rounding alone could lead out of it.
        (self.floor + (1.0 - self.floor) * share).clamp(self.floor, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WSD: LrSchedule = LrSchedule::WarmupStableDecay { decay_steps: 4 };

    #[test]
    fn values_at_the_ends_and_in_the_middle() {
        // Five steps of warm-up, eight more, a floor of a fifth.
        let options = LrOptions { warmup_steps: 5, floor: 0.2 };
        let at = [0, 2, 4, 5, 9, 13, 1_000];
        let cases = [
            (LrSchedule::Constant, [0.36, 0.68, 1.0, 1.0, 1.0, 1.0, 1.0]),
            (LrSchedule::Linear, [0.36, 0.68, 1.0, 1.0, 0.6, 0.2, 0.2]),
            (LrSchedule::Cosine, [0.36, 0.68, 1.0, 1.0, 0.6, 0.2, 0.2]),
            (WSD, [0.36, 0.68, 1.0, 1.0, 1.0, 0.2, 0.2]),
        ];
        for (schedule, expected) in cases {
            let curve = schedule.curve(13, options).unwrap();
            let found = at.map(|step| curve.multiplier(step));
            let near = found.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-15);
            assert!(near, "{schedule:?}: {found:?}");
        }
        let cosine = LrSchedule::Cosine.curve(13, options).unwrap();
        // A quarter of the way: (1 + cos 45°) / 2.
        assert!((cosine.multiplier(7) - (0.2 + 0.4 * (1.0 + 0.5f64.sqrt()))).abs() < 1e-15);
        assert!((WSD.curve(13, options).unwrap().multiplier(11) - 0.6).abs() < 1e-15);
    }

    #[test]
    fn what_makes_no_run_is_refused() {
        let told = |schedule: LrSchedule, total, warmup_steps, floor| {
            let curve = schedule.curve(total, LrOptions { warmup_steps, floor });
            curve.map_err(|error| error.to_string()).err().unwrap_or_default()
        };
        assert_eq!(told(WSD, 4, 0, 0.0), "");
        assert_eq!(told(LrSchedule::Linear, 4, 4, 1.0), "");
        assert!(told(LrSchedule::Linear, 0, 0, 0.0).contains("one step at least"));
        assert!(told(LrSchedule::Linear, 4, 5, 0.0).contains("a warm-up of 5 steps"));
        assert!(told(WSD, 4, 1, 0.0).contains("a decay of 4 steps"));
        for floor in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(told(LrSchedule::Linear, 4, 0, floor).contains("share of the peak"), "{floor}");
        }
    }

    #[test]
    fn beyond_the_run_and_without_one_nothing_is_negative() {
        for schedule in [LrSchedule::Constant, LrSchedule::Linear, LrSchedule::Cosine, WSD] {
            let end = if schedule == LrSchedule::Constant { 1.0 } else { 0.0 };
            assert_eq!(schedule.multiplier(9, 4), end, "{schedule:?}");
            assert_eq!([schedule.multiplier(0, 0), schedule.multiplier(7, 0)], [1.0, end]);
        }
    }

    fn schedule() -> impl Strategy<Value = LrSchedule> {
        prop_oneof![
            Just(LrSchedule::Constant),
            Just(LrSchedule::Linear),
            Just(LrSchedule::Cosine),
            (0usize..200).prop_map(|decay_steps| LrSchedule::WarmupStableDecay { decay_steps }),
        ]
    }

    proptest! {
        #[test]
        fn a_curve_rises_in_its_warmup_and_never_after_within_floor_and_peak(
            schedule in schedule(),
            total in 1usize..200,
            warmup in 0usize..200,
            floor in 0f64..=1.0,
        ) {
            let options = LrOptions { warmup_steps: warmup, floor };
            let Ok(curve) = schedule.curve(total, options) else {
                let decay = match schedule {
                    LrSchedule::WarmupStableDecay { decay_steps } => decay_steps,
                    _ => 0,
                };
                prop_assert!(warmup + decay > total);
                return Ok(());
            };
            let values: Vec<f64> = (0..total + 3).map(|step| curve.multiplier(step)).collect();
            prop_assert!(values.iter().all(|x| (floor..=1.0).contains(x)), "{values:?}");
            let (rising, falling) = values.split_at(warmup);
            prop_assert!(rising.is_sorted(), "{rising:?}");
            prop_assert!(falling.is_sorted_by(|a, b| a >= b), "{falling:?}");
            if warmup > 0 {
                prop_assert_eq!(values[warmup - 1], 1.0);
            }
            let end = if schedule == LrSchedule::Constant { 1.0 } else { floor };
            prop_assert!((values[total] - end).abs() < 1e-15);
            // Without warm-up and floor it is what `multiplier` gives.
            let plain = schedule.curve(total, LrOptions::default()).unwrap();
            for step in 0..total + 3 {
                prop_assert_eq!(plain.multiplier(step), schedule.multiplier(step, total));
            }
        }
    }
}
