//! Where a number a token or a sequence is documented, another shape is an error that names the
//! argument and the caller's line, and never another loss by broadcasting.

use tinsmith_grad::{DType, Device, Error, Ragged, Var};
use tinsmith_losses::advantages::{distilled, kl_penalized};
use tinsmith_losses::recipes::{self, Rollout};
use tinsmith_losses::regularize::{consistency, jensen_shannon, kl_divergence, orthogonality};
use tinsmith_losses::*;

/// Three sequences of one token, so that `[3]` and `[3, 1]` broadcast to `[3, 3]`.
fn tokens() -> Ragged {
    Ragged::from_vecs(&[[-1.0], [-2.0], [-3.0]], &Device::Cpu)
}

fn column() -> Ragged {
    tokens().map(|x| x.reshape(&[3, 1]))
}

fn rows() -> Ragged {
    tokens().map(|x| x.reshape(&[3, 1]).broadcast_to(&[3, 3]))
}

fn numbers() -> Var {
    Var::from_vec(vec![1.0, -1.0, 2.0], &[3], &Device::Cpu)
}

/// Refuses `loss` unless it is an error of shape that names `argument`.
#[track_caller]
fn refused(loss: &Var, argument: &str) {
    let error = loss.sum().item().expect_err(argument);
    assert!(matches!(error, Error::Shape { .. }), "{argument}: {error}");
    let (text, line) = (error.to_string(), std::panic::Location::caller().line());
    assert!(text.contains(&format!("of `{argument}` is to be")), "{text}");
    // The line of the call, which may be broken into a few.
    let at = text.rsplit("shapes.rs:").next().and_then(|at| at.split(':').next());
    let at: u32 = at.and_then(|at| at.parse().ok()).expect(&text);
    assert!(at.abs_diff(line) <= 8, "{text} at {line}");
}

#[test]
fn a_column_is_not_a_number_a_token() {
    let (lp, bad, a) = (&tokens(), &column(), &numbers());
    refused(&ppo(lp, bad, lp, &Default::default()), "old");
    refused(&ppo(lp, lp, bad, &Default::default()), "advantages");
    refused(&ppo(bad, lp, lp, &Default::default()), "lp");
    refused(&importance_sampling(lp, bad, lp, &Default::default()), "old");
    refused(&cispo(lp, lp, bad, &Default::default()), "advantages");
    refused(&dro(lp, bad, lp, &Default::default()), "old");
    refused(&gspo(lp, lp, lp, bad, &Default::default()), "ratio_mask");
    refused(&grpo(lp, bad, None, a, lp, &Default::default()), "old");
    refused(&grpo(lp, lp, Some(bad), a, lp, &Default::default()), "reference");
    refused(&grpo(lp, lp, None, a, bad, &Default::default()), "weights");
    refused(&reinforce_kl(lp, bad, a, lp, 0.1), "reference");
    refused(&sapo(lp, bad, a, lp, &Default::default()), "old");
    refused(&dppo(lp, lp, a, bad, &Default::default()), "weights");
    refused(&value_loss(lp, lp, bad, lp, &Default::default()), "returns");
    refused(&aggregate(lp, bad, Aggregation::TokenMean), "weights");
    refused(&aggregate(bad, lp, Aggregation::Sum), "x");
    refused(&kl_penalty(lp, bad, lp, KlEstimator::K3, Aggregation::Sum), "reference");
    refused(&sample_entropy(bad, lp), "x");
    refused(&sequence_logprob(lp, bad), "weights");
    refused(&mean_logprob(bad, lp), "lp");
    refused(&implicit_reward(lp, bad, lp, 0.1), "reference");
    refused(&info_nce(lp, bad, &Default::default()), "positives");
    refused(clipped(lp, bad, Clip::eps(0.2)).values(), "old");
    refused(kl_penalized(lp, bad, lp, lp, 0.1).values(), "sampled");
    refused(distilled(lp, lp, bad, lp, 0.1).values(), "teacher");
}

#[test]
fn pairs_take_a_number_a_token() {
    let twice = |x: &Ragged| x.select(&[0, 1]);
    let (lp, bad) = (&twice(&tokens()), &twice(&column()));
    refused(&dpo(lp, bad, lp, &Default::default()), "reference");
    refused(&dpo(lp, lp, bad, &Default::default()), "weights");
    refused(&ipo(lp, bad, lp, &Default::default()), "reference");
    refused(&hinge(bad, lp, lp, &Default::default()), "lp");
    refused(&simpo(lp, bad, &Default::default()), "weights");
    refused(&bradley_terry(bad, lp, &Default::default()), "lp");
    refused(&orpo(lp, bad, &Default::default()), "weights");
    refused(&orpo_log_odds_ratio(bad, lp), "lp");
    let table = Var::ones(&[2, 2], DType::F64, &Device::Cpu);
    let error = preference_metrics(&table).margin.item().unwrap_err().to_string();
    assert!(error.starts_with("pairs: shape [2, 2] is not one number a sequence"), "{error}");
}

#[test]
fn a_column_is_not_a_number_a_sequence() {
    let (lp, default) = (&tokens(), Default::default());
    let column = &numbers().reshape(&[3, 1]);
    let few = &Var::ones(&[1], DType::F64, &Device::Cpu);
    let one = &Var::scalar(1.0);
    for bad in [column, few, one, &numbers().reshape(&[1, 3])] {
        refused(&grpo(lp, lp, None, bad, lp, &default), "advantages");
        refused(&reinforce_kl(lp, lp, bad, lp, 0.1), "advantages");
        refused(&sapo(lp, lp, bad, lp, &Default::default()), "advantages");
        refused(&dppo(lp, lp, bad, lp, &Default::default()), "advantages");
        refused(&kto(lp, lp, lp, bad, one, &Default::default()), "desirable");
        let rollout = Rollout::new(lp, bad);
        refused(&recipes::grpo(lp, &rollout, &Default::default()), "advantages");
    }
    refused(&kto(lp, lp, lp, &numbers(), &numbers(), &Default::default()), "kl");
    refused(&kto_kl(column), "log_ratios");
}

#[test]
fn a_rollout_takes_a_number_a_token() {
    let (lp, bad, a) = (&tokens(), &column(), &numbers());
    let rollout = || Rollout::new(lp, a);
    let dro = |rollout: Rollout| recipes::dro(lp, &rollout, &Default::default());
    refused(&dro(Rollout::new(bad, a)), "old");
    refused(&dro(rollout().sampled(bad)), "sampled");
    refused(&dro(rollout().weights(bad)), "weights");
    let grpo = |rollout: Rollout| recipes::grpo(lp, &rollout, &Default::default());
    refused(&grpo(rollout().reference(bad)), "reference");
    for loss in [
        recipes::grpo(bad, &rollout(), &Default::default()),
        recipes::dapo(bad, &rollout(), &Default::default()),
        recipes::importance_sampling(bad, &rollout()),
        recipes::cispo(bad, &rollout(), &Default::default()),
        recipes::dro(bad, &rollout(), &Default::default()),
        recipes::gspo(bad, &rollout(), &Default::default()),
        recipes::reinforce(bad, &rollout(), 0.0),
        recipes::rollout_metrics(bad, &rollout()).ppo_kl,
    ] {
        assert!(matches!(loss.item(), Err(Error::Shape { .. })), "{:?}", loss.item());
    }
}

#[test]
fn weights_are_not_spread_along_the_slots() {
    let (lp, weights, column) = (&rows(), &tokens(), &column());
    for bad in [weights, column] {
        refused(&cross_entropy(lp, bad), "weights");
        refused(&mean_cross_entropy(lp, bad), "weights");
        refused(&token_mean_cross_entropy(lp, bad), "weights");
        refused(&mean_nll(lp, bad), "weights");
        refused(&brier(lp, bad), "target");
        refused(&choice_cross_entropy(lp, bad), "target");
        refused(&choice_metrics(lp, bad).accuracy, "target");
        refused(kl_k1(lp, bad).values(), "reference");
        refused(kl_k2(lp, bad).values(), "reference");
        refused(kl_k3(lp, bad).values(), "reference");
        refused(kl_abs(lp, bad).values(), "reference");
        refused(&kl_divergence(lp, bad, &Default::default()), "reference");
        refused(&jensen_shannon(lp, bad, Reduction::Sum), "reference");
        refused(&consistency(lp, bad, &Default::default()), "paired");
        refused(target_cross_entropy(lp, bad).values(), "target");
        refused(target_forward_kl(lp, bad).values(), "target");
        refused(target_reverse_kl(lp, bad).values(), "target");
        refused(&reverse_kl_topk(lp, bad), "weights");
        refused(&reverse_kl_topk_metrics(lp, bad).positions, "weights");
    }
}

#[test]
fn slots_are_two_dimensions() {
    let (flat, rows) = (&tokens(), &rows());
    refused(target_cross_entropy(flat, flat).values(), "lp");
    refused(target_forward_kl(rows, flat).values(), "target");
    refused(target_reverse_kl(flat, rows).values(), "lp");
    refused(&reverse_kl_topk(flat, flat), "lp");
    refused(&brier(flat, flat), "lp");
    refused(&choice_logprobs(flat), "lp");
    refused(&orthogonality(flat, &Default::default()), "lp");
}

/// Worked by hand: reinforce_kl and grpo with a right batch, where a column gave another number.
#[test]
fn the_right_shapes_give_the_right_numbers() {
    let (lp, a, ones) = (&tokens(), &numbers(), &tokens().map(|x| x * 0.0 + 1.0));
    // (1/3)(1·1 - 1·2 + 2·3), the reference being the policy.
    let loss = reinforce_kl(lp, lp, a, ones, 0.5).item().unwrap();
    assert!((loss - 5.0 / 3.0).abs() < 1e-12);
    // Ratios are 1: -(1 - 1 + 2)/3.
    let loss = grpo(lp, lp, None, a, ones, &Default::default()).item().unwrap();
    assert!((loss + 2.0 / 3.0).abs() < 1e-12);
}
