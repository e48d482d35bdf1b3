use tinsmith_grad::{Ragged, Var};

use crate::at_caller;
use crate::config::config;
use crate::inputs::slots;

/// How [`orthogonality`] measures the products G of the vectors with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GramMode {
    /// `Σ_{i≠j} G_ij²`: different vectors should be orthogonal.
    #[default]
    Soft,
    /// `Σ (G - I)²`: and of length 1.
    Hard,
    /// `Soft + (tr G - n)²`: and of length 1 on average.
    Spectral,
}

/// Which vectors [`orthogonality`] compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GramAxis {
    /// The rows, one per position.
    #[default]
    Rows,
    /// The columns, one per slot of the K.
    Vocabulary,
}

config! {
    /// Options of [`orthogonality`].
    pub struct OrthogonalityConfig {
        /// The measure.
        mode: GramMode = GramMode::Soft,
        /// The vectors.
        axis: GramAxis = GramAxis::Rows,
        /// Whether vectors are scaled to length 1 first (those shorter than 1e-8 by 1e8).
        normalize: bool = true,
    }
}

/// Keeps the vectors of a sequence apart: a measure of `G = X Xᵀ`, per sequence X of `[tokens, K]`,
/// summed over sequences.
///
/// One matrix product a sequence, of cost tokens²·K for rows. Gradient of soft, unnormalized:
/// `4 (G - diag G) X`. Soft orthogonality: Bansal et al., 2018 (arXiv:1810.09102).
///
/// ```
/// # use tinsmith_grad::{Device, Ragged, Var};
/// let lp = Ragged::new(Var::from_vec(vec![3.0, 4.0, 5.0, 0.0], &[2, 2], &Device::Cpu), &[2]);
/// let loss = tinsmith_losses::regularize::orthogonality(&lp, &Default::default());
/// assert!((loss.item()? - 0.72).abs() < 1e-12); // the cosine is 0.6, squared, twice
/// # anyhow::Ok(())
/// ```
#[track_caller]
pub fn orthogonality(lp: &Ragged, config: &OrthogonalityConfig) -> Var {
    at_caller! {
        slots!("orthogonality"; lp);
        let zero = Var::zeros(&[], lp.values().dtype(), lp.values().device());
        lp.seqs().iter().fold(zero, |sum, x| sum + of_matrix(x, config))
    }
}

#[track_caller]
fn of_matrix(x: &Var, config: &OrthogonalityConfig) -> Var {
    let x = match config.axis {
        GramAxis::Rows => x.clone(),
        GramAxis::Vocabulary => x.t(),
    };
    let norm = || x.square().sum_keepdim(&[-1]).clamp_min(1e-16).sqrt();
    let x = if config.normalize { &x / norm() } else { x };
    let gram = x.matmul(&x.t());
    let eye = eye(&gram);
    let soft = || (&gram * (1.0 - &eye)).square().sum();
    match config.mode {
        GramMode::Soft => soft(),
        GramMode::Hard => (&gram - &eye).square().sum(),
        GramMode::Spectral => soft() + ((&gram * &eye).sum() - eye.sum()).square(),
    }
}

/// The identity of the shape of `square`.
#[track_caller]
fn eye(square: &Var) -> Var {
    let n = square.shape().first().copied().unwrap_or(0);
    let index: Vec<u32> = (0..n as u32).collect();
    let column = Var::from_vec(index.clone(), &[n, 1], square.device());
    column.eq(Var::from_vec(index, &[1, n], square.device())).to_dtype(square.dtype())
}
