//! Choosing the next token from logits.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// How the next token is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Draw among this many likeliest tokens; 0 among all.
    pub top_k: usize,
    /// Draw among the likeliest tokens that together reach this probability (at the given
    /// temperature).
    pub top_p: f64,
}

impl Choice {
    /// Draws a token; with it its logprob under the model itself, whatever the temperature and the
    /// cuts.
    pub(crate) fn draw(&self, logits: &[f32], rng: &mut ChaCha8Rng) -> (u32, f32) {
        let token = match self.temperature > 0.0 {
            true => self.sample(logits, rng),
            false => argmax(logits),
        };
        (token as u32, logits[token] - logsumexp(logits))
    }

    fn sample(&self, logits: &[f32], rng: &mut ChaCha8Rng) -> usize {
        let top = f64::from(logits[argmax(logits)]);
        let weight = |l: f32| ((f64::from(l) - top) / self.temperature).exp();
        let mut tokens: Vec<(usize, f64)> = logits.iter().map(|&l| weight(l)).enumerate().collect();
        if self.top_k > 0 || self.top_p < 1.0 {
            // Likeliest first; the stable sort keeps ties in id order.
            tokens.sort_by(|a, b| b.1.total_cmp(&a.1));
            if self.top_k > 0 {
                tokens.truncate(self.top_k);
            }
            let nucleus = self.top_p * total(&tokens);
            let mut sum = 0.0;
            let kept = tokens.iter().take_while(|(_, w)| {
                let wanted = sum < nucleus;
                sum += w;
                wanted
            });
            let kept = kept.count().max(1);
            tokens.truncate(kept);
        }
        let mut left = rng.random::<f64>() * total(&tokens);
        let last = tokens.len() - 1;
        tokens
            .iter()
            .find(|(_, w)| {
                left -= w;
                left < 0.0
            })
            .unwrap_or(&tokens[last])
            .0
    }
}

/// The `k` likeliest tokens and their logprobs, likeliest first.
pub(crate) fn top(logits: &[f32], k: usize) -> Vec<(u32, f32)> {
    let norm = logsumexp(logits);
    let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().map(|l| l - norm)).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.truncate(k);
    all
}

pub(crate) fn logsumexp(logits: &[f32]) -> f32 {
    let top = f64::from(logits[argmax(logits)]);
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - top).exp()).sum();
    (top + sum.ln()) as f32
}

/// The first of the largest.
fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (i, l) in logits.iter().enumerate() {
        if *l > logits[best] {
            best = i;
        }
    }
    best
}

fn total(tokens: &[(usize, f64)]) -> f64 {
    tokens.iter().map(|(_, w)| w).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    const PLAIN: Choice = Choice { temperature: 1.0, top_k: 0, top_p: 1.0 };

    /// Shares of each token among many draws.
    fn shares(choice: Choice, probs: &[f64]) -> Vec<f64> {
        let logits: Vec<f32> = probs.iter().map(|p| p.ln() as f32).collect();
        let mut rng = random::stream(3, "test");
        let mut counts = vec![0.0; probs.len()];
        for _ in 0..20_000 {
            let (token, logprob) = choice.draw(&logits, &mut rng);
            assert!((f64::from(logprob) - probs[token as usize].ln()).abs() < 1e-5);
            counts[token as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    fn assert_close(got: &[f64], want: &[f64]) {
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() < 0.015, "{got:?} {want:?}");
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        assert_close(&shares(PLAIN, &[0.5, 0.2, 0.3]), &[0.5, 0.2, 0.3]);
    }

    #[test]
    fn temperature_half_squares_the_odds() {
        let cold = Choice { temperature: 0.5, ..PLAIN };
        let norm = 0.25 + 0.04 + 0.09;
        assert_close(&shares(cold, &[0.5, 0.2, 0.3]), &[0.25 / norm, 0.04 / norm, 0.09 / norm]);
    }

    #[test]
    fn temperature_zero_takes_the_likeliest() {
        let greedy = Choice { temperature: 0.0, ..PLAIN };
        assert_eq!(shares(greedy, &[0.2, 0.5, 0.3])[0], 0.0);
        assert_eq!(greedy.draw(&[0.0, 1.0, 1.0], &mut random::stream(0, "")).0, 1);
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let two = Choice { top_k: 2, ..PLAIN };
        assert_close(&shares(two, &[0.5, 0.2, 0.3]), &[0.625, 0.0, 0.375]);
        // 0.5 alone does not reach 0.6, so the next likeliest joins.
        let nucleus = Choice { top_p: 0.6, ..PLAIN };
        assert_close(&shares(nucleus, &[0.5, 0.2, 0.3]), &[0.625, 0.0, 0.375]);
        let tiny = Choice { top_p: 1e-9, ..PLAIN };
        assert_close(&shares(tiny, &[0.5, 0.2, 0.3]), &[1.0, 0.0, 0.0]);
    }

    #[test]
    fn top_tokens_carry_their_logprobs() {
        let top = top(&[0.0, 2f32.ln(), 0.0], 2);
        assert_eq!(top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 0]);
        assert!((top[0].1 - 0.5f32.ln()).abs() < 1e-6 && (top[1].1 - 0.25f32.ln()).abs() < 1e-6);
    }
}
