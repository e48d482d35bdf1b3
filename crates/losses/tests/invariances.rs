//! What must hold whatever the numbers are.

mod support;

use proptest::prelude::*;
use support::{Batch, batch, close, gradient, vec};
use tinsmith_grad::{Device, Ragged, Var};
use tinsmith_losses::regularize::*;
use tinsmith_losses::*;

type Loss = fn(&Batch) -> Var;

/// Losses that are sums over sequences.
const SUMS: &[(&str, Loss)] = &[
    ("cross_entropy", |b| cross_entropy(&b.lp, &b.mask)),
    ("importance_sampling", |b| {
        importance_sampling(&b.lp, &b.old, &b.token_advantages(), &Default::default())
    }),
    ("ppo", |b| ppo(&b.lp, &b.old, &b.token_advantages(), &Default::default())),
    ("cispo", |b| cispo(&b.lp, &b.old, &b.token_advantages(), &Default::default())),
    ("dro", |b| dro(&b.lp, &b.old, &b.token_advantages(), &Default::default())),
    ("gspo", |b| gspo(&b.lp, &b.old, &b.token_advantages(), &b.mask, &Default::default())),
    ("kl_k3", |b| kl_k3(&b.lp, &b.reference).sum()),
    ("recipe grpo", |b| recipes::grpo(&b.lp, &b.rollout(), &Default::default())),
    ("recipe dapo", |b| recipes::dapo(&b.lp, &b.rollout(), &Default::default())),
    ("recipe cispo", |b| recipes::cispo(&b.lp, &b.rollout(), &Default::default())),
    ("recipe dro", |b| recipes::dro(&b.lp, &b.rollout(), &Default::default())),
    ("recipe gspo", |b| recipes::gspo(&b.lp, &b.rollout(), &Default::default())),
    ("recipe reinforce", |b| recipes::reinforce(&b.lp, &b.rollout(), 0.1)),
    ("l1", |b| l1(&b.lp)),
    ("l2", |b| l2(&b.lp)),
];

/// Losses that do not depend on the order of sequences, or of pairs.
const SYMMETRIC: &[(&str, Loss)] = &[
    ("mean_cross_entropy", |b| mean_cross_entropy(&b.lp, &b.mask)),
    ("token_mean_cross_entropy", |b| token_mean_cross_entropy(&b.lp, &b.mask)),
    ("variance", |b| variance(&b.lp, 1.0)),
    ("grpo", |b| {
        grpo(&b.lp, &b.old, Some(&b.reference), &b.advantages, &b.mask, &Default::default())
    }),
    ("gspo_token", |b| {
        grpo(&b.lp, &b.old, None, &b.advantages, &b.mask, &GrpoConfig::gspo_token())
    }),
    ("dpo", |b| dpo(&b.lp, &b.reference, &b.mask, &Default::default())),
    ("ipo", |b| ipo(&b.lp, &b.reference, &b.mask, &Default::default())),
    ("hinge", |b| hinge(&b.lp, &b.reference, &b.mask, &Default::default())),
    ("simpo", |b| simpo(&b.lp, &b.mask, &Default::default())),
    ("orpo", |b| orpo(&b.lp, &b.mask, &Default::default())),
    ("bradley_terry", |b| bradley_terry(&b.lp, &b.mask, &Default::default())),
    ("entropy", |b| entropy(&b.lp, &Default::default())),
    ("consistency", |b| consistency(&b.lp, &b.reference, &Default::default())),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_batch_is_the_sum_of_its_sequences(b in batch()) {
        for (name, loss) in SUMS {
            let singles: Vec<Batch> = (0..b.lp.num_seqs()).map(|i| b.select(&[i])).collect();
            let sum: f64 = singles.iter().map(|single| loss(single).item().unwrap()).sum();
            let gradients: Vec<f64> = singles.iter().flat_map(|single| gradient(&loss(single), &single.lp)).collect();
            prop_assert!(close(&[loss(&b).item().unwrap()], &[sum]), "{name}");
            prop_assert!(close(&gradient(&loss(&b), &b.lp), &gradients), "{name}");
        }
    }

    #[test]
    fn permuting_pairs_permutes_gradients(b in batch(), turn in 0..6usize) {
        let pairs = b.lp.num_seqs() / 2;
        let order: Vec<usize> = (0..pairs).flat_map(|p| { let q = (p + turn) % pairs; [2 * q, 2 * q + 1] }).collect();
        let permuted = b.select(&order);
        for (name, loss) in SUMS.iter().chain(SYMMETRIC) {
            let straight = Ragged::new(
                Var::from_vec(gradient(&loss(&b), &b.lp), &[b.lp.total()], &Device::Cpu),
                b.lp.lengths(),
            );
            prop_assert!(close(&[loss(&permuted).item().unwrap()], &[loss(&b).item().unwrap()]), "{name}");
            let want = vec(straight.select(&order).values());
            prop_assert!(close(&gradient(&loss(&permuted), &permuted.lp), &want), "{name}");
        }
    }

    #[test]
    fn ppo_without_bounds_is_importance_sampling(b in batch()) {
        let unbounded = PpoConfig::default().clip(Clip::NONE);
        let clipped = ppo(&b.lp, &b.old, &b.token_advantages(), &unbounded);
        let plain = importance_sampling(&b.lp, &b.old, &b.token_advantages(), &Default::default());
        prop_assert!(close(&[clipped.item().unwrap()], &[plain.item().unwrap()]));
        prop_assert!(close(&gradient(&clipped, &b.lp), &gradient(&plain, &b.lp)));
    }

    #[test]
    fn ppo_on_its_own_samples_is_the_plain_policy_gradient(b in batch()) {
        let loss = ppo(&b.lp, &b.lp.detach(), &b.token_advantages(), &Default::default());
        let want: Vec<f64> = vec(b.token_advantages().values()).iter().map(|a| -a).collect();
        prop_assert!(close(&gradient(&loss, &b.lp), &want));
    }

    #[test]
    fn swapping_a_pair_mirrors_dpo(b in batch()) {
        // σ(z) + σ(-z) = 1, and the loss is -ln σ.
        let config = DpoConfig::default().beta(0.7);
        let swapped: Vec<usize> = (0..b.lp.num_seqs()).map(|i| i ^ 1).collect();
        let mirrored = b.select(&swapped);
        for pair in 0..b.lp.num_seqs() / 2 {
            let pair = [2 * pair, 2 * pair + 1];
            let (this, other) = (b.select(&pair), mirrored.select(&pair));
            let probability = |b: &Batch| (-dpo(&b.lp, &b.reference, &b.mask, &config)).exp().item().unwrap();
            prop_assert!(close(&[probability(&this) + probability(&other)], &[1.0]));
        }
    }

    #[test]
    fn kl_estimators_agree_in_expectation(logits in prop::collection::vec((-2.0..2.0, -1.0..1.0), 2..6)) {
        // Over all tokens, weighted by their probability: k1 and k3 give the KL itself, k2 gives it
        // to second order.
        let (scale, n) = (1e-2f64, logits.len());
        let row = |x: Vec<f64>| Ragged::new(Var::from_vec(x, &[n], &Device::Cpu).log_softmax(0), &[n]);
        let reference = row(logits.iter().map(|(x, _)| *x).collect());
        let lp = row(logits.iter().map(|(x, dx)| x + scale * dx).collect());
        let expected = |estimate: Ragged| (estimate * lp.exp()).sum().item().unwrap();
        let kl = kl_divergence(&lp, &reference, &Default::default()).item().unwrap();
        prop_assert!((expected(kl_k1(&lp, &reference)) - kl).abs() < 1e-14);
        prop_assert!((expected(kl_k3(&lp, &reference)) - kl).abs() < 1e-14);
        prop_assert!((expected(kl_k2(&lp, &reference)) - kl).abs() < 2.0 * scale.powi(3));
    }

    #[test]
    fn masked_tokens_may_hold_anything(b in batch(), ours in junk(), theirs in junk()) {
        let spoil = |x: &Ragged, junk: f64| b.mask.gt(0.0).where_(x, junk);
        let spoilt = Batch {
            lp: spoil(&b.lp, ours),
            old: spoil(&b.old, theirs),
            sampled: spoil(&b.sampled, ours),
            reference: spoil(&b.reference, theirs),
            ..b.clone()
        };
        for (name, loss) in [
            ("ppo", (|b| ppo(&b.lp, &b.old, &b.token_advantages(), &Default::default())) as Loss),
            ("grpo", |b| grpo(&b.lp, &b.old, Some(&b.reference), &b.advantages, &b.mask, &Default::default())),
            ("recipe grpo", |b| recipes::grpo(&b.lp, &b.rollout(), &Default::default())),
            ("recipe dro", |b| recipes::dro(&b.lp, &b.rollout(), &Default::default())),
            ("gspo", |b| gspo(&b.lp, &b.old, &b.token_advantages(), &b.mask, &Default::default())),
            ("dpo", |b| dpo(&b.lp, &b.reference, &b.mask, &Default::default())),
        ] {
            prop_assert!(close(&[loss(&spoilt).item().unwrap()], &[loss(&b).item().unwrap()]), "{name}");
            prop_assert!(close(&gradient(&loss(&spoilt), &spoilt.lp), &gradient(&loss(&b), &b.lp)), "{name}");
        }
    }
}

/// Logprobs whose ratios overflow, one way or the other.
fn junk() -> impl Strategy<Value = f64> {
    prop::sample::select(vec![0.0, -1.0, -1e4])
}
