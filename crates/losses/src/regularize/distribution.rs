use std::f64::consts::LN_2;

use tinsmith_grad::{Ragged, Var};

use crate::aggregate::Reduction;
use crate::at_caller;
use crate::config::config;
use crate::inputs::{alike, positive_finite};
use crate::masked::{only, or_one};

/// Whether [`entropy`] is to fall or to rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntropyMode {
    /// The term is `+H`: the distribution sharpens.
    Minimize,
    /// The term is `-H`: the distribution flattens.
    #[default]
    Maximize,
}

config! {
    /// Options of [`entropy`].
    pub struct EntropyConfig {
        /// The sign.
        mode: EntropyMode = EntropyMode::Maximize,
        /// Whether to divide by the entropy of the uniform distribution, ln K, to get a number in
        /// `0..=1`.
        normalize: bool = false,
        /// If T, the entropy is that of `softmax(l/T)` in place of `e^l`; above 0.
        temperature: Option<f64> = None,
        /// The mean or the sum over rows.
        reduction: Reduction = Reduction::Mean,
    }
}

/// Which way round [`kl_divergence`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KlDirection {
    /// KL(policy ‖ reference).
    #[default]
    Forward,
    /// KL(reference ‖ policy).
    Reverse,
    /// The mean of the two.
    Symmetric,
}

config! {
    /// Options of [`kl_divergence`].
    pub struct KlDivergenceConfig {
        /// Which way round.
        direction: KlDirection = KlDirection::Forward,
        /// The mean or the sum over rows.
        reduction: Reduction = Reduction::Mean,
    }
}

/// How [`consistency`] compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsistencyMetric {
    /// Squared difference, over elements.
    #[default]
    Mse,
    /// Absolute difference, over elements.
    L1,
    /// 1 - the cosine between all logprobs of the one and of the other.
    Cosine,
    /// Symmetric [`kl_divergence`], over rows.
    Kl,
}

config! {
    /// Options of [`consistency`].
    pub struct ConsistencyConfig {
        /// How to compare.
        metric: ConsistencyMetric = ConsistencyMetric::Mse,
        /// The mean or the sum over elements or rows.
        reduction: Reduction = Reduction::Mean,
    }
}

/// The entropy of each row's distribution, `H = -Σ p·l` with `p = e^l`, to be raised (the default)
/// or lowered.
///
/// For `lp` of `[tokens, K]` a row is a position, and H its entropy over the K tokens. For
/// `[tokens]` a row is a sequence, and the sum runs over its tokens: not the entropy of anything,
/// but a pressure of the same kind. Logprobs of -50 and below count as
/// 0. Gradient of H: `-p (1 + l)`.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// use tinsmith_losses::regularize::{EntropyConfig, EntropyMode, entropy};
///
/// let lp = Ragged::new(Var::from_vec(vec![0.25f64.ln(); 4], &[1, 4], &Device::Cpu), &[1]);
/// let config = EntropyConfig::default().mode(EntropyMode::Minimize);
/// assert!((entropy(&lp, &config).item()? - 4f64.ln()).abs() < 1e-12);
/// assert!((entropy(&lp, &config.normalize(true)).item()? - 1.0).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn entropy(lp: &Ragged, config: &EntropyConfig) -> Var {
    at_caller! {
        let lp = match config.temperature {
            Some(temperature) => match positive_finite("entropy", "temperature", temperature) {
                Ok(temperature) => log_softmax_rows(&(lp / temperature)),
                Err(error) => return error.into(),
            },
            None => lp.clone(),
        };
        let counted = lp.le(-50.0).where_(0.0, &lp);
        let entropy = -sum_rows(&(counted.exp() * &counted));
        let entropy = if config.normalize { over_uniform(&entropy, &lp) } else { entropy };
        let reduced = config.reduction.apply(&entropy);
        match config.mode {
            EntropyMode::Minimize => reduced,
            EntropyMode::Maximize => -reduced,
        }
    }
}

/// The KL divergence between each row's distribution and a reference's:
/// `Σ p·clip(ln p - ln q, ±100)`.
///
/// `lp` and `reference` are logprobs of one shape; rows as in [`entropy`]. Terms with `p <= 1e-10`
/// count as 0. Over sampled tokens (`[tokens]`) the estimators [`kl_k1`](crate::kl_k1) to
/// [`kl_k3`](crate::kl_k3) are the ones to use. Gradient forward: `p (ln p - ln q + 1)`; reverse:
/// `-q`.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// let row = |p: [f64; 2]| Ragged::new(Var::from_vec(p.map(f64::ln).to_vec(), &[1, 2], &Device::Cpu), &[1]);
/// let kl = tinsmith_losses::regularize::kl_divergence(&row([0.5, 0.5]), &row([0.25, 0.75]), &Default::default());
/// assert!((kl.item()? - 0.5 * (4.0f64 / 3.0).ln()).abs() < 1e-12); // (ln 2 + ln 2/3) / 2
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn kl_divergence(lp: &Ragged, reference: &Ragged, config: &KlDivergenceConfig) -> Var {
    at_caller! {
        alike!("kl_divergence"; lp, reference);
        config.reduction.apply(&match config.direction {
            KlDirection::Forward => kl_rows(lp, reference),
            KlDirection::Reverse => kl_rows(reference, lp),
            KlDirection::Symmetric => symmetric_kl_rows(lp, reference),
        })
    }
}

/// The Jensen-Shannon divergence between each row's distribution and a reference's, over rows: the
/// mean of the KL of both to their mixture, between 0 and ln 2 for distributions that sum to 1.
///
/// Shapes as in [`kl_divergence`]. Computed without forming the mixture, so that no probability
/// underflows. Lin, 1991.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// use tinsmith_losses::{Reduction, regularize::jensen_shannon};
///
/// let row = |l: [f64; 2]| Ragged::new(Var::from_vec(l.to_vec(), &[1, 2], &Device::Cpu), &[1]);
/// let apart = jensen_shannon(&row([0.0, -800.0]), &row([-800.0, 0.0]), Reduction::Mean);
/// assert!((apart.item()? - 2f64.ln()).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn jensen_shannon(lp: &Ragged, reference: &Ragged, reduction: Reduction) -> Var {
    at_caller! {
        alike!("jensen_shannon"; lp, reference);
        // ln p - ln m = ln 2 - softplus(ln q - ln p); a probability of 0 counts 0.
        let half = |p: &Ragged, q: &Ragged| {
            let possible = p.ne(f64::NEG_INFINITY);
            let (difference, p) = (only(&possible, &(q - p)), only(&possible, p));
            only(&possible, &(p.exp() * (LN_2 - difference.softplus())))
        };
        reduction.apply(&(sum_rows(&(half(lp, reference) + half(reference, lp))) * 0.5))
    }
}

/// Keeps the logprobs near those of a paired input, such as a paraphrase: `lp` and `paired` have
/// one shape.
///
/// Gradient, summed: `2 (l - l')` for the square, the sign of `l - l'` for the absolute value.
///
/// ```
/// # use tinsmith_grad::{Device, Ragged};
/// # let ragged = |seqs: &[Vec<f64>]| Ragged::from_vecs(seqs, &Device::Cpu);
/// let lp = ragged(&[vec![-1.0, -2.0]]);
/// let paired = ragged(&[vec![-2.0, -5.0]]);
/// assert_eq!(tinsmith_losses::regularize::consistency(&lp, &paired, &Default::default()).item()?, 5.0); // (1 + 9) / 2
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn consistency(lp: &Ragged, paired: &Ragged, config: &ConsistencyConfig) -> Var {
    at_caller! {
        alike!("consistency"; lp, paired);
        let difference = || lp - paired;
        match config.metric {
            ConsistencyMetric::Mse => config.reduction.apply(difference().square().values()),
            ConsistencyMetric::L1 => config.reduction.apply(difference().abs().values()),
            ConsistencyMetric::Cosine => {
                let norm = |x: &Ragged| x.values().norm().clamp_min(1e-8);
                1.0 - (lp * paired).sum() / (norm(lp) * norm(paired))
            }
            ConsistencyMetric::Kl => config.reduction.apply(&symmetric_kl_rows(lp, paired)),
        }
    }
}

/// Sums of rows: over K for `[tokens, K]`, over a sequence for `[tokens]`.
#[track_caller]
fn sum_rows(x: &Ragged) -> Var {
    match x.values().rank() {
        0 | 1 => x.sum_per_seq(),
        _ => x.values().sum_dims(&[-1]),
    }
}

#[track_caller]
fn log_softmax_rows(x: &Ragged) -> Ragged {
    match x.values().rank() {
        0 | 1 => x - x.expand(&x.logsumexp_per_seq()),
        _ => x.map(|x| x.log_softmax(-1)),
    }
}

/// Each row's entropy over that of the uniform distribution of its size, ln K; 0 for a row of one.
#[track_caller]
fn over_uniform(entropy: &Var, lp: &Ragged) -> Var {
    match lp.values().shape() {
        [_, .., k] => entropy / (*k.max(&2) as f64).ln(),
        _ => entropy / or_one(&lp.counts().log()),
    }
}

/// KL(p ‖ q) of each row.
#[track_caller]
fn kl_rows(log_p: &Ragged, log_q: &Ragged) -> Var {
    // Selected before the logarithms meet: -∞ from -∞ is NaN.
    let ignored = log_p.le(1e-10f64.ln());
    let (log_p, log_q) = (ignored.where_(0.0, log_p), ignored.where_(0.0, log_q));
    sum_rows(&(log_p.exp() * (&log_p - log_q).clamp(-100.0, 100.0)))
}

#[track_caller]
fn symmetric_kl_rows(a: &Ragged, b: &Ragged) -> Var {
    (kl_rows(a, b) + kl_rows(b, a)) * 0.5
}
