//! What is masked takes no part, in value and gradient, whatever stands there; what is not masked
//! and NaN is NaN in the loss. One table has every loss of the crate, and a loss that is missing in
//! it fails the test.

use tinsmith_grad::{DType, Device, Executor, Ragged, Var, with_executor};
use tinsmith_losses::advantages::{distilled, kl_penalized};
use tinsmith_losses::recipes::{self, DapoRecipe, GspoRecipe, Rollout, TisConfig, TisLevel};
use tinsmith_losses::regularize::*;
use tinsmith_losses::*;

/// Two pairs of sequences. Some tokens are masked: their weight, advantage and target are 0.
struct Batch {
    lp: Ragged,
    old: Ragged,
    sampled: Ragged,
    reference: Ragged,
    returns: Ragged,
    /// `[tokens]`, 0 where masked; the fourth sequence is masked as a whole.
    weights: Ragged,
    /// `[n]`.
    advantages: Var,
    /// `[tokens, 2]`, of which a slot is 0 where masked.
    slots: Ragged,
    targets: Ragged,
    /// As `slots`, with rows that are not the last masked.
    choices: Ragged,
}

const LENGTHS: [usize; 4] = [3, 2, 3, 2];
const WEIGHTS: [f64; 10] = [0.0, 1.0, 0.5, 0.0, 2.0, 1.0, 0.0, 1.0, 0.0, 0.0];
const TARGETS: [f64; 20] = [
    0.0, 1.0, 0.5, 0.5, 0.0, 0.75, 0.25, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.25, 0.0,
    0.5, 0.0,
];

impl Batch {
    /// The batch with `masked` on what is masked and `active` added to one active token.
    fn new(masked: f64, active: f64, dtype: DType) -> Batch {
        let packed = |x: Vec<f64>, shape: &[usize]| {
            let x = Var::from_vec(x, shape, &Device::Cpu).to_dtype(dtype).tensor().unwrap();
            Ragged::new(Var::from(x), &LENGTHS)
        };
        let logprobs = |shift: f64| -> Ragged {
            let value = |t: usize| match WEIGHTS[t] {
                0.0 => masked,
                _ if t == 4 => -1.0 + active,
                _ => -0.25 * (t as f64 + 1.0) + shift,
            };
            packed((0..10).map(value).collect(), &[10])
        };
        let slots = |t: usize| match TARGETS[t] {
            0.0 => masked,
            _ if t == 8 => -1.0 + active,
            _ => -0.125 * (t as f64 + 1.0),
        };
        let ends = [2, 4, 7, 9];
        let choice = |t: usize| match ends.contains(&(t / 2)) {
            false => masked,
            true if t == 9 => -1.0 + active,
            true => -0.125 * (t as f64 + 1.0),
        };
        Batch {
            lp: logprobs(0.0),
            old: logprobs(0.125),
            sampled: logprobs(-0.25),
            reference: logprobs(0.5),
            returns: logprobs(1.0),
            weights: packed(WEIGHTS.to_vec(), &[10]),
            advantages: {
                // The last sequence is masked, so its advantage may be anything as well.
                let advantages = Var::from_vec(vec![1.0, -0.5, -1.0, masked], &[4], &Device::Cpu);
                Var::from(advantages.to_dtype(dtype).tensor().unwrap())
            },
            slots: packed((0..20).map(slots).collect(), &[10, 2]),
            targets: packed(TARGETS.to_vec(), &[10, 2]),
            choices: packed((0..20).map(choice).collect(), &[10, 2]),
        }
    }

    fn token_advantages(&self) -> Ragged {
        self.weights.ne(0.0).where_(self.lp.expand(&self.advantages), 0.0)
    }

    fn rollout(&self) -> Rollout {
        Rollout::new(&self.old, &self.advantages)
            .sampled(&self.sampled)
            .reference(&self.reference)
            .weights(&self.weights.gt(0.0).to_dtype(self.weights.values().dtype()))
    }

    fn sequence_tis(&self) -> Rollout {
        self.rollout().tis(TisConfig::default().level(TisLevel::Sequence))
    }
}

type Loss = fn(&Batch) -> Var;
const MEAN: Aggregation = Aggregation::TokenMean;

/// Losses of `lp`, `[tokens]`.
const PER_TOKEN: &[(&str, Loss)] = &[
    ("aggregate", |b| aggregate(&b.lp, &b.weights, Aggregation::Sum)),
    ("aggregate", |b| aggregate(&b.lp, &b.weights, MEAN)),
    ("aggregate", |b| aggregate(&b.lp, &b.weights, Aggregation::SeqMeanTokenSum)),
    ("aggregate", |b| aggregate(&b.lp, &b.weights, Aggregation::SeqMeanTokenMean)),
    ("aggregate", |b| aggregate(&b.lp, &b.weights, Aggregation::SumOver(8.0))),
    ("cross_entropy", |b| cross_entropy(&b.lp, &b.weights)),
    ("mean_cross_entropy", |b| mean_cross_entropy(&b.lp, &b.weights)),
    ("token_mean_cross_entropy", |b| token_mean_cross_entropy(&b.lp, &b.weights)),
    ("mean_nll", |b| mean_nll(&b.lp, &b.weights)),
    ("perplexity", |b| perplexity(&mean_nll(&b.lp, &b.weights))),
    ("sample_entropy", |b| sample_entropy(&b.lp, &b.weights)),
    ("kl_penalty", |b| kl_penalty(&b.lp, &b.reference, &b.weights, KlEstimator::K1, MEAN)),
    ("kl_penalty", |b| kl_penalty(&b.lp, &b.reference, &b.weights, KlEstimator::K2, MEAN)),
    ("kl_penalty", |b| kl_penalty(&b.lp, &b.reference, &b.weights, KlEstimator::K3, MEAN)),
    ("kl_penalty", |b| kl_penalty(&b.lp, &b.reference, &b.weights, KlEstimator::Abs, MEAN)),
    ("importance_sampling", |b| {
        importance_sampling(&b.lp, &b.old, &b.token_advantages(), &Default::default())
    }),
    ("ppo", |b| {
        let config = PpoConfig::default().dual_clip(3.0).ratio_log_cap(20.0);
        ppo(&b.lp, &b.old, &b.token_advantages(), &config)
    }),
    ("cispo", |b| cispo(&b.lp, &b.old, &b.token_advantages(), &Default::default())),
    ("cispo", |b| {
        let config = CispoConfig::default().clip(Clip::NONE);
        cispo(&b.lp, &b.old, &b.token_advantages(), &config)
    }),
    ("gspo", |b| {
        let config = GspoConfig::default().clip(Clip::eps(0.5));
        gspo(&b.lp, &b.old, &b.token_advantages(), &b.weights, &config)
    }),
    ("grpo", |b| {
        let (old, reference) = (&b.old, Some(&b.reference));
        grpo(&b.lp, old, reference, &b.advantages, &b.weights, &Default::default())
    }),
    ("grpo", |b| {
        let config = GrpoConfig::gspo_token().clip(Clip::eps(0.5));
        grpo(&b.lp, &b.old, None, &b.advantages, &b.weights, &config)
    }),
    ("reinforce_kl", |b| reinforce_kl(&b.lp, &b.reference, &b.advantages, &b.weights, 0.1)),
    ("sapo", |b| sapo(&b.lp, &b.old, &b.advantages, &b.weights, &Default::default())),
    ("dppo", |b| dppo(&b.lp, &b.old, &b.advantages, &b.weights, &Default::default())),
    ("dppo", |b| {
        let config = DppoConfig::default().divergence(Divergence::Kl);
        dppo(&b.lp, &b.old, &b.advantages, &b.weights, &config)
    }),
    ("value_loss", |b| value_loss(&b.lp, &b.old, &b.returns, &b.weights, &Default::default())),
    ("sequence_logprob", |b| sequence_logprob(&b.lp, &b.weights).square().sum()),
    ("mean_logprob", |b| mean_logprob(&b.lp, &b.weights).square().sum()),
    ("implicit_reward", |b| implicit_reward(&b.lp, &b.reference, &b.weights, 0.5).square().sum()),
    ("dpo", |b| dpo(&b.lp, &b.reference, &b.weights, &Default::default())),
    ("ipo", |b| ipo(&b.lp, &b.reference, &b.weights, &Default::default())),
    ("hinge", |b| hinge(&b.lp, &b.reference, &b.weights, &Default::default())),
    ("simpo", |b| simpo(&b.lp, &b.weights, &Default::default())),
    ("bradley_terry", |b| bradley_terry(&b.lp, &b.weights, &Default::default())),
    ("orpo", |b| orpo(&b.lp, &b.weights, &Default::default())),
    ("orpo_log_odds_ratio", |b| orpo_log_odds_ratio(&b.lp, &b.weights).sum()),
    ("kto", |b| {
        let desirable = Var::from_vec(vec![1u8, 0, 0, 1], &[4], &Device::Cpu);
        let kl = Var::scalar(0.25);
        kto(&b.lp, &b.reference, &b.weights, &desirable, &kl, &Default::default())
    }),
    ("recipes::grpo", |b| recipes::grpo(&b.lp, &b.rollout(), &Default::default())),
    ("recipes::grpo", |b| recipes::grpo(&b.lp, &b.sequence_tis(), &Default::default())),
    ("recipes::dapo", |b| {
        let rollout = b.rollout().tis(TisConfig::default().icepop(3.0));
        recipes::dapo(&b.lp, &rollout, &DapoRecipe::default().dual_clip(3.0))
    }),
    ("recipes::importance_sampling", |b| recipes::importance_sampling(&b.lp, &b.rollout())),
    ("recipes::cispo", |b| recipes::cispo(&b.lp, &b.rollout(), &Default::default())),
    ("recipes::dro", |b| recipes::dro(&b.lp, &b.rollout(), &Default::default())),
    ("recipes::gspo", |b| {
        // Its mean counts the masked tokens of a response, but not the prompt's.
        let rollout = b.rollout().prompt_lens(&[2, 2, 3, 3]);
        recipes::gspo(&b.lp, &rollout, &GspoRecipe::default())
    }),
    ("recipes::reinforce", |b| recipes::reinforce(&b.lp, &b.rollout(), 0.1)),
    ("recipes::rollout_metrics", |b| {
        let metrics = recipes::rollout_metrics(&b.lp, &b.rollout());
        metrics.active_tokens + metrics.ppo_kl + metrics.mean_kl.unwrap() + metrics.ref_kl.unwrap()
    }),
    ("recipes::ratio_metrics", |b| {
        let log_ratio = recipes::log_ratio(&b.lp, &b.rollout());
        let metrics = recipes::ratio_metrics(&log_ratio, &b.rollout().active(), Clip::eps(0.2));
        metrics.ratio_mean + metrics.clip_fraction
    }),
    ("recipes::tis_weight", |b| {
        let lp = b.weights.ne(0.0).where_(&b.lp, 0.0);
        (recipes::tis_weight(&b.rollout()) * lp).sum()
    }),
    ("advantages::kl_penalized", |b| {
        let zero = &b.weights * 0.0;
        let shaped = kl_penalized(&zero, &b.lp, &b.reference, &b.weights, 0.5);
        (shaped * &b.weights).sum()
    }),
    ("advantages::distilled", |b| {
        distilled(&(&b.weights * 0.0), &b.lp, &b.reference, &b.weights, 0.5).sum()
    }),
];

/// Losses of `slots`, `[tokens, K]`.
const PER_SLOT: &[(&str, Loss)] = &[
    ("cross_entropy", |b| cross_entropy(&b.slots, &b.targets)),
    ("token_mean_cross_entropy", |b| token_mean_cross_entropy(&b.slots, &b.targets)),
    ("mean_nll", |b| mean_nll(&b.slots, &b.targets)),
    ("target_cross_entropy", |b| target_cross_entropy(&b.slots, &b.targets).sum()),
    ("target_forward_kl", |b| target_forward_kl(&b.slots, &b.targets).sum()),
    ("reverse_kl_topk", |b| reverse_kl_topk(&b.slots, &b.targets)),
    ("reverse_kl_topk_metrics", |b| {
        let metrics = reverse_kl_topk_metrics(&b.slots, &b.targets);
        metrics.positions + metrics.reverse_kl_mean + metrics.student_entropy_mean
    }),
];

/// Losses of the last row of `choices`, `[tokens, K]`.
const LAST_ROW: &[(&str, Loss)] = &[
    ("choice_logprobs", |b| choice_logprobs(&b.choices).square().sum()),
    ("brier", |b| brier(&b.choices, &b.targets)),
    ("choice_cross_entropy", |b| choice_cross_entropy(&b.choices, &b.targets)),
    ("choice_metrics", |b| choice_metrics(&b.choices, &b.targets).target_prob),
];

/// What has no mask, and why it needs none.
const WITHOUT_MASK: &[(&str, &str)] = &[
    ("dro", "the square acts on every token"),
    ("clipped", "one value a token"),
    ("kl_k1", "one value a token"),
    ("kl_k2", "one value a token"),
    ("kl_k3", "one value a token"),
    ("kl_abs", "one value a token"),
    ("target_reverse_kl", "a target of 0 is infinitely far"),
    ("info_nce", "every candidate counts"),
    ("variance", "of all logprobs"),
    ("kto_kl", "one value a sequence"),
    ("preference_metrics", "one value a sequence"),
    ("recipes::log_ratio", "one value a token"),
    ("recipes::gspo_log_ratio", "one value a token"),
    ("advantages::centered", "plain numbers"),
    ("advantages::normalized", "plain numbers"),
    ("advantages::filtered", "plain numbers"),
    ("advantages::informative", "plain numbers"),
    ("advantages::discounted_future_sum", "plain numbers"),
];

/// What may stand where a token is masked.
const JUNK: [f64; 9] =
    [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e30, -1e30, 1000.0, -1000.0, 1.0, 0.0];

type Leaf = fn(&Batch) -> &Ragged;

fn tables() -> [(&'static [(&'static str, Loss)], Leaf); 3] {
    [(PER_TOKEN, |b| &b.lp), (PER_SLOT, |b| &b.slots), (LAST_ROW, |b| &b.choices)]
}

fn outcome(loss: Loss, leaf: Leaf, batch: &Batch) -> (f64, Vec<f64>) {
    let loss = loss(batch);
    let value = loss.to_dtype(DType::F64).item().unwrap();
    let gradient = tinsmith_grad::Backward::new(&loss).allow_unused();
    let gradient = gradient.run(&[leaf(batch).values()]).unwrap();
    let gradient = gradient.as_slice()[0].to_dtype(DType::F64).unwrap();
    (value, gradient.flatten_all().unwrap().to_vec1().unwrap())
}

#[test]
fn what_is_masked_takes_no_part_whatever_stands_there() {
    for executor in [Executor::Reference, Executor::Fused { threads: 1 }] {
        with_executor(executor, takes_no_part);
    }
}

fn takes_no_part() {
    for dtype in [DType::F64, DType::F32] {
        let plain = Batch::new(-0.5, 0.0, dtype);
        for (table, leaf) in tables() {
            for (row, (name, loss)) in table.iter().enumerate() {
                let want = outcome(*loss, leaf, &plain);
                assert!(want.0.is_finite() && want.1.iter().all(|g| g.is_finite()), "{name}");
                for junk in JUNK {
                    let got = outcome(*loss, leaf, &Batch::new(junk, 0.0, dtype));
                    assert_eq!(
                        got, want,
                        "{name} ({row}) with {junk} on what is masked, {dtype:?}"
                    );
                }
            }
        }
    }
}

/// A token whose weight is 1 takes no part where its advantage is 0, but in a KL to the reference.
#[test]
fn what_has_no_advantage_takes_no_part_whatever_stands_there() {
    type Recipe = fn(&Ragged, &Ragged, &Rollout, &Var) -> Var;
    let losses: &[(&str, Recipe)] = &[
        ("importance_sampling", |lp, old, _, a| {
            importance_sampling(lp, old, &lp.expand(a), &Default::default())
        }),
        ("ppo", |lp, old, _, a| ppo(lp, old, &lp.expand(a), &Default::default())),
        ("cispo", |lp, old, _, a| cispo(lp, old, &lp.expand(a), &Default::default())),
        ("gspo", |lp, old, _, a| {
            gspo(lp, old, &lp.expand(a), &lp.expand(&(a * 0.0 + 1.0)), &Default::default())
        }),
        ("grpo", |lp, old, _, a| {
            let ones = lp.expand(&(a * 0.0 + 1.0));
            grpo(lp, old, None, a, &ones, &Default::default())
                + grpo(lp, old, None, a, &ones, &GrpoConfig::gspo_token())
        }),
        ("sapo", |lp, old, _, a| {
            sapo(lp, old, a, &lp.expand(&(a * 0.0 + 1.0)), &Default::default())
        }),
        ("dppo", |lp, old, _, a| {
            dppo(lp, old, a, &lp.expand(&(a * 0.0 + 1.0)), &Default::default())
        }),
        ("recipes::importance_sampling", |lp, _, r, _| recipes::importance_sampling(lp, r)),
        ("recipes::grpo", |lp, _, r, _| recipes::grpo(lp, r, &Default::default())),
        ("recipes::dapo", |lp, _, r, _| recipes::dapo(lp, r, &Default::default())),
        ("recipes::cispo", |lp, _, r, _| recipes::cispo(lp, r, &Default::default())),
        ("recipes::dro", |lp, _, r, _| recipes::dro(lp, r, &Default::default())),
        ("recipes::gspo", |lp, _, r, _| recipes::gspo(lp, r, &Default::default())),
        ("recipes::reinforce", |lp, _, r, _| recipes::reinforce(lp, r, 0.0)),
    ];
    let advantages = Var::from_vec(vec![1.0, 0.0], &[2], &Device::Cpu);
    let tis = TisConfig::default();
    for tis in [tis, tis.level(TisLevel::Sequence), tis.icepop(2.0)] {
        for (name, loss) in losses {
            let outcome = |junk: [f64; 3]| {
                let [lp, old, sampled] = [0, 1, 2].map(|i| {
                    let x = [vec![-1.0, -0.5 + 0.1 * i as f64], vec![-1.0, junk[i]]];
                    Ragged::from_vecs(&x, &Device::Cpu)
                });
                let rollout = Rollout::new(&old, &advantages).sampled(&sampled).tis(tis);
                let loss = loss(&lp, &old, &rollout, &advantages);
                let gradients = loss.backward(&[lp.values()]).unwrap();
                (gradients.value(), gradients[0].to_vec1::<f64>().unwrap())
            };
            let want = outcome([-1.0; 3]);
            for junk in JUNK {
                for at in [[junk, -1.0, -1.0], [-1.0, junk, -1.0], [-1.0, -1.0, junk], [junk; 3]] {
                    assert_eq!(outcome(at), want, "{name} with {at:?}");
                }
            }
        }
    }
}

#[test]
fn masked_tokens_have_a_gradient_of_zero() {
    let batch = Batch::new(f64::NAN, 0.0, DType::F64);
    for (name, loss) in PER_TOKEN {
        let (_, gradient) = outcome(*loss, |b| &b.lp, &batch);
        for (t, &g) in gradient.iter().enumerate() {
            assert!(WEIGHTS[t] != 0.0 || g == 0.0, "{name}: {g} at {t}");
        }
    }
}

#[test]
fn nan_on_what_is_not_masked_is_nan_in_the_loss() {
    let batch = Batch::new(-0.5, f64::NAN, DType::F64);
    for (table, _) in tables() {
        for (name, loss) in table {
            assert!(loss(&batch).to_dtype(DType::F64).item().unwrap().is_nan(), "{name}");
        }
    }
}

/// The functions of the crate's pages, as its own `pub use` and `pub fn` lines name them.
fn functions() -> Vec<String> {
    let lib = include_str!("../src/lib.rs");
    let modules = [("", lib), ("recipes::", include_str!("../src/recipes/mod.rs"))];
    let mut names = Vec::new();
    for (prefix, source) in modules {
        for line in source.split("pub use ").skip(1) {
            let line = line.split(';').next().unwrap();
            let items = line.split("::").last().unwrap().trim_matches(['{', '}', '\n', ' ']);
            let functions = items.split(',').map(str::trim);
            let functions = functions.filter(|name| name.starts_with(char::is_lowercase));
            names.extend(functions.map(|name| format!("{prefix}{name}")));
        }
    }
    for line in include_str!("../src/advantages.rs").split("\npub fn ").skip(1) {
        let name = line.split(['(', '<']).next().unwrap();
        names.push(format!("advantages::{name}"));
    }
    names
}

#[test]
fn every_loss_is_in_the_table() {
    let listed = |name: &str| {
        let mut tables = [PER_TOKEN, PER_SLOT, LAST_ROW].into_iter().flatten();
        tables.any(|(listed, _)| *listed == name)
    };
    let functions = functions();
    assert!(functions.len() > 60, "{functions:?}");
    for name in &functions {
        let exempt = WITHOUT_MASK.iter().any(|(exempt, _)| exempt == name);
        assert!(listed(name) != exempt, "`{name}` is to be in a table or among those without mask");
    }
    for (name, _) in WITHOUT_MASK {
        assert!(functions.iter().any(|function| function == name), "{name} is no function");
    }
}

/// The terms of `regularize` have no mask, so NaN anywhere is NaN in them.
#[test]
fn nan_is_nan_in_every_regularizer() {
    let x = Var::from_vec(vec![-1.0, f64::NAN, -2.0, -0.5], &[2, 2], &Device::Cpu);
    let lp = Ragged::new(x, &[2]);
    let other = Ragged::new(Var::full(-1.0, &[2, 2], DType::F64, &Device::Cpu), &[2]);
    let by = |metric| ConsistencyConfig::default().metric(metric);
    let terms = [
        l1(&lp),
        l2(&lp),
        elastic_net(&lp, &Default::default()),
        output_magnitude(&lp, &Default::default()),
        entropy(&lp, &Default::default()),
        kl_divergence(&lp, &other, &Default::default()),
        kl_divergence(&other, &lp, &Default::default()),
        jensen_shannon(&lp, &other, Reduction::Mean),
        consistency(&lp, &other, &by(ConsistencyMetric::Mse)),
        consistency(&lp, &other, &by(ConsistencyMetric::Cosine)),
        consistency(&lp, &other, &by(ConsistencyMetric::Kl)),
        orthogonality(&lp, &Default::default()),
        gradient_penalty(&lp, 1.0, |x| x.square().sum()),
    ];
    for (i, term) in terms.iter().enumerate() {
        assert!(term.item().unwrap().is_nan(), "term {i}");
    }
}

/// `0 ln 0` is 0: an impossible token does not spoil a distribution's figure or its gradient.
#[test]
fn probabilities_of_zero_count_zero() {
    let half = 0.5f64.ln();
    let row = |x: [f64; 3]| {
        let x = Var::from_vec(x.to_vec(), &[1, 3], &Device::Cpu);
        Ragged::new(x, &[1])
    };
    let (never, ln2) = (f64::NEG_INFINITY, 2f64.ln());
    let lp = row([half, half, never]);
    let other = row([never, 0.0, never]);
    let minimize = EntropyConfig::default().mode(EntropyMode::Minimize);
    // By hand: H = ln 2; JS = ½ (½ ln 2 + ½ ln ⅔ + ln 4/3).
    let js = 0.5 * (0.5 * ln2 + 0.5 * (2.0f64 / 3.0).ln() + (4.0f64 / 3.0).ln());
    let cases = [
        ("entropy", entropy(&lp, &minimize), ln2),
        ("jensen_shannon", jensen_shannon(&lp, &other, Reduction::Mean), js),
        ("reverse", kl_divergence(&other, &lp, &Default::default()), ln2),
        (
            "target_reverse_kl",
            {
                let targets = row([0.25, 0.25, 0.5]);
                target_reverse_kl(&lp, &targets).sum()
            },
            ln2,
        ),
        ("reverse_kl_topk", reverse_kl_topk(&lp, &row([0.25, 0.25, 0.5])), ln2),
    ];
    for (name, loss, want) in cases {
        assert!((loss.item().unwrap() - want).abs() < 1e-12, "{name}: {:?}", loss.item());
        let gradient = tinsmith_grad::Backward::new(&loss).allow_unused();
        let gradient = gradient.run(&[lp.values()]).unwrap().as_slice()[0].flatten_all().unwrap();
        let gradient = gradient.to_vec1::<f64>().unwrap();
        assert!(gradient.iter().all(|g| g.is_finite()), "{name}: {gradient:?}");
    }
}
