//! Policy losses as training recipes compute them on the client, in the forms of Fireworks' cookbook.
//!
//! They differ from the trainers' built-in forms in what surrounds the ratio: one advantage per sequence, a mask, a log
//! ratio limited to ±20, and a weight that corrects for the difference between the sampler's and the trainer's
//! logprobs. All are **raw sums** over the active tokens, meant for gradients that the optimizer step divides by the
//! number of loss tokens ([`GradNormalization::NumLossTokens`](crate::GradNormalization)).
//!
//! ```
//! use tinsmith_grad::{Device, Ragged, Var};
//! use tinsmith_losses::client::{self, GrpoConfig, Rollout};
//!
//! # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
//! let lp = ragged(&[vec![-9.0, -0.5, -1.0], vec![-0.5]]);
//! let old = ragged(&[vec![-1.0, -0.5 - 2f64.ln(), -1.0], vec![-0.5 - 2f64.ln()]]); // ratios -, 2, 1; 2
//! let advantages = Var::from_vec(vec![1.0, -1.0], &[2], &Device::Cpu);
//! let rollout = Rollout::new(&old, &advantages).prompt_lens(&[2, 1]);
//!
//! let loss = client::grpo(&lp, &rollout, &GrpoConfig::default());
//! assert!((loss.item()? - -(1.2 + 1.0 - 2.0)).abs() < 1e-12);
//! assert_eq!(client::rollout_metrics(&lp, &rollout).active_tokens.item()?, 3.0);
//! # anyhow::Ok(())
//! ```

use tinsmith_grad::{Error, Ragged, Var, here, located};

use crate::aggregate::{Aggregation, aggregate, or_one};
use crate::at_caller;
use crate::config::config;
use crate::kl::k3;
use crate::policy::{clipped_surrogate, outside};

/// What was sampled: all that a policy loss is computed from, besides the policy's own logprobs.
///
/// A token is active if it belongs to the response and its weight is above 0.5; only active tokens take part.
#[derive(Clone, Debug)]
pub struct Rollout {
    old: Ragged,
    advantages: Var,
    sampled: Option<Ragged>,
    reference: Option<Ragged>,
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

    /// The logprobs `[tokens]` that the sampler reported, for the correction by [`TisConfig`] and for [`reinforce`].
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
    fn active_advantages(&self) -> Ragged {
        self.active() * self.old.expand(&self.advantages)
    }
}

config! {
    /// The weight of truncated importance sampling, [`tis_weight`], which corrects for a sampler whose logprobs differ
    /// from the trainer's.
    pub struct TisConfig {
        /// The greatest weight.
        cap: f64 = 5.0,
        /// Whether each token has its weight, or all tokens of a sequence their geometric mean.
        level: TisLevel = TisLevel::Token,
        /// If h, tokens whose ratio is outside of `1/h..=h` are left out (IcePop); at token level only.
        icepop: Option<f64> = None,
    }
}

/// What the ratio of [`tis_weight`] is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TisLevel {
    /// Each token by itself.
    #[default]
    Token,
    /// The mean log ratio of a sequence's active tokens, for all of them.
    Sequence,
}

config! {
    /// Options of [`grpo`].
    pub struct GrpoConfig {
        /// The ratio's lower bound is `1 - eps_low`.
        eps_low: f64 = 0.2,
        /// The ratio's upper bound is `1 + eps_high`.
        eps_high: f64 = 0.2,
        /// The weight of the KL to the reference, if the rollout has one.
        kl_beta: f64 = 0.001,
        /// The correction for the sampler.
        tis: TisConfig = TisConfig::default(),
    }
}

config! {
    /// Options of [`dapo`].
    pub struct DapoConfig {
        /// The ratio's lower bound is `1 - eps_low`.
        eps_low: f64 = 0.2,
        /// The ratio's upper bound is `1 + eps_high`.
        eps_high: f64 = 0.28,
        /// If c, the loss of a token with a negative advantage is at most `-c·A` (dual clip: Ye et al., 2020,
        /// arXiv:1912.09729); above 1.
        dual_clip: Option<f64> = None,
        /// The correction for the sampler.
        tis: TisConfig = TisConfig::default(),
    }
}

config! {
    /// Options of [`importance_sampling`].
    pub struct ImportanceSamplingConfig {
        /// The log ratio is limited to plus and minus this.
        ratio_log_cap: f64 = LOG_CAP,
        /// The correction for the sampler.
        tis: TisConfig = TisConfig::default(),
    }
}

config! {
    /// Options of [`cispo`].
    pub struct CispoConfig {
        /// The ratio's lower bound is `1 - eps_low`.
        eps_low: f64 = 0.2,
        /// The ratio's upper bound is `1 + eps_high`.
        eps_high: f64 = 0.28,
        /// The correction for the sampler.
        tis: TisConfig = TisConfig::default(),
    }
}

config! {
    /// Options of [`dro`].
    pub struct DroConfig {
        /// How strongly the policy is held near the old one.
        beta: f64 = 0.05,
        /// The correction for the sampler.
        tis: TisConfig = TisConfig::default(),
    }
}

config! {
    /// Options of [`gspo`].
    pub struct GspoConfig {
        /// The ratio's lower bound is `1 - eps_low`.
        eps_low: f64 = 0.2,
        /// The ratio's upper bound is `1 + eps_high`.
        eps_high: f64 = 0.2,
        /// The sequence's log ratio is limited to this from above.
        seq_ratio_log_cap: f64 = 10.0,
        /// The correction for the sampler.
        tis: TisConfig = TisConfig::default(),
    }
}

/// Group-relative policy optimisation: per active token `max(-r·A, -clip(r, 1-e, 1+e')·A)·k + β k3(ref)`.
///
/// `r = e^d` with `d = clip(l - old, ±20)`, k is [`tis_weight`]. Gradient: `-r·A·k` where neither limit acts, plus
/// `β (1 - e^(ref - l))`. See the [module](self) for an example; [`crate::grpo`] is the form with an aggregation.
#[track_caller]
pub fn grpo(lp: &Ragged, rollout: &Rollout, config: &GrpoConfig) -> Var {
    at_caller! {
        let log_ratio = token_log_ratio(lp, &rollout.old, LOG_CAP);
        let advantages = rollout.active_advantages();
        let gain = clipped_surrogate(&log_ratio, &advantages, 1.0 - config.eps_low, 1.0 + config.eps_high);
        let loss = -(gain * tis_weight(rollout, &config.tis)).sum();
        match &rollout.reference {
            Some(reference) => loss + k3(&on_active(rollout, &(reference - lp))).sum() * config.kl_beta,
            None => loss,
        }
    }
}

/// Decoupled clip: [`grpo`] with a wider upper bound, no KL, and an optional bound on the loss of bad tokens.
///
/// Yu et al., 2025 (arXiv:2503.14476).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::client::{DapoConfig, Rollout, dapo};
///
/// let lp = ragged(&[vec![-0.5], vec![-0.5]]);
/// let old = ragged(&[vec![-3.5], vec![-3.5]]); // ratios e³
/// let advantages = Var::from_vec(vec![1.0, -1.0], &[2], &Device::Cpu);
/// let loss = dapo(&lp, &Rollout::new(&old, &advantages), &DapoConfig::default().dual_clip(3.0));
/// assert!((loss.item()? - (-1.28 + 3.0)).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn dapo(lp: &Ragged, rollout: &Rollout, config: &DapoConfig) -> Var {
    at_caller! {
        let log_ratio = token_log_ratio(lp, &rollout.old, LOG_CAP);
        let advantages = rollout.active_advantages();
        let log_ratio = match config.dual_clip {
            Some(c) => log_ratio.gt(c.ln()).where_(advantages.lt(0.0).where_(c.ln(), &log_ratio), &log_ratio),
            None => log_ratio,
        };
        let gain = clipped_surrogate(&log_ratio, &advantages, 1.0 - config.eps_low, 1.0 + config.eps_high);
        -(gain * tis_weight(rollout, &config.tis)).sum()
    }
}

/// Importance sampling: per active token `-r·A·k` with `r = e^clip(l - old, ±cap)`.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::client::{Rollout, importance_sampling};
///
/// let lp = ragged(&[vec![-0.5]]);
/// let old = ragged(&[vec![-0.5 - 2f64.ln()]]); // ratio 2
/// let sampled = ragged(&[vec![-0.5 - 4f64.ln()]]); // the sampler thought it half as likely as old did: k = 2
/// let advantages = Var::from_vec(vec![3.0], &[1], &Device::Cpu);
/// let rollout = Rollout::new(&old, &advantages).sampled(&sampled);
/// let loss = importance_sampling(&lp, &rollout, &Default::default());
/// assert!((loss.item()? + 12.0).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn importance_sampling(
    lp: &Ragged,
    rollout: &Rollout,
    config: &ImportanceSamplingConfig,
) -> Var {
    at_caller! {
        let ratio = token_log_ratio(lp, &rollout.old, config.ratio_log_cap).exp();
        -(ratio * rollout.active_advantages() * tis_weight(rollout, &config.tis)).sum()
    }
}

/// Clipped importance weights on a policy gradient: per active token `-sg(clip(r, 1-e, 1+e'))·l·A·k`.
///
/// Gradient: `-clip(r)·A·k`. MiniMax-M1, 2025 (arXiv:2506.13585), with two-sided bounds.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::client::{Rollout, cispo};
///
/// let lp = ragged(&[vec![-0.5]]);
/// let old = ragged(&[vec![-3.5]]);
/// let advantages = Var::from_vec(vec![1.0], &[1], &Device::Cpu);
/// let loss = cispo(&lp, &Rollout::new(&old, &advantages), &Default::default());
/// assert!((loss.item()? - 0.64).abs() < 1e-12); // 1.28 · 0.5
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn cispo(lp: &Ragged, rollout: &Rollout, config: &CispoConfig) -> Var {
    at_caller! {
        let bounds = ((1.0 - config.eps_low).ln(), (1.0 + config.eps_high).ln());
        let ratio = (lp - &rollout.old).detach().clamp(bounds.0, bounds.1).exp();
        -(ratio * lp * rollout.active_advantages() * tis_weight(rollout, &config.tis)).sum()
    }
}

/// Direct reward optimisation: per active token `-(l·A·k - β/2 (l - old)²·[A != 0])`.
///
/// Gradient: `-A·k + β (l - old)`, 0 in a sequence of advantage 0. Richemond et al., 2024 (arXiv:2405.19107).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::client::{DroConfig, Rollout, dro};
///
/// let lp = ragged(&[vec![-0.5], vec![-0.5]]);
/// let old = ragged(&[vec![-2.5], vec![-2.5]]);
/// let advantages = Var::from_vec(vec![1.0, 0.0], &[2], &Device::Cpu);
/// let loss = dro(&lp, &Rollout::new(&old, &advantages), &DroConfig::default().beta(0.25));
/// assert_eq!(loss.item()?, 1.0); // 0.5 + 0.125 · 4; the second has no advantage
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn dro(lp: &Ragged, rollout: &Rollout, config: &DroConfig) -> Var {
    at_caller! {
        let advantages = rollout.active_advantages();
        let distance = advantages.ne(0.0).where_(lp - &rollout.old, 0.0);
        let gain = lp * advantages * tis_weight(rollout, &config.tis);
        (distance.square() * (config.beta / 2.0) - gain).sum()
    }
}

/// Group sequence policy optimisation: [`grpo`] without KL and with the ratio `e^min(l - sg(l) + sg(mean(l - old)), cap)`.
///
/// The mean runs over **all** tokens of the response, those that are masked included. Gradient: as [`crate::gspo`]'s, times
/// k. Zheng et al., 2025 (arXiv:2507.18071).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::client::{GspoConfig, Rollout, gspo};
///
/// let lp = ragged(&[vec![-0.5, -0.5]]);
/// let old = ragged(&[vec![-0.5 - 4f64.ln(), -0.5]]); // mean log ratio ln 2
/// let advantages = Var::from_vec(vec![1.0], &[1], &Device::Cpu);
/// let loss = gspo(&lp, &Rollout::new(&old, &advantages), &GspoConfig::default().eps_high(2.0));
/// assert!((loss.item()? + 4.0).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn gspo(lp: &Ragged, rollout: &Rollout, config: &GspoConfig) -> Var {
    at_caller! {
        let log_ratio = sequence_log_ratio(lp, rollout, config.seq_ratio_log_cap);
        let advantages = rollout.active_advantages();
        let gain = clipped_surrogate(&log_ratio, &advantages, 1.0 - config.eps_low, 1.0 + config.eps_high);
        -(gain * tis_weight(rollout, &config.tis)).sum()
    }
}

/// Policy gradient against the sampler: per active token `-r·A + β (sg(l) - ref)` with `r = e^clip(l - q, ±20)`, q the
/// sampler's logprobs.
///
/// The KL term has **no gradient**: it shows in the loss and does not act. `kl_beta` is 0 in the source.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::client::{Rollout, reinforce};
///
/// let lp = ragged(&[vec![-0.5]]);
/// let sampled = ragged(&[vec![-0.5 - 2f64.ln()]]);
/// let reference = ragged(&[vec![-1.5]]);
/// let advantages = Var::from_vec(vec![3.0], &[1], &Device::Cpu);
/// let rollout = Rollout::new(&lp, &advantages).sampled(&sampled).reference(&reference);
/// let loss = reinforce(&lp, &rollout, 0.25);
/// assert!((loss.item()? + 5.75).abs() < 1e-12); // -2 · 3 + 0.25 · 1
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn reinforce(lp: &Ragged, rollout: &Rollout, kl_beta: f64) -> Var {
    at_caller! {
        let sampled = rollout.sampled.as_ref().unwrap_or(&rollout.old);
        let loss = -(token_log_ratio(lp, sampled, LOG_CAP).exp() * rollout.active_advantages()).sum();
        match &rollout.reference {
            Some(reference) => loss + on_active(rollout, &(lp.detach() - reference)).sum() * kl_beta,
            None => loss,
        }
    }
}

/// The weight of truncated importance sampling of each token, `clip(e^clip(old - q, ±20), 0, cap)`, with q the sampler's
/// logprobs; see [`TisConfig`] for its variants. It has no gradient; the weight of a token that is not active is of no
/// meaning.
///
/// Yao et al., 2025, "Your efficient RL framework secretly brings you off-policy RL training".
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::client::{Rollout, TisConfig, tis_weight};
///
/// let old = ragged(&[vec![-1.0, -1.0, -4.0]]);
/// let sampled = ragged(&[vec![-1.0, -4.0, -1.0]]); // ratios 1, e³, e^-3
/// let advantages = Var::from_vec(vec![1.0], &[1], &Device::Cpu);
/// let rollout = Rollout::new(&old, &advantages).sampled(&sampled);
/// let k = |config: TisConfig| tis_weight(&rollout, &config).values().to_vec::<f64>();
/// assert_eq!(k(TisConfig::default())?[..2], [1.0, 5.0]);
/// assert_eq!(k(TisConfig::default().icepop(2.0))?, [1.0, 0.0, 0.0]);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn tis_weight(rollout: &Rollout, config: &TisConfig) -> Ragged {
    at_caller! {
        let Some(sampled) = &rollout.sampled else { return ones_like(&rollout.old) };
        let log_ratio = (&rollout.old - sampled).clamp(-LOG_CAP, LOG_CAP);
        match (config.level, config.icepop) {
            (TisLevel::Sequence, _) => {
                let active = rollout.active();
                let mean = log_ratio.dot_per_seq(&active) / or_one(&active.sum_per_seq());
                rollout.old.expand(&mean.exp().clamp_max(config.cap))
            }
            (TisLevel::Token, None) => log_ratio.exp().clamp_max(config.cap),
            (TisLevel::Token, Some(h)) => {
                log_ratio.abs().gt(h.ln()).where_(0.0, log_ratio.exp().clamp_max(config.cap))
            }
        }
        .detach()
    }
}

/// The log ratio `clip(l - old, ±20)` of each token, which the losses of this module but [`gspo`] exponentiate.
#[track_caller]
pub fn log_ratio(lp: &Ragged, rollout: &Rollout) -> Ragged {
    at_caller! { token_log_ratio(lp, &rollout.old, LOG_CAP) }
}

/// The log ratio of [`gspo`]: of each sequence, on each of its tokens.
#[track_caller]
pub fn gspo_log_ratio(lp: &Ragged, rollout: &Rollout, config: &GspoConfig) -> Ragged {
    at_caller! { sequence_log_ratio(lp, rollout, config.seq_ratio_log_cap) }
}

/// How far the policy has gone; each a scalar, 0 if no token is active. Made by [`rollout_metrics`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RolloutMetrics {
    /// The number of active tokens.
    pub active_tokens: Var,
    /// The mean over sequences of the mean of `e^d - d - 1` with `d = l - old`, without a limit on d.
    pub ppo_kl: Var,
    /// The mean of `l - ref` over all active tokens, if the rollout has a reference.
    pub mean_kl: Option<Var>,
    /// The mean over sequences of the mean of k3 to the reference, if the rollout has one.
    pub ref_kl: Option<Var>,
}

/// Token count and KL figures of a rollout.
#[track_caller]
pub fn rollout_metrics(lp: &Ragged, rollout: &Rollout) -> RolloutMetrics {
    at_caller! {
        let active = rollout.active();
        let from = |x: &Ragged, y: &Ragged| on_active(rollout, &(x - y));
        let per_seq = |x: &Ragged| aggregate(x, &active, Aggregation::SeqMeanTokenMean);
        let reference = rollout.reference.as_ref();
        RolloutMetrics {
            active_tokens: active.sum(),
            ppo_kl: per_seq(&k3(&from(lp, &rollout.old))),
            mean_kl: reference.map(|reference| aggregate(&from(lp, reference), &active, Aggregation::TokenMean)),
            ref_kl: reference.map(|reference| per_seq(&k3(&from(reference, lp)))),
        }
    }
}

/// What an importance ratio is watched by; each a scalar. Made by [`ratio_metrics`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RatioMetrics {
    /// The mean over sequences of the mean ratio.
    pub ratio_mean: Var,
    /// The mean over sequences of the share of tokens whose ratio is out of bounds.
    pub clip_fraction: Var,
}

/// Mean and clip fraction of the ratios `e^log_ratio` over the tokens of `mask`, which is [`Rollout::active`] or
/// [`Rollout::response`]; the bounds are ratios.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// use tinsmith_losses::client::{Rollout, log_ratio, ratio_metrics};
///
/// let lp = ragged(&[vec![-0.5, -1.0], vec![-1.0]]);
/// let old = ragged(&[vec![-0.5 - 3f64.ln(), -1.0], vec![-1.0]]); // ratios 3, 1; 1
/// let rollout = Rollout::new(&old, &Var::from_vec(vec![1.0, 1.0], &[2], &Device::Cpu));
/// let metrics = ratio_metrics(&log_ratio(&lp, &rollout), &rollout.active(), 0.8, 1.2);
/// assert!((metrics.ratio_mean.item()? - 1.5).abs() < 1e-12); // (2 + 1) / 2
/// assert_eq!(metrics.clip_fraction.item()?, 0.25);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn ratio_metrics(log_ratio: &Ragged, mask: &Ragged, low: f64, high: f64) -> RatioMetrics {
    at_caller! {
        let per_seq = |x: &Ragged| aggregate(x, mask, Aggregation::SeqMeanTokenMean);
        RatioMetrics {
            ratio_mean: per_seq(&log_ratio.exp()),
            clip_fraction: per_seq(&outside(log_ratio, low, high)),
        }
    }
}

/// Log ratios beyond this are of no use and would overflow.
const LOG_CAP: f64 = 20.0;

#[track_caller]
fn token_log_ratio(lp: &Ragged, from: &Ragged, cap: f64) -> Ragged {
    (lp - from).clamp(-cap, cap)
}

#[track_caller]
fn sequence_log_ratio(lp: &Ragged, rollout: &Rollout, cap: f64) -> Ragged {
    crate::policy::sequence_log_ratio(lp, &rollout.old, &rollout.response()).clamp_max(cap)
}

/// `x` on active tokens, 0 on the others, NaN and infinity there included.
#[track_caller]
fn on_active(rollout: &Rollout, x: &Ragged) -> Ragged {
    rollout.active().gt(0.0).where_(x, 0.0)
}

#[track_caller]
fn ones_like(x: &Ragged) -> Ragged {
    x.map(|x| Var::ones(x.shape(), x.dtype(), x.device()))
}
