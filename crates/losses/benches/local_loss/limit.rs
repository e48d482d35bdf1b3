//! What no engine can beat: loops written by hand for the one job, into a buffer that is there
//! already.

use pulp::{Arch, Simd, WithSimd};

use crate::CLIP;
use crate::batch::Batch;

/// `g = x + y * z`, which reads and writes as many bytes as PPO with its gradient must.
pub fn triad(batch: &Batch, gradient: &mut [f32]) {
    Arch::new().dispatch(|| {
        let inputs = batch.logprobs.iter().zip(&batch.old).zip(&batch.weights);
        for (g, ((x, y), z)) in gradient.iter_mut().zip(inputs) {
            *g = x + y * z;
        }
    });
}

/// PPO's loss; its gradient goes to `gradient`.
pub fn fused_ppo(batch: &Batch, gradient: &mut [f32]) -> f64 {
    Arch::new().dispatch(FusedPpo { batch, gradient })
}

struct FusedPpo<'a> {
    batch: &'a Batch,
    gradient: &'a mut [f32],
}

/// Terms are added up in f32, in this many lanes, and once per sequence in f64.
const LANES: usize = 16;

impl WithSimd for FusedPpo<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let FusedPpo { batch, mut gradient } = self;
        let seqs = batch.seqs(&batch.logprobs).zip(batch.seqs(&batch.old));
        let seqs = seqs.zip(batch.seqs(&batch.weights)).zip(&batch.advantages);
        let mut loss = 0.0;
        for (((x, old), weights), &advantage) in seqs {
            let (seq, rest) = gradient.split_at_mut(x.len());
            gradient = rest;
            loss -= ppo::<S>(x, old, weights, advantage, seq);
        }
        loss
    }
}

/// The sum of `w min(r a, clip(r) a)` with `r = e^(x - old)`, and minus its gradient.
#[inline(always)]
fn ppo<S: Simd>(x: &[f32], old: &[f32], weights: &[f32], a: f32, g: &mut [f32]) -> f64 {
    let token = |x: f32, old: f32, w: f32, g: &mut f32, sum: &mut f32| {
        let ratio = exp::<S>(x - old);
        let clipped = if ratio < CLIP.0 { CLIP.0 } else { ratio };
        let clipped = if clipped > CLIP.1 { CLIP.1 } else { clipped };
        let (free, clipped) = (ratio * a * w, clipped * a * w);
        // Where the clipped side is the smaller one the gradient is 0.
        *g = if free <= clipped { -free } else { 0.0 };
        *sum += if free <= clipped { free } else { clipped };
    };
    let mut sums = [0.0; LANES];
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (old, old_rest) = old.as_chunks::<LANES>();
    let (weights, weights_rest) = weights.as_chunks::<LANES>();
    let (g, g_rest) = g.as_chunks_mut::<LANES>();
    for (((x, old), w), g) in x.iter().zip(old).zip(weights).zip(g) {
        for i in 0..LANES {
            token(x[i], old[i], w[i], &mut g[i], &mut sums[i]);
        }
    }
    let rest = x_rest.iter().zip(old_rest).zip(weights_rest).zip(g_rest);
    for ((((&x, &old), &w), g), sum) in rest.zip(&mut sums) {
        token(x, old, w, g, sum);
    }
    sums.into_iter().map(f64::from).sum()
}

/// `e^x` for `|x| < 80`, to 2 ulp: `2^n e^r`, the latter a polynomial (Cephes' `expf`).
#[inline(always)]
fn exp<S: Simd>(x: f32) -> f32 {
    /// Adding it rounds to an integer, which then sits in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    const COEFFICIENTS: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];
    let rounded = mul_add::<S>(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = mul_add::<S>(n, -LN_2.1, mul_add::<S>(n, -LN_2.0, x));
    let polynomial = COEFFICIENTS.into_iter().reduce(|sum, c| mul_add::<S>(sum, r, c));
    let power =
        f32::from_bits((rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23);
    (mul_add::<S>(polynomial.unwrap_or(0.0), r * r, r) + 1.0) * power
}

/// `a * b + c`, in one instruction where there is one.
#[inline(always)]
fn mul_add<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::IS_SCALAR { a * b + c } else { a.mul_add(b, c) }
}
