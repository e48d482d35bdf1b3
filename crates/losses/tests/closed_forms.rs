//! Values and gradients of the losses that no golden vector holds, worked out by their formulas.

mod support;

use support::{gradient, vec};
use tinsmith_grad::{Device, Ragged, Var, check_finite};
use tinsmith_losses::*;

fn ragged(seqs: &[&[f64]]) -> Ragged {
    Ragged::from_vecs(seqs, &Device::Cpu)
}

fn per_seq(x: &[f64]) -> Var {
    Var::from_vec(x.to_vec(), &[x.len()], &Device::Cpu)
}

#[track_caller]
fn close(name: &str, found: &[f64], want: &[f64]) {
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * b.abs().max(1.0);
    assert_eq!(found.len(), want.len(), "{name}");
    assert!(found.iter().zip(want).all(close), "{name}: {found:?}, want {want:?}");
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Ratios 1, 2, ½, 3; advantages 2 and -1.
fn sample() -> (Ragged, Ragged, Var, Ragged) {
    let lp = ragged(&[&[-0.5, -0.75], &[-1.0, -0.25]]);
    let old = ragged(&[&[-0.5, -0.75 - 2f64.ln()], &[-1.0 + 2f64.ln(), -0.25 - 3f64.ln()]]);
    (lp, old, per_seq(&[2.0, -1.0]), ragged(&[&[1.0, 1.0], &[1.0, 1.0]]))
}

const RATIOS: [f64; 4] = [1.0, 2.0, 0.5, 3.0];
const ADVANTAGES: [f64; 4] = [2.0, 2.0, -1.0, -1.0];

#[test]
fn sapo_is_a_soft_gate() {
    let (lp, old, advantages, ones) = sample();
    let config = SapoConfig::default().tau_pos(1.5).tau_neg(2.5).aggregation(Aggregation::Sum);
    let loss = sapo(&lp, &old, &advantages, &ones, &config);
    let tau = |a: f64| if a > 0.0 { 1.5 } else { 2.5 };
    let of = |f: fn(f64, f64, f64) -> f64| -> Vec<f64> {
        let tokens = RATIOS.iter().zip(ADVANTAGES);
        tokens.map(|(&r, a)| f(r, a, tau(a))).collect()
    };
    let value: f64 = of(|r, a, tau| -4.0 / tau * sigmoid(tau * (r - 1.0)) * a).iter().sum();
    close("value", &[loss.item().unwrap()], &[value]);
    let slope = of(|r, a, tau| {
        let s = sigmoid(tau * (r - 1.0));
        -4.0 * s * (1.0 - s) * r * a
    });
    close("gradient", &gradient(&loss, &lp), &slope);
    // At a ratio of 1 it is the plain policy gradient.
    assert_eq!(gradient(&loss, &lp)[0], -2.0);
    // The default is the mean over sequences of token means: each of these four weighs a quarter.
    let config = config.aggregation(Aggregation::SeqMeanTokenMean);
    let mean = sapo(&lp, &old, &advantages, &ones, &config);
    close("mean", &[mean.item().unwrap()], &[value / 4.0]);
    assert_eq!(SapoConfig::default().aggregation, Aggregation::SeqMeanTokenMean);
}

/// The gate is flat far away: `-(4/τ) A` and 0, and no gradient.
#[test]
fn sapo_is_finite_whatever_the_ratio() {
    let lp = ragged(&[&[-1.0, -1e4]]);
    let old = ragged(&[&[-1e4, -1.0]]);
    let config = SapoConfig::default().aggregation(Aggregation::Sum);
    for a in [1.0, -1.0] {
        let loss = sapo(&lp, &old, &per_seq(&[a]), &ragged(&[&[1.0, 1.0]]), &config);
        let tau: f64 = if a > 0.0 { 1.0 } else { 1.05 };
        close("value", &[loss.item().unwrap()], &[-4.0 / tau * a * (1.0 + sigmoid(-tau))]);
        assert_eq!(gradient(&loss, &lp), [0.0, 0.0]);
        assert!(check_finite(&[&loss]).is_ok());
    }
}

/// p and q of each token, and whether it is kept at a threshold of 0.2 of total variation.
#[test]
fn dppo_leaves_out_what_has_moved_too_far_on_its_way() {
    let tokens: [(f64, f64, f64, f64); 8] = [
        (0.5, 0.2, 1.0, 0.0),  // grown by 0.3 and pushed up
        (0.5, 0.2, -1.0, 1.0), // pushed back
        (0.2, 0.5, -1.0, 0.0),
        (0.2, 0.5, 1.0, 1.0),
        (0.05, 0.01, 1.0, 1.0), // a ratio of 5, but by 0.04 only
        (0.8, 0.99, -1.0, 1.0),
        (0.4, 0.4, 1.0, 1.0),
        (0.9, 0.3, 0.0, 1.0), // without advantage
    ];
    let packed = |f: fn(&(f64, f64, f64, f64)) -> f64| {
        Ragged::from_vecs(&tokens.each_ref().map(|token| [f(token)]), &Device::Cpu)
    };
    let (lp, old) = (packed(|t| t.0.ln()), packed(|t| t.1.ln()));
    let advantages = per_seq(&tokens.map(|t| t.2));
    let config = DppoConfig::default().aggregation(Aggregation::Sum);
    let loss = dppo(&lp, &old, &advantages, &packed(|_| 1.0), &config);
    let gain = tokens.map(|(p, q, a, kept)| -kept * p / q * a);
    close("value", &[loss.item().unwrap()], &[gain.iter().sum()]);
    close("gradient", &gradient(&loss, &lp), &gain);

    // By KL at 0.05: q ln(q/p) + (1-q) ln((1-q)/(1-p)).
    let config = config.divergence(Divergence::Kl).threshold(0.05);
    let loss = dppo(&lp, &old, &advantages, &packed(|_| 1.0), &config);
    let kl = |p: f64, q: f64| q * (q / p).ln() + (1.0 - q) * ((1.0 - q) / (1.0 - p)).ln();
    let gain = tokens.map(|(p, q, a, _)| match kl(p, q) > 0.05 && (p - q) * a > 0.0 {
        true => 0.0,
        false => -p / q * a,
    });
    assert_eq!(gain[5], 0.0, "0.99 to 0.8 is farther by KL");
    close("gradient by KL", &gradient(&loss, &lp), &gain);
}

#[test]
fn dppo_takes_probabilities_of_one() {
    let (lp, old) = (ragged(&[&[0.0, -1e-12, -1.0]]), ragged(&[&[0.0, -1.0, 0.0]]));
    for divergence in [Divergence::TotalVariation, Divergence::Kl] {
        let config = DppoConfig::default().divergence(divergence);
        let loss = dppo(&lp, &old, &per_seq(&[1.0]), &ragged(&[&[1.0; 3]]), &config);
        // The second has grown by 0.63; the others have not grown.
        let want = [-1.0 / 3.0, 0.0, -(-1f64).exp() / 3.0];
        close("gradient", &gradient(&loss, &lp), &want);
    }
}

#[test]
fn the_value_loss_takes_the_worse_of_two_squares() {
    let (eps, old) = (0.5, [1.0; 6]);
    let values = [1.2, 2.0, 0.0, 2.0, 0.0, 1.5];
    let returns = [3.0, 3.0, -3.0, -3.0, 3.0, 1.5];
    let config = ValueConfig::default().clip(eps).aggregation(Aggregation::Sum);
    let v = ragged(&[&values]);
    let loss =
        value_loss(&v, &ragged(&[&old]), &ragged(&[&returns]), &ragged(&[&[1.0; 6]]), &config);
    let tokens: Vec<(f64, f64, f64)> = (0..6)
        .map(|i| (values[i], returns[i], values[i].clamp(old[i] - eps, old[i] + eps)))
        .collect();
    let value = tokens.iter().map(|(v, r, c)| 0.5 * (v - r).powi(2).max((c - r).powi(2)));
    close("value", &[loss.item().unwrap()], &[value.sum()]);
    // Within the clip; gone towards the return, twice; gone away from it, twice; at it.
    close("gradient", &gradient(&loss, &v), &[-1.8, 0.0, 0.0, 5.0, -3.0, 0.0]);
    let free = config.clip(f64::INFINITY);
    let loss = value_loss(&v, &ragged(&[&old]), &ragged(&[&returns]), &ragged(&[&[1.0; 6]]), &free);
    let slopes: Vec<f64> = tokens.iter().map(|(v, r, _)| v - r).collect();
    close("without a clip", &gradient(&loss, &v), &slopes);
}

#[test]
fn info_nce_picks_one_of_many() {
    let scores = ragged(&[&[1.0, 2.0, -1.0], &[0.5, 0.25], &[7.0]]);
    let positives = ragged(&[&[0.0, 1.0, 0.0], &[1.0, 3.0], &[1.0]]);
    let config = InfoNceConfig::default().temperature(0.5);
    let loss = info_nce(&scores, &positives, &config);
    let softmax = |s: &[f64]| -> Vec<f64> {
        let e: Vec<f64> = s.iter().map(|s| (s / 0.5).exp()).collect();
        e.iter().map(|x| x / e.iter().sum::<f64>()).collect()
    };
    let (p, q) = (softmax(&[1.0, 2.0, -1.0]), softmax(&[0.5, 0.25]));
    // The second query has two right ones, weighed 1 to 3; the third no choice.
    let value = -(p[1].ln() + 0.25 * q[0].ln() + 0.75 * q[1].ln()) / 3.0;
    close("value", &[loss.item().unwrap()], &[value]);
    let slope = [p[0], p[1] - 1.0, p[2], q[0] - 0.25, q[1] - 0.75, 0.0].map(|x| x / 0.5 / 3.0);
    close("gradient", &gradient(&loss, &scores), &slope);
    let sum = info_nce(&scores, &positives, &config.reduction(Reduction::Sum));
    close("sum", &[sum.item().unwrap()], &[3.0 * value]);

    // An impossible candidate counts nothing; great scores do not overflow.
    let scores = ragged(&[&[1e4, f64::NEG_INFINITY, 1e4]]);
    let loss = info_nce(&scores, &ragged(&[&[1.0, 0.0, 0.0]]), &Default::default());
    close("value", &[loss.item().unwrap()], &[2f64.ln()]);
    close("gradient", &gradient(&loss, &scores), &[-0.5, 0.0, 0.5]);
}

#[test]
fn a_sum_over_a_constant_does_not_see_lengths() {
    let (lp, weights) =
        (ragged(&[&[-1.0, -2.0, -3.0], &[-4.0]]), ragged(&[&[1.0, 0.0, 2.0], &[1.0]]));
    let loss = aggregate(&lp, &weights, Aggregation::SumOver(16.0));
    assert_eq!(loss.item().unwrap(), -11.0 / 16.0);
    let want: Vec<f64> = vec(weights.values()).iter().map(|w| w / 16.0).collect();
    assert_eq!(gradient(&loss, &lp), want);
    // Dr. GRPO: no deviation in the advantages, no length in the mean.
    let advantages = per_seq(&advantages::centered(&[1.0, 0.0]));
    let config = GrpoConfig::default().aggregation(Aggregation::SumOver(2.0 * 8.0));
    let loss = grpo(&lp, &lp.detach(), None, &advantages, &weights, &config);
    assert_eq!(gradient(&loss, &lp), [-0.5, 0.0, -1.0, 0.5].map(|g| g / 16.0));
}
