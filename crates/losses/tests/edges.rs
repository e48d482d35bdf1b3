//! What a loss does at the edges: an error that names the place where no number would be right, and
//! the number that is right where a formula alone would give NaN.

use tinsmith_grad::{DType, Device, Error, Ragged, Var, check_finite};
use tinsmith_losses::recipes::Rollout;
use tinsmith_losses::regularize::*;
use tinsmith_losses::*;

fn ragged(seqs: &[&[f64]]) -> Ragged {
    Ragged::from_vecs(seqs, &Device::Cpu)
}

#[test]
fn a_length_that_differs_names_the_sequence_both_lengths_and_the_callers_line() {
    let lp = ragged(&[&[-1.0], &[-1.0, -2.0]]);
    let old = ragged(&[&[-1.0], &[-1.0, -2.0, -3.0]]);
    let line = line!() + 1;
    let error = ppo(&lp, &old, &lp, &Default::default()).item().unwrap_err();
    let Error::SequenceLength { seq: 1, left: 2, right: 3, at, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((at.file().ends_with("edges.rs"), at.line()), (true, line));
}

#[test]
fn an_unpaired_sequence_is_refused() {
    let lp = ragged(&[&[-1.0], &[-2.0], &[-3.0]]);
    let line = line!() + 1;
    let error = dpo(&lp, &lp, &lp, &Default::default()).item().unwrap_err();
    assert!(error.to_string().starts_with("pairs: 3 sequences do not make pairs"), "{error}");
    assert!(error.to_string().contains(&format!("edges.rs:{line}:")), "{error}");
}

#[test]
fn an_empty_sequence_has_no_last_position() {
    let lp = Ragged::new(Var::zeros(&[1, 2], DType::F64, &Device::Cpu), &[1, 0]);
    let error = brier(&lp, &lp).item().unwrap_err();
    assert!(error.to_string().starts_with("choice: sequence 1 is empty"), "{error}");
}

#[test]
fn prompt_lengths_must_be_as_many_as_sequences() {
    let lp = ragged(&[&[-1.0], &[-2.0]]);
    let rollout = Rollout::new(&lp, &Var::ones(&[2], DType::F64, &Device::Cpu)).prompt_lens(&[1]);
    let error = recipes::grpo(&lp, &rollout, &Default::default()).item().unwrap_err();
    assert!(
        error.to_string().starts_with("prompt_lens: 1 prompt lengths for 2 sequences"),
        "{error}"
    );
}

#[test]
fn the_penalized_function_must_use_its_argument() {
    let error =
        gradient_penalty(&ragged(&[&[-1.0]]), 1.0, |_| Var::scalar(1.0)).item().unwrap_err();
    assert!(matches!(error, Error::Unused { .. }), "{error}");
}

#[test]
fn nan_on_an_active_token_is_not_clipped_away() {
    let (lp, old) = (ragged(&[&[f64::NAN, -1.0]]), ragged(&[&[-1.0, -1.0]]));
    for advantage in [1.0, -1.0] {
        let loss = ppo(&lp, &old, &ragged(&[&[advantage, 1.0]]), &Default::default());
        assert!(loss.item().unwrap().is_nan());
    }
}

#[test]
fn an_overflow_is_traced_to_the_ratio_and_the_callers_line() {
    let (lp, old) = (ragged(&[&[-1.0, -1.0]]), ragged(&[&[-1.0, -1000.0]]));
    let line = line!() + 1;
    let loss = ppo(&lp, &old, &ragged(&[&[1.0, -1.0]]), &Default::default());
    assert_eq!(loss.item().unwrap(), f64::INFINITY);
    let error = check_finite(&[&loss]).unwrap_err().to_string();
    assert!(error.starts_with("exp `importance ratio` gives inf at index [1]"), "{error}");
    assert!(error.contains(&format!("edges.rs:{line}:")), "{error}");
}

#[test]
fn losses_keep_the_dtype_of_their_logprobs() {
    let lp = Ragged::from_vecs(&[vec![-1f32], vec![-2.0]], &Device::Cpu);
    let advantages = Var::from_vec(vec![1f32, -1.0], &[2], &Device::Cpu);
    let losses = [
        grpo(&lp, &lp, Some(&lp), &advantages, &lp, &Default::default()),
        gspo(&lp, &lp, &lp, &lp, &Default::default()),
        dpo(&lp, &lp, &lp, &Default::default()),
        orpo(&lp, &lp, &Default::default()),
        entropy(&lp, &EntropyConfig::default().normalize(true)),
        recipes::grpo(&lp, &Rollout::new(&lp, &advantages).sampled(&lp), &Default::default()),
    ];
    for loss in losses {
        assert_eq!((loss.error().map(ToString::to_string), loss.dtype()), (None, DType::F32));
    }
}

#[test]
fn orpo_divides_by_at_least_one() {
    let lp = ragged(&[&[-2.0], &[-2.0]]);
    let weights = ragged(&[&[0.5], &[0.5]]);
    let loss = orpo(&lp, &weights, &Default::default());
    // v = -1 for both, so the odds are equal: 1 + ln 2.
    assert!((loss.item().unwrap() - (1.0 + 2f64.ln())).abs() < 1e-12);
}

#[test]
fn a_row_of_zeros_is_orthogonal_to_all() {
    let x = Var::from_vec(vec![0.0, 0.0, 3.0, 4.0], &[2, 2], &Device::Cpu);
    let lp = Ragged::new(x.clone(), &[2]);
    let loss = orthogonality(&lp, &Default::default());
    assert_eq!(loss.item().unwrap(), 0.0);
    let gradient = loss.backward(&[&x]).unwrap()[0].flatten_all().unwrap();
    assert_eq!(gradient.to_vec1::<f64>().unwrap(), [0.0; 4]);
}

#[test]
fn an_empty_batch_is_zero_and_not_nan() {
    let none = ragged(&[]);
    assert_eq!(cross_entropy(&none, &none).item().unwrap(), 0.0);
    assert_eq!(mean_cross_entropy(&none, &none).item().unwrap(), 0.0);
    assert_eq!(aggregate(&none, &none, Aggregation::SeqMeanTokenMean).item().unwrap(), 0.0);
    assert_eq!(dpo(&none, &none, &none, &Default::default()).item().unwrap(), 0.0);
}
