use tinsmith_grad::{Ragged, Var};

use super::LOG_CAP;
use super::rollout::Rollout;
use super::tis::{TisConfig, tis_weight};
use crate::at_caller;
use crate::config::config;
use crate::kl::k3;
use crate::policy;

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
/// `β (1 - e^(ref - l))`. See the [module](crate::client) for an example; [`crate::grpo`] is the form with an aggregation.
#[track_caller]
pub fn grpo(lp: &Ragged, rollout: &Rollout, config: &GrpoConfig) -> Var {
    at_caller! {
        let log_ratio = token_log_ratio(lp, &rollout.old, LOG_CAP);
        let advantages = rollout.active_advantages();
        let gain = policy::clipped_surrogate(&log_ratio, &advantages, 1.0 - config.eps_low, 1.0 + config.eps_high);
        let loss = -(gain * tis_weight(rollout, &config.tis)).sum();
        match &rollout.reference {
            Some(reference) if config.kl_beta != 0.0 => {
                loss + k3(&rollout.on_active(&(reference - lp))).sum() * config.kl_beta
            }
            _ => loss,
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
        let gain = policy::clipped_surrogate(&log_ratio, &advantages, 1.0 - config.eps_low, 1.0 + config.eps_high);
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
        let gain = policy::clipped_surrogate(&log_ratio, &advantages, 1.0 - config.eps_low, 1.0 + config.eps_high);
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
            Some(reference) if kl_beta != 0.0 => loss + rollout.on_active(&(lp.detach() - reference)).sum() * kl_beta,
            _ => loss,
        }
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

#[track_caller]
fn token_log_ratio(lp: &Ragged, from: &Ragged, cap: f64) -> Ragged {
    (lp - from).clamp(-cap, cap)
}

#[track_caller]
fn sequence_log_ratio(lp: &Ragged, rollout: &Rollout, cap: f64) -> Ragged {
    policy::sequence_log_ratio(lp, &rollout.old, &rollout.response()).clamp_max(cap)
}
