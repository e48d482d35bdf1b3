//! Every loss's gradient against something that is not this crate: central differences, or the
//! formula in its documentation where part of the loss is cut off from the gradient on purpose.

mod support;

use proptest::prelude::*;
use support::{Batch, TargetBatch, batch, close, gradient, target_batch, vec};
use tinsmith_grad::{Ragged, Var, gradcheck};
use tinsmith_losses::recipes::{self, DapoRecipe, GrpoRecipe, GspoRecipe, TisConfig, TisLevel};
use tinsmith_losses::regularize::*;
use tinsmith_losses::*;

type Loss<B> = fn(&Ragged, &B) -> Var;

/// Losses whose gradient is the derivative of their value. β of the hinge keeps its kink off the
/// grid.
const LOSSES: &[(&str, Loss<Batch>)] = &[
    ("cross_entropy", |lp, b| cross_entropy(lp, &b.mask)),
    ("mean_cross_entropy", |lp, b| mean_cross_entropy(lp, &b.mask)),
    ("token_mean_cross_entropy", |lp, b| token_mean_cross_entropy(lp, &b.mask)),
    ("variance", |lp, _| variance(lp, 1.0)),
    ("importance_sampling", |lp, b| {
        importance_sampling(lp, &b.old, &b.token_advantages(), &Default::default())
    }),
    ("ppo", |lp, b| ppo(lp, &b.old, &b.token_advantages(), &PpoConfig::default())),
    ("dro", |lp, b| dro(lp, &b.old, &b.token_advantages(), &DroConfig::default())),
    ("grpo", |lp, b| {
        let config = GrpoConfig::default().kl_beta(0.3);
        grpo(lp, &b.old, Some(&b.reference), &b.advantages, &b.mask, &config)
    }),
    ("dapo", |lp, b| grpo(lp, &b.old, None, &b.advantages, &b.mask, &GrpoConfig::dapo())),
    ("reinforce_kl", |lp, b| reinforce_kl(lp, &b.reference, &b.advantages, &b.mask, 0.3)),
    ("dpo", |lp, b| {
        dpo(lp, &b.reference, &b.mask, &DpoConfig::default().beta(0.7).label_smoothing(0.2))
    }),
    ("ipo", |lp, b| ipo(lp, &b.reference, &b.mask, &IpoConfig::default().label_smoothing(0.2))),
    ("hinge", |lp, b| {
        hinge(lp, &b.reference, &b.mask, &HingeConfig::default().beta(0.37).label_smoothing(0.2))
    }),
    ("simpo", |lp, b| simpo(lp, &b.mask, &SimpoConfig::default().label_smoothing(0.2))),
    ("bradley_terry", |lp, b| {
        bradley_terry(lp, &b.mask, &BradleyTerryConfig::default().label_smoothing(0.2))
    }),
    ("orpo", |lp, b| orpo(lp, &b.mask, &OrpoConfig::default().label_smoothing(0.2))),
    ("kto", |lp, b| {
        let config = KtoConfig::default().desirable_weight(1.3);
        kto(lp, &b.reference, &b.mask, &b.advantages.gt(0.0), &Var::scalar(0.25), &config)
    }),
    ("kl_k1", |lp, b| kl_k1(lp, &b.reference).sum()),
    ("kl_k2", |lp, b| kl_k2(lp, &b.reference).sum()),
    ("kl_k3", |lp, b| kl_k3(lp, &b.reference).sum()),
    ("kl_abs", |lp, b| kl_abs(lp, &b.reference).sum()),
    ("token mean", |lp, b| aggregate(&lp.exp(), &b.mask, Aggregation::TokenMean)),
    ("mean of sums", |lp, b| aggregate(&lp.exp(), &b.mask, Aggregation::SeqMeanTokenSum)),
    ("mean of means", |lp, b| aggregate(&lp.exp(), &b.mask, Aggregation::SeqMeanTokenMean)),
    ("sapo", |lp, b| {
        let config = SapoConfig::default().tau_neg(1.7);
        sapo(lp, &b.old, &b.advantages, &b.mask, &config)
    }),
    ("dppo", |lp, b| {
        let config = DppoConfig::default().threshold(0.1);
        dppo(lp, &b.old, &b.advantages, &b.mask, &config)
    }),
    ("dppo by KL", |lp, b| {
        let config = DppoConfig::default().divergence(Divergence::Kl).threshold(0.03);
        dppo(lp, &b.old, &b.advantages, &b.mask, &config)
    }),
    ("value_loss", |lp, b| {
        let config = ValueConfig::default().clip(0.3);
        value_loss(lp, &b.old, &b.reference, &b.mask, &config)
    }),
    ("info_nce", |lp, b| info_nce(lp, &b.mask, &InfoNceConfig::default().temperature(0.7))),
    ("recipe grpo", |lp, b| {
        let config = GrpoRecipe::default().kl_beta(0.3);
        recipes::grpo(lp, &b.rollout(), &config)
    }),
    ("recipe dapo", |lp, b| {
        let tis = TisConfig::default().icepop(1.7);
        let config = DapoRecipe::default().dual_clip(1.6);
        recipes::dapo(lp, &b.rollout().tis(tis), &config)
    }),
    ("recipe importance sampling", |lp, b| recipes::importance_sampling(lp, &b.rollout())),
    ("recipe dro", |lp, b| {
        let tis = TisConfig::default().level(TisLevel::Sequence);
        recipes::dro(lp, &b.rollout().tis(tis), &DroConfig::default())
    }),
    ("l1", |lp, _| l1(lp)),
    ("l1 of probabilities", |lp, _| {
        l1_with(lp, &L1Config::default().target(MagnitudeTarget::Probs))
    }),
    ("l2", |lp, _| l2_with(lp, &L2Config::default().center(Center::Mean).clip(0.7))),
    ("elastic_net", |lp, _| elastic_net(lp, &ElasticNetConfig::default().l1_ratio(0.3))),
    ("output_magnitude", |lp, _| output_magnitude(lp, &OutputMagnitudeConfig::default())),
    ("entropy", |lp, _| entropy(lp, &EntropyConfig::default().temperature(1.5).normalize(true))),
    ("kl_divergence", |lp, b| {
        kl_divergence(
            lp,
            &b.reference,
            &KlDivergenceConfig::default().direction(KlDirection::Symmetric),
        )
    }),
    ("jensen_shannon", |lp, b| jensen_shannon(lp, &b.reference, Reduction::Mean)),
    ("consistency, square", |lp, b| consistency(lp, &b.reference, &ConsistencyConfig::default())),
    ("consistency, cosine", |lp, b| {
        consistency(
            lp,
            &b.reference,
            &ConsistencyConfig::default().metric(ConsistencyMetric::Cosine),
        )
    }),
    ("gradient_penalty", |lp, _| gradient_penalty(lp, 1.0, |x| x.exp().sum())),
    ("a sum of losses", |lp, b| {
        ppo(lp, &b.old, &b.token_advantages(), &Default::default()) + l2(lp) * 0.1
    }),
];

const TARGET_LOSSES: &[(&str, Loss<TargetBatch>)] = &[
    ("cross_entropy", |lp, b| cross_entropy(lp, &b.target)),
    ("target_cross_entropy", |lp, b| target_cross_entropy(lp, &b.target).sum()),
    ("target_forward_kl", |lp, b| target_forward_kl(lp, &b.target).sum()),
    ("target_reverse_kl", |lp, b| target_reverse_kl(lp, &b.target).sum()),
    ("reverse_kl_topk", |lp, b| reverse_kl_topk(lp, &b.target.gt(0.2).where_(&b.target, 0.0))),
    ("brier", |lp, b| brier(lp, &b.target)),
    ("choice_cross_entropy", |lp, b| choice_cross_entropy(lp, &b.target)),
    ("entropy", |lp, _| entropy(lp, &EntropyConfig::default().normalize(true))),
    ("kl_divergence", |lp, b| kl_divergence(lp, &b.target.log(), &KlDivergenceConfig::default())),
    ("jensen_shannon", |lp, b| jensen_shannon(lp, &b.target.log(), Reduction::Sum)),
    ("orthogonality of rows", |lp, _| orthogonality(lp, &OrthogonalityConfig::default())),
    ("orthogonality of columns", |lp, _| {
        let config =
            OrthogonalityConfig::default().axis(GramAxis::Vocabulary).mode(GramMode::Spectral);
        orthogonality(&(lp * 0.25), &config.normalize(false))
    }),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn gradients_equal_central_differences(b in batch()) {
        for (name, loss) in LOSSES {
            let at = |x: &[Var]| loss(&Ragged::new(x[0].clone(), b.lp.lengths()), &b);
            let checked = gradcheck(at, &[b.lp.values().clone()]);
            prop_assert!(checked.is_ok(), "{name}: {}", checked.unwrap_err());
        }
    }

    #[test]
    fn gradients_with_many_targets_equal_central_differences(b in target_batch()) {
        for (name, loss) in TARGET_LOSSES {
            let at = |x: &[Var]| loss(&Ragged::new(x[0].clone(), b.lp.lengths()), &b);
            let checked = gradcheck(at, &[b.lp.values().clone()]);
            prop_assert!(checked.is_ok(), "{name}: {}", checked.unwrap_err());
        }
    }

    #[test]
    fn cispo_weighs_the_policy_gradient_by_a_limited_ratio(b in batch()) {
        let advantages = b.token_advantages();
        let loss = cispo(&b.lp, &b.old, &advantages, &CispoConfig::default().clip(Clip::ratio(0.7, 1.4)));
        let tokens = vec(b.lp.values()).into_iter().zip(vec(b.old.values())).zip(vec(advantages.values()));
        let want: Vec<f64> = tokens.map(|((l, old), a)| -(l - old).exp().clamp(0.7, 1.4) * a).collect();
        prop_assert!(close(&gradient(&loss, &b.lp), &want));
    }

    #[test]
    fn gspo_gives_each_token_the_sequence_ratio(b in batch()) {
        let bounds = (0.9, 1.1);
        let config = GspoConfig::default().clip(Clip::ratio(bounds.0, bounds.1));
        let loss = gspo(&b.lp, &b.old, &b.token_advantages(), &b.mask, &config);
        let want = sequence_ratio_gradient(&b, bounds, |_, active| active);
        prop_assert!(close(&gradient(&loss, &b.lp), &want));

        // With one number a sequence and the sum as aggregation, GSPO-token is the same.
        let config = GrpoConfig::gspo_token().clip(Clip::ratio(bounds.0, bounds.1));
        let config = config.aggregation(Aggregation::Sum);
        let loss = grpo(&b.lp, &b.old, None, &b.advantages, &b.mask, &config);
        prop_assert!(close(&gradient(&loss, &b.lp), &want));
    }

    #[test]
    fn recipe_gspo_averages_over_masked_tokens_too(b in batch()) {
        let config = GspoRecipe::default().clip(Clip::eps(0.1));
        let rollout = recipes::Rollout::new(&b.old, &b.advantages).weights(&b.mask);
        let loss = recipes::gspo(&b.lp, &rollout, &config);
        let want = sequence_ratio_gradient(&b, (0.9, 1.1), |_, _| true);
        prop_assert!(close(&gradient(&loss, &b.lp), &want));
    }

    #[test]
    fn recipe_reinforce_has_no_gradient_from_its_kl(b in batch()) {
        let with = recipes::reinforce(&b.lp, &b.rollout(), 0.5);
        let without = recipes::reinforce(&b.lp, &b.rollout(), 0.0);
        prop_assert!(close(&gradient(&with, &b.lp), &gradient(&without, &b.lp)));

        let tokens = vec(b.lp.values()).into_iter().zip(vec(b.reference.values())).zip(vec(b.mask.values()));
        let kl: f64 = tokens.map(|((l, reference), m)| (l - reference) * m).sum();
        prop_assert!(close(&[with.item().unwrap() - without.item().unwrap()], &[0.5 * kl]));
    }
}

/// `-e^m·A` on active tokens where PPO's condition on `e^m` holds, m being the mean of `l - old`
/// over the `counted` tokens.
fn sequence_ratio_gradient(
    b: &Batch,
    (low, high): (f64, f64),
    counted: fn(usize, bool) -> bool,
) -> Vec<f64> {
    let (lp, old, mask) = (vec(b.lp.values()), vec(b.old.values()), vec(b.mask.values()));
    let mut gradient = Vec::new();
    for (range, a) in b.lp.offsets().windows(2).map(|w| w[0]..w[1]).zip(vec(&b.advantages)) {
        let counted: Vec<usize> = range.clone().filter(|&t| counted(t, mask[t] > 0.0)).collect();
        let ratio =
            (counted.iter().map(|&t| lp[t] - old[t]).sum::<f64>() / counted.len() as f64).exp();
        let flows = if a > 0.0 { ratio <= high } else { ratio >= low };
        gradient.extend(range.map(|t| if flows { -ratio * a * mask[t] } else { 0.0 }));
    }
    gradient
}
