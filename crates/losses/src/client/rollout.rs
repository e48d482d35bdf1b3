use tinsmith_grad::{Error, Ragged, Var, here, located};

/// What was sampled: all that a policy loss is computed from, besides the policy's own logprobs.
///
/// A token is active if it belongs to the response and its weight is above 0.5; only active tokens take part.
#[derive(Clone, Debug)]
pub struct Rollout {
    pub(super) old: Ragged,
    advantages: Var,
    pub(super) sampled: Option<Ragged>,
    pub(super) reference: Option<Ragged>,
    weights: Option<Ragged>,
    response: Option<Ragged>,
}

impl Rollout {
    /// A rollout of n sequences: `old`, the logprobs `[tokens]` of the policy before the update, and `advantages`, `[n]`.
    ///
    /// The sampler's logprobs are taken to be `old`, there is no reference, and every token is active.
    pub fn new(old: &Ragged, advantages: &Var) -> Rollout {
        Rollout {
            old: old.clone(),
            advantages: advantages.clone(),
            sampled: None,
            reference: None,
            weights: None,
            response: None,
        }
    }

    /// The logprobs `[tokens]` that the sampler reported, for the correction by [`TisConfig`](super::TisConfig) and for
    /// [`reinforce`](super::reinforce).
    #[must_use]
    pub fn sampled(mut self, logprobs: &Ragged) -> Rollout {
        self.sampled = Some(logprobs.clone());
        self
    }

    /// The logprobs `[tokens]` of a frozen reference, for the KL terms.
    #[must_use]
    pub fn reference(mut self, logprobs: &Ragged) -> Rollout {
        self.reference = Some(logprobs.clone());
        self
    }

    /// A mask `[tokens]`; above 0.5 is active.
    #[must_use]
    pub fn weights(mut self, weights: &Ragged) -> Rollout {
        self.weights = Some(weights.clone());
        self
    }

    /// How many tokens of each full sequence are prompt. As the first token is never predicted, the response of a
    /// prompt of p tokens begins at logprob p - 1.
    #[must_use]
    #[track_caller]
    pub fn prompt_lens(mut self, lens: &[usize]) -> Rollout {
        let at = here();
        self.response = Some(self.old.map(|old| {
            if lens.len() != self.old.num_seqs() {
                let why = format!(
                    "{} prompt lengths for {} sequences",
                    lens.len(),
                    self.old.num_seqs()
                );
                return Var::from(Error::Argument {
                    op: "prompt_lens",
                    why,
                    at,
                });
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
        self.response
            .clone()
            .unwrap_or_else(|| ones_like(&self.old))
    }

    /// 1 on active tokens, 0 on the others: `[tokens]`.
    #[track_caller]
    pub fn active(&self) -> Ragged {
        let response = self.response();
        match &self.weights {
            Some(weights) => weights.gt(0.5).where_(&response, 0.0),
            None => response,
        }
    }

    /// The advantages of the active tokens, 0 on the others.
    #[track_caller]
    pub(super) fn active_advantages(&self) -> Ragged {
        self.active() * self.old.expand(&self.advantages)
    }

    /// `x` on active tokens, 0 on the others, whatever `x` is there.
    #[track_caller]
    pub(super) fn on_active(&self, x: &Ragged) -> Ragged {
        self.active().gt(0.0).where_(x, 0.0)
    }
}

#[track_caller]
pub(super) fn ones_like(x: &Ragged) -> Ragged {
    x.map(|x| Var::ones(x.shape(), x.dtype(), x.device()))
}
