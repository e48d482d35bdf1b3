//! Options at their limits: ranges that nobody means are refused, with the caller's line, and caps
//! are where they are said to be.

mod support;

use support::gradient;
use tinsmith_grad::{Device, Ragged, Var};
use tinsmith_losses::recipes::{
    self, CispoRecipe, DapoRecipe, GrpoRecipe, GspoRecipe, Rollout, TisConfig,
};
use tinsmith_losses::regularize::{
    ElasticNetConfig, EntropyConfig, L1Config, L2Config, OutputMagnitudeConfig, elastic_net,
    entropy, gradient_penalty, l1_with, l2_with, output_magnitude,
};
use tinsmith_losses::*;

fn ragged(seqs: &[&[f64]]) -> Ragged {
    Ragged::from_vecs(seqs, &Device::Cpu)
}

#[track_caller]
fn refused(loss: &Var, words: &str) {
    let error = loss.sum().item().expect_err(words).to_string();
    assert!(error.contains(words) && error.contains("options.rs:"), "{error}");
}

/// Each clipped loss with `clip`.
fn clipped_losses(clip: Clip) -> Vec<Var> {
    let (lp, a) = (ragged(&[&[-1.0], &[-2.0]]), Var::from_vec(vec![1.0, -1.0], &[2], &Device::Cpu));
    let per_token = lp.expand(&a);
    let rollout = Rollout::new(&lp, &a);
    vec![
        ppo(&lp, &lp, &per_token, &PpoConfig::default().clip(clip)),
        cispo(&lp, &lp, &per_token, &CispoConfig::default().clip(clip)),
        gspo(&lp, &lp, &per_token, &per_token, &GspoConfig::default().clip(clip)),
        grpo(&lp, &lp, None, &a, &per_token, &GrpoConfig::default().clip(clip)),
        recipes::grpo(&lp, &rollout, &GrpoRecipe::default().clip(clip)),
        recipes::dapo(&lp, &rollout, &DapoRecipe::default().clip(clip)),
        recipes::cispo(&lp, &rollout, &CispoRecipe::default().clip(clip)),
        recipes::gspo(&lp, &rollout, &GspoRecipe::default().clip(clip)),
        recipes::ratio_metrics(&lp, &rollout.active(), clip).clip_fraction,
        clipped(&lp, &lp, clip).sum(),
    ]
}

#[test]
fn a_clip_range_without_one_is_refused() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    for (low, high) in [
        (0.2, 0.2), // distances where ratios are meant
        (0.2, 0.28),
        (1.2, 0.8),
        (-0.1, 1.2),
        (1.1, 1.2),
        (nan, 1.2),
        (0.8, nan),
        (inf, inf),
        (0.8, -inf),
    ] {
        for loss in clipped_losses(Clip::ratio(low, high)) {
            refused(&loss, "the range must contain 1");
        }
    }
    for clip in [
        Clip::eps(nan),
        Clip::eps(-0.1),
        Clip::eps_low_high(-0.2, 0.5),
        Clip::eps_low_high(0.2, -0.1),
    ] {
        for loss in clipped_losses(clip) {
            refused(&loss, "the range must contain 1");
        }
    }
}

#[test]
fn a_clip_range_with_one_is_not() {
    for clip in [Clip::NONE, Clip::ratio(1.0, 1.0), Clip::eps(0.0), Clip::eps(1.0), Clip::eps(7.0)]
    {
        for loss in clipped_losses(clip) {
            assert!(loss.item().unwrap().is_finite(), "{clip:?}");
        }
    }
    assert_eq!(Clip::eps(7.0), Clip::ratio(0.0, 8.0));
}

#[test]
fn the_error_has_the_line_of_the_call() {
    let (lp, config) = (ragged(&[&[-1.0]]), PpoConfig::default().clip(Clip::ratio(0.2, 0.2)));
    let line = line!() + 1;
    let error = ppo(&lp, &lp, &lp, &config).item().unwrap_err().to_string();
    assert!(
        error.starts_with("ppo: an importance ratio cannot be clipped to 0.2..=0.2"),
        "{error}"
    );
    assert!(error.contains(&format!("options.rs:{line}:")), "{error}");
}

#[test]
fn other_options_out_of_range_are_refused() {
    let (lp, a) = (ragged(&[&[-1.0], &[-2.0]]), Var::from_vec(vec![1.0, -1.0], &[2], &Device::Cpu));
    let rollout = Rollout::new(&lp, &a).sampled(&lp);
    for bad in [f64::NAN, 0.0, -3.0] {
        let cap = "must be above 0";
        let config = ImportanceSamplingConfig::default().ratio_log_cap(bad);
        refused(&importance_sampling(&lp, &lp, &lp, &config), cap);
        refused(&ppo(&lp, &lp, &lp, &PpoConfig::default().ratio_log_cap(bad)), cap);
        refused(&cispo(&lp, &lp, &lp, &CispoConfig::default().ratio_log_cap(bad)), cap);
        refused(&gspo(&lp, &lp, &lp, &lp, &GspoConfig::default().ratio_log_cap(bad)), cap);
        refused(&grpo(&lp, &lp, None, &a, &lp, &GrpoConfig::default().ratio_log_cap(bad)), cap);
        refused(&sapo(&lp, &lp, &a, &lp, &SapoConfig::default().ratio_log_cap(bad)), cap);
        refused(&dppo(&lp, &lp, &a, &lp, &DppoConfig::default().ratio_log_cap(bad)), cap);
        refused(&recipes::importance_sampling(&lp, &rollout.clone().ratio_log_cap(bad)), cap);
        let tis = TisConfig::default().log_cap(bad);
        refused(&recipes::importance_sampling(&lp, &rollout.clone().tis(tis)), "`log_cap`");
        let config = GspoRecipe::default().seq_ratio_log_cap(bad);
        refused(&recipes::gspo(&lp, &rollout, &config), "`seq_ratio_log_cap`");
        let config = EntropyConfig::default().temperature(bad);
        refused(&entropy(&lp, &config), "`temperature`");
        refused(&l2_with(&lp, &L2Config::default().clip(bad)), "`clip`");

        let dual = "it is a ratio above 1";
        refused(&ppo(&lp, &lp, &lp, &PpoConfig::default().dual_clip(bad)), dual);
        refused(&recipes::dapo(&lp, &rollout, &DapoRecipe::default().dual_clip(bad)), dual);

        refused(&sapo(&lp, &lp, &a, &lp, &SapoConfig::default().tau_pos(bad)), "must be above 0");
        refused(
            &value_loss(&lp, &lp, &lp, &lp, &ValueConfig::default().clip(bad)),
            "must be above 0",
        );
        refused(&info_nce(&lp, &lp, &InfoNceConfig::default().temperature(bad)), "must be above 0");
        refused(&aggregate(&lp, &lp, Aggregation::SumOver(bad)), "must be above 0");
    }
    refused(&dppo(&lp, &lp, &a, &lp, &DppoConfig::default().threshold(-0.1)), "0 or more");
    let tis = |config| recipes::importance_sampling(&lp, &rollout.clone().tis(config));
    refused(&tis(TisConfig::default().cap(-1.0)), "the cap is -1");
    refused(&tis(TisConfig::default().icepop(0.5)), "IcePop");
    for bad in [f64::NAN, -0.1, 0.6, 1.0] {
        let words = "a share from 0 to 0.5";
        refused(&dpo(&lp, &lp, &lp, &DpoConfig::default().label_smoothing(bad)), words);
        refused(&ipo(&lp, &lp, &lp, &IpoConfig::default().label_smoothing(bad)), words);
        refused(&hinge(&lp, &lp, &lp, &HingeConfig::default().label_smoothing(bad)), words);
        refused(&simpo(&lp, &lp, &SimpoConfig::default().label_smoothing(bad)), words);
        let config = BradleyTerryConfig::default().label_smoothing(bad);
        refused(&bradley_terry(&lp, &lp, &config), words);
        refused(&orpo(&lp, &lp, &OrpoConfig::default().label_smoothing(bad)), words);
    }
}

/// Every factor, slope, margin and temperature of the catalogue.
type Coefficient = (&'static str, fn(f64, &Ragged, &Var) -> Var);

/// Where 0 has a meaning: a term that is left out, a margin of nothing.
const ZERO_OR_MORE: &[Coefficient] = &[
    ("dpo beta", |c, lp, _| dpo(lp, lp, lp, &DpoConfig::default().beta(c))),
    ("hinge beta", |c, lp, _| hinge(lp, lp, lp, &HingeConfig::default().beta(c))),
    ("simpo beta", |c, lp, _| simpo(lp, lp, &SimpoConfig::default().beta(c))),
    ("simpo gamma", |c, lp, _| simpo(lp, lp, &SimpoConfig::default().gamma(c))),
    ("orpo lambda", |c, lp, _| orpo(lp, lp, &OrpoConfig::default().lambda(c))),
    ("bradley_terry beta", |c, lp, _| {
        bradley_terry(lp, lp, &BradleyTerryConfig::default().beta(c))
    }),
    ("kto beta", |c, lp, a| kto(lp, lp, lp, a, &a.sum(), &KtoConfig::default().beta(c))),
    ("kto desirable_weight", |c, lp, a| {
        kto(lp, lp, lp, a, &a.sum(), &KtoConfig::default().desirable_weight(c))
    }),
    ("kto undesirable_weight", |c, lp, a| {
        kto(lp, lp, lp, a, &a.sum(), &KtoConfig::default().undesirable_weight(c))
    }),
    ("implicit_reward beta", |c, lp, _| implicit_reward(lp, lp, lp, c)),
    ("dro beta", |c, lp, _| dro(lp, lp, lp, &DroConfig::default().beta(c))),
    ("grpo kl_beta", |c, lp, a| grpo(lp, lp, Some(lp), a, lp, &GrpoConfig::default().kl_beta(c))),
    ("grpo kl_beta without a reference", |c, lp, a| {
        grpo(lp, lp, None, a, lp, &GrpoConfig::default().kl_beta(c))
    }),
    ("reinforce_kl beta", |c, lp, a| reinforce_kl(lp, lp, a, lp, c)),
    ("recipes::grpo kl_beta", |c, lp, a| {
        let rollout = Rollout::new(lp, a).reference(lp);
        recipes::grpo(lp, &rollout, &GrpoRecipe::default().kl_beta(c))
    }),
    ("recipes::reinforce kl_beta", |c, lp, a| {
        recipes::reinforce(lp, &Rollout::new(lp, a).reference(lp), c)
    }),
    ("recipes::dro beta", |c, lp, a| {
        recipes::dro(lp, &Rollout::new(lp, a), &DroConfig::default().beta(c))
    }),
    ("advantages::kl_penalized coefficient", |c, lp, _| {
        advantages::kl_penalized(lp, lp, lp, lp, c).sum()
    }),
    ("advantages::distilled coefficient", |c, lp, _| {
        advantages::distilled(lp, lp, lp, lp, c).sum()
    }),
    ("l1 lambda", |c, lp, _| l1_with(lp, &L1Config::default().lambda(c))),
    ("l2 lambda", |c, lp, _| l2_with(lp, &L2Config::default().lambda(c))),
    ("elastic_net lambda", |c, lp, _| elastic_net(lp, &ElasticNetConfig::default().lambda(c))),
    ("output_magnitude target", |c, lp, _| {
        output_magnitude(lp, &OutputMagnitudeConfig::default().target(c))
    }),
    ("gradient_penalty target_norm", |c, lp, _| gradient_penalty(lp, c, |x| x.square().sum())),
];

/// Where 0 would be a division by 0.
const ABOVE_ZERO: &[Coefficient] = &[
    ("ipo beta", |c, lp, _| ipo(lp, lp, lp, &IpoConfig::default().beta(c))),
    ("sapo tau_pos", |c, lp, a| sapo(lp, lp, a, lp, &SapoConfig::default().tau_pos(c))),
    ("sapo tau_neg", |c, lp, a| sapo(lp, lp, a, lp, &SapoConfig::default().tau_neg(c))),
    ("info_nce temperature", |c, lp, _| info_nce(lp, lp, &InfoNceConfig::default().temperature(c))),
    ("entropy temperature", |c, lp, _| entropy(lp, &EntropyConfig::default().temperature(c))),
    ("aggregate SumOver", |c, lp, _| aggregate(lp, lp, Aggregation::SumOver(c))),
];

#[test]
fn no_coefficient_is_negative_infinite_or_nan() {
    let (lp, a) = (ragged(&[&[-1.0], &[-2.0]]), Var::from_vec(vec![1.0, -1.0], &[2], &Device::Cpu));
    for (table, least) in [(ZERO_OR_MORE, 0.0), (ABOVE_ZERO, 0.25)] {
        for (name, loss) in table {
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.1] {
                let error = loss(bad, &lp, &a).sum().item().expect_err(name).to_string();
                assert!(error.contains(&bad.to_string()), "{name}: {error}");
                assert!(error.contains("and finite"), "{name}: {error}");
                assert!(error.contains("options.rs:"), "{name}: {error}");
            }
            let found = loss(least, &lp, &a).sum().item().unwrap();
            assert!(found.is_finite(), "{name}: {found}");
        }
    }
    for (name, loss) in ABOVE_ZERO {
        assert!(loss(0.0, &lp, &a).sum().item().is_err(), "{name}");
    }
    for bad in [f64::NAN, -0.1, 1.1] {
        let config = ElasticNetConfig::default().l1_ratio(bad);
        refused(&elastic_net(&lp, &config), "a share from 0 to 1");
    }
}

/// Log ratios of +9999 and -9999: e^c and e^-c are what a cap of c leaves of them.
#[test]
fn a_cap_of_the_log_ratio_bounds_every_policy_loss() {
    let lp = ragged(&[&[-1.0], &[-10000.0]]);
    let old = ragged(&[&[-10000.0], &[-1.0]]);
    let bad = Var::from_vec(vec![-1.0, -1.0], &[2], &Device::Cpu);
    let per_token = lp.expand(&bad);
    let ones = lp.map(|x| x * 0.0 + 1.0);
    let (great, small) = (5f64.exp(), (-5f64).exp());
    let rollout = Rollout::new(&old, &bad).ratio_log_cap(5.0);
    let log_ratio = recipes::log_ratio(&lp, &rollout);
    let unclipped = GrpoConfig::default().clip(Clip::NONE).aggregation(Aggregation::Sum);
    let is = ImportanceSamplingConfig::default().ratio_log_cap(5.0);
    let ppo_config = PpoConfig::default().ratio_log_cap(5.0);
    let gspo_config = GspoConfig::default().clip(Clip::NONE).ratio_log_cap(5.0);
    let dppo_config = DppoConfig::default().threshold(2.0).ratio_log_cap(5.0);
    let cases = [
        ("importance_sampling", importance_sampling(&lp, &old, &per_token, &is), great + small),
        ("ppo", ppo(&lp, &old, &per_token, &ppo_config), great + 0.8),
        ("dual clip", ppo(&lp, &old, &per_token, &ppo_config.dual_clip(3.0)), 3.0 + 0.8),
        ("gspo", gspo(&lp, &old, &per_token, &ones, &gspo_config), great + small),
        ("grpo", grpo(&lp, &old, None, &bad, &ones, &unclipped.ratio_log_cap(5.0)), great + small),
        ("dppo", dppo(&lp, &old, &bad, &ones, &dppo_config) * 2.0, great + small),
        ("recipe", recipes::importance_sampling(&lp, &rollout), great + small),
        ("reinforce", recipes::reinforce(&lp, &rollout, 0.0), great + small),
        (
            "ratio mean",
            recipes::ratio_metrics(&log_ratio, &rollout.active(), Clip::NONE).ratio_mean * 2.0,
            great + small,
        ),
    ];
    for (name, loss, want) in cases {
        let found = loss.item().unwrap();
        assert!((found - want).abs() < 1e-9, "{name}: {found}, want {want}");
    }
    // Beyond the cap there is no gradient; the dual clip alone bounds the loss as well.
    let capped = importance_sampling(&lp, &old, &per_token, &is);
    assert_eq!(gradient(&capped, &lp), [0.0, 0.0]);
    let dual = ppo(&lp, &old, &per_token, &PpoConfig::default().dual_clip(3.0));
    assert!((dual.item().unwrap() - 3.8).abs() < 1e-12);
    assert_eq!(gradient(&dual, &lp), [0.0, 0.0]);
}

/// `-sg(clip(r))·l·A` of a ratio that underflows: e^-20 if ε is 1 or more, as the log ratio is
/// limited before.
#[test]
fn cispo_without_a_lower_bound_keeps_the_capped_ratio() {
    let (lp, old) = (ragged(&[&[-1e4]]), ragged(&[&[-1.0]]));
    let rollout = Rollout::new(&old, &Var::from_vec(vec![1.0], &[1], &Device::Cpu));
    for eps in [1.0, 1.5] {
        let config = CispoRecipe::default().clip(Clip::eps_low_high(eps, 0.28));
        let loss = recipes::cispo(&lp, &rollout, &config);
        assert!((loss.item().unwrap() - 1e4 * (-20f64).exp()).abs() < 1e-18);
        assert!((gradient(&loss, &lp)[0] + (-20f64).exp()).abs() < 1e-20);
    }
    let cispo_config = CispoConfig::default().ratio_log_cap(20.0);
    let loss = cispo(&lp, &old, &ragged(&[&[1.0]]), &cispo_config);
    assert!((loss.item().unwrap() - 1e4 * (-20f64).exp()).abs() < 1e-18);
}

/// Each preference loss f of its margin z: smoothed it is `(1 - e) f(z) + e f(-z)`.
#[test]
fn label_smoothing_is_in_every_preference_loss() {
    // Mean logprobs -1 and -2, a reference of 0: h = z = 1.
    let lp = ragged(&[&[-1.0], &[-2.0]]);
    let (zero, ones) = (lp.map(|x| x * 0.0), lp.map(|x| x * 0.0 + 1.0));
    let (e, lsg) = (0.2, |z: f64| -(1.0 + (-z).exp()).ln());
    let smooth = |f: &dyn Fn(f64) -> f64, z: f64| (1.0 - e) * f(z) + e * f(-z);
    let logistic = smooth(&|z| -lsg(z), 1.0);
    // v - ln(1 - e^v) of -1 and of -2
    let odds = |v: f64| v - (1.0 - v.exp()).ln();
    let cases = [
        (
            "dpo",
            {
                let config = DpoConfig::default().beta(1.0).label_smoothing(e);
                dpo(&lp, &zero, &ones, &config)
            },
            logistic,
        ),
        (
            "bradley_terry",
            {
                let config = BradleyTerryConfig::default().label_smoothing(e);
                bradley_terry(&lp, &ones, &config)
            },
            logistic,
        ),
        (
            "simpo",
            {
                let config = SimpoConfig::default().label_smoothing(e); // z = 2·1 - 0.5
                simpo(&lp, &ones, &config)
            },
            smooth(&|z| -lsg(z), 1.5),
        ),
        (
            "ipo",
            {
                let config = IpoConfig::default().beta(0.25).label_smoothing(e); // aimed at 2
                ipo(&lp, &zero, &ones, &config)
            },
            (1.0 - e) * 1.0 + e * 9.0,
        ),
        (
            "hinge",
            {
                let config = HingeConfig::default().beta(0.5).label_smoothing(e);
                hinge(&lp, &zero, &ones, &config)
            },
            (1.0 - e) * 0.5 + e * 1.5,
        ),
        (
            "orpo",
            {
                let config = OrpoConfig::default().label_smoothing(e);
                orpo(&lp, &ones, &config)
            },
            1.0 + smooth(&|z| -lsg(z), odds(-1.0) - odds(-2.0)),
        ),
    ];
    for (name, loss, want) in cases {
        let found = loss.item().unwrap();
        assert!((found - want).abs() < 1e-12, "{name}: {found}, want {want}");
    }
}

/// The limit of `-ln σ(z)` for z to infinity, where `0 · z` would be NaN.
#[test]
fn an_impossible_rejected_answer_costs_nothing() {
    let lp = ragged(&[&[-1.0], &[f64::NEG_INFINITY]]);
    let (reference, ones) = (ragged(&[&[-1.0], &[-1.0]]), ragged(&[&[1.0], &[1.0]]));
    let loss = dpo(&lp, &reference, &ones, &Default::default());
    assert_eq!(loss.item().unwrap(), 0.0);
    assert_eq!(gradient(&loss, &lp), [0.0, 0.0]);
    assert_eq!(bradley_terry(&lp, &ones, &Default::default()).item().unwrap(), 0.0);
    assert_eq!(simpo(&lp, &ones, &Default::default()).item().unwrap(), 0.0);
    // With smoothing the loss has no bound, and the impossible chosen answer none in any case.
    let smoothed = DpoConfig::default().label_smoothing(0.1);
    assert_eq!(dpo(&lp, &reference, &ones, &smoothed).item().unwrap(), f64::INFINITY);
    let turned = lp.select(&[1, 0]);
    for config in [smoothed, DpoConfig::default()] {
        let loss = dpo(&turned, &reference, &ones, &config);
        assert_eq!(loss.item().unwrap(), f64::INFINITY);
    }
}

#[test]
fn weights_that_cancel_are_no_weight() {
    let x = ragged(&[&[5.0, 7.0, 11.0], &[2.0]]);
    for weights in [[0.1, 0.2, -0.3], [-0.1, -0.2, 0.3], [0.7, 0.1, -0.8]] {
        // The sequence's own sum is not 0 in floating point.
        assert!(weights.iter().sum::<f64>() != 0.0);
        let nothing = ragged(&[&weights, &[0.0]]);
        let sum: f64 =
            x.seqs()[0].to_vec::<f64>().unwrap().iter().zip(weights).map(|(x, w)| x * w).sum();
        let mean = |how| aggregate(&x, &nothing, how).item().unwrap();
        assert!(
            (mean(Aggregation::TokenMean) - sum).abs() < 1e-12,
            "{}",
            mean(Aggregation::TokenMean)
        );
        assert!((mean(Aggregation::SeqMeanTokenMean) - sum).abs() < 1e-12);
        assert!((mean(Aggregation::SeqMeanTokenSum) - sum).abs() < 1e-12);
        assert!((mean_logprob(&x, &nothing).sum().item().unwrap() - sum).abs() < 1e-12);
        assert!(mean_nll(&x, &nothing).item().unwrap().is_nan());
        assert_eq!(token_mean_cross_entropy(&x, &nothing).item().unwrap(), 0.0);
        // In f32 the weights themselves are rounded.
        let f32 = tinsmith_grad::DType::F32;
        let loss = aggregate(&x.to_dtype(f32), &nothing.to_dtype(f32), Aggregation::TokenMean);
        assert!((loss.item().unwrap() - sum).abs() < 1e-5);
        // Beside a sequence with weight, it does not count as a sequence.
        let one = ragged(&[&weights, &[1.0]]);
        assert_eq!(token_mean_cross_entropy(&x, &one).item().unwrap(), -2.0);
    }
    // Small weights of one sign are weights.
    let small = ragged(&[&[1e-30, 1e-30, 0.0], &[0.0]]);
    assert!((aggregate(&x, &small, Aggregation::TokenMean).item().unwrap() - 6.0).abs() < 1e-12);
}

#[test]
fn kto_without_examples_is_zero() {
    let none = Var::from_vec(Vec::<f64>::new(), &[0], &Device::Cpu);
    assert_eq!(kto_kl(&none).item().unwrap(), 0.0);
    assert!(kto_kl(&Var::from_vec(vec![f64::NAN], &[1], &Device::Cpu)).item().unwrap().is_nan());
    let empty = ragged(&[]);
    let loss = kto(&empty, &empty, &empty, &none, &kto_kl(&none), &Default::default());
    assert_eq!(loss.item().unwrap(), 0.0);
}
