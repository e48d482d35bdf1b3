//! Seeded random numbers: one independent stream for each purpose, the same on every machine.

use std::f64::consts::TAU;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A stream for `purpose` under `seed`. Streams of different purposes are independent, and adding
/// one changes no other.
pub(crate) fn stream(seed: u64, purpose: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(derive(seed, purpose))
}

/// A seed for `purpose` under `seed`.
pub(crate) fn derive(seed: u64, purpose: &str) -> u64 {
    digest(seed, purpose.bytes())
}

/// 64-bit FNV-1a over `seed` and `bytes`.
pub(crate) fn digest(seed: u64, bytes: impl Iterator<Item = u8>) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// `n` draws from the normal distribution of mean 0 and standard deviation `std` (Box-Muller).
pub(crate) fn normal(rng: &mut ChaCha8Rng, n: usize, std: f64) -> Vec<f32> {
    let mut draw = || {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        (std * radius * (TAU * rng.random::<f64>()).cos()) as f32
    };
    (0..n).map(|_| draw()).collect()
}

/// `n` draws, uniform in `[-bound, bound)`.
pub(crate) fn uniform(rng: &mut ChaCha8Rng, n: usize, bound: f64) -> Vec<f32> {
    (0..n).map(|_| (bound * (2.0 * rng.random::<f64>() - 1.0)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_draws_have_the_asked_moments() {
        let draws = normal(&mut stream(7, "test"), 100_000, 0.5);
        let mean = draws.iter().map(|&x| f64::from(x)).sum::<f64>() / 1e5;
        let var = draws.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.01, "{mean}");
        assert!((var - 0.25).abs() < 0.005, "{var}");
    }

    #[test]
    fn streams_differ_by_seed_and_purpose_and_repeat() {
        let first = |seed, purpose| uniform(&mut stream(seed, purpose), 4, 1.0);
        assert_eq!(first(1, "a"), first(1, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
        assert_ne!(first(1, "a"), first(2, "a"));
    }
}
