use tinsmith_grad::{Error, Ragged, Var, here, located};

use super::tis::{LOG_CAP, TisConfig};
use crate::at_caller;
use crate::inputs::{like, per_seq, per_token, tokens};
use crate::masked::only;
use crate::policy::ratio::capped;

/// What was sampled: all that a policy loss is computed from, besides the policy's own logprobs.
///
/// A token is active if it belongs to the response and its weight is above 0.5; only active tokens
/// take part, whatever stands on the others.
#[derive(Clone, Debug)]
pub struct Rollout {
    pub(super) old: Ragged,
    advantages: Var,
    pub(super) sampled: Option<Ragged>,
    pub(super) reference: Option<Ragged>,
    weights: Option<Ragged>,
    response: Option<Ragged>,
    ratio_log_cap: f64,
    pub(super) tis: TisConfig,
}

impl Rollout {
    /// A rollout of n sequences: `old`, the logprobs `[tokens]` of the policy before the update,
    /// and `advantages`, `[n]`.
    ///
    /// The sampler's logprobs are taken to be `old`, there is no reference, and every token is
    /// active.
    #[track_caller]
    pub fn new(old: &Ragged, advantages: &Var) -> Rollout {
        at_caller! {
            Rollout {
                old: per_token("rollout", "old", old),
                advantages: per_seq("rollout", "advantages", advantages, old.num_seqs()),
                sampled: None,
                reference: None,
                weights: None,
                response: None,
                ratio_log_cap: LOG_CAP,
                tis: TisConfig::default(),
            }
        }
    }

    /// The logprobs `[tokens]` that the sampler reported, for the correction by [`TisConfig`] and
    /// for [`reinforce`](super::reinforce).
    #[must_use]
    #[track_caller]
    pub fn sampled(mut self, logprobs: &Ragged) -> Rollout {
        self.sampled = Some(self.aligned("sampled", logprobs));
        self
    }

    /// The logprobs `[tokens]` of a frozen reference, for the KL terms.
    #[must_use]
    #[track_caller]
    pub fn reference(mut self, logprobs: &Ragged) -> Rollout {
        self.reference = Some(self.aligned("reference", logprobs));
        self
    }

    /// A mask `[tokens]`; above 0.5 is active.
    #[must_use]
    #[track_caller]
    pub fn weights(mut self, weights: &Ragged) -> Rollout {
        self.weights = Some(self.aligned("weights", weights));
        self
    }

    /// What the log ratio to `old` is limited to, from above and from below; 20 unless told.
    /// Beyond it a ratio has no gradient.
    #[must_use]
    pub fn ratio_log_cap(mut self, cap: f64) -> Rollout {
        self.ratio_log_cap = cap;
        self
    }

    /// How the weight that corrects for the sampler is made.
    #[must_use]
    pub fn tis(mut self, config: TisConfig) -> Rollout {
        self.tis = config;
        self
    }

    /// How many tokens of each full sequence are prompt. As the first token is never predicted, the
    /// response of a prompt of p tokens begins at logprob p - 1.
    #[must_use]
    #[track_caller]
    pub fn prompt_lens(mut self, lens: &[usize]) -> Rollout {
        let at = here();
        self.response = Some(self.old.map(|old| {
            if lens.len() != self.old.num_seqs() {
                let why =
                    format!("{} prompt lengths for {} sequences", lens.len(), self.old.num_seqs());
                return Var::from(Error::Argument { op: "prompt_lens", why, at });
            }
            let lengths = self.old.lengths().iter().zip(lens);
            let mask = lengths.flat_map(|(&len, &prompt)| {
                (0..len).map(move |t| f64::from(u8::from(t + 1 >= prompt)))
            });
            located(at, || {
                Var::from_vec(mask.collect(), &[self.old.total()], old.device())
                    .to_dtype(old.dtype())
            })
        }));
        self
    }

    /// 1 on the tokens of the response, 0 on those of the prompt: `[tokens]`.
    #[track_caller]
    pub fn response(&self) -> Ragged {
        self.response.clone().unwrap_or_else(|| ones_like(&self.old))
    }

    /// 1 on active tokens, 0 on the others: `[tokens]`.
    #[track_caller]
    pub fn active(&self) -> Ragged {
        let response = self.response();
        match &self.weights {
            Some(weights) => only(&weights.gt(0.5), &response),
            None => response,
        }
    }

    /// The advantages of the active tokens, 0 on the others.
    #[track_caller]
    pub(super) fn active_advantages(&self) -> Ragged {
        self.on_active(&self.old.expand(&self.advantages))
    }

    /// `x` on active tokens, 0 on the others, whatever `x` is there.
    #[track_caller]
    pub(super) fn on_active(&self, x: &Ragged) -> Ragged {
        only(&self.active().ne(0.0), x)
    }

    /// The limited log ratio of each token to `from`.
    #[track_caller]
    pub(super) fn log_ratio_to(&self, lp: &Ragged, from: &Ragged) -> Ragged {
        tokens!("rollout"; lp);
        capped("rollout", lp - from, Some(self.ratio_log_cap))
    }

    #[track_caller]
    fn aligned(&self, name: &str, x: &Ragged) -> Ragged {
        at_caller! { like("rollout", name, x, &self.old) }
    }
}

/// The log ratio `clip(l - old, ±cap)` of each token, with the rollout's cap, which the losses of
/// this module but [`gspo`](super::gspo) exponentiate.
#[track_caller]
pub fn log_ratio(lp: &Ragged, rollout: &Rollout) -> Ragged {
    at_caller! { rollout.log_ratio_to(lp, &rollout.old) }
}

#[track_caller]
pub(super) fn ones_like(x: &Ragged) -> Ragged {
    x.map(|x| match x.error() {
        Some(_) => x.clone(),
        None => Var::ones(x.shape(), x.dtype(), x.device()),
    })
}
