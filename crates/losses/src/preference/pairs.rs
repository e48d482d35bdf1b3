use tinsmith_grad::{Error, Ragged, Var, here};

use crate::inputs::{out_of_range, tokens};
use crate::masked::{masked_mean_per_seq, masked_sum_per_seq};

/// Splits interleaved values `[2P]` into those of the chosen and of the rejected sequences, each
/// `[P]`.
#[track_caller]
pub(super) fn pairs(values: &Var) -> (Var, Var) {
    let refuse = |error: Error| (Var::from(error.clone()), Var::from(error));
    if values.error().is_some() {
        return (values.clone(), values.clone());
    }
    let &[n] = values.shape() else {
        let shapes = vec![values.shape().to_vec()];
        let why = "is not one number a sequence, [2P]".into();
        return refuse(Error::Shape { op: "pairs", shapes, why, at: here() });
    };
    if n % 2 == 1 {
        let why = format!(
            "{n} sequences do not make pairs; they come interleaved: chosen, rejected, chosen, ..."
        );
        return refuse(out_of_range("pairs", why));
    }
    (values.slice_step(0, 0, n, 2), values.slice_step(0, 1, n, 2))
}

/// Chosen minus rejected, `[P]`.
#[track_caller]
pub(super) fn margins(values: &Var) -> Var {
    let (chosen, rejected) = pairs(values);
    chosen - rejected
}

/// One number a sequence, `[n]`: the weighted sum of `lp`, or its mean.
#[track_caller]
pub(super) fn score(op: &'static str, lp: &Ragged, weights: &Ragged, length_average: bool) -> Var {
    tokens!(op; lp, weights);
    match length_average {
        true => masked_mean_per_seq(lp, weights),
        false => masked_sum_per_seq(lp, weights),
    }
}

/// As [`score`], of the log ratio to a reference.
#[track_caller]
pub(super) fn score_beside(
    op: &'static str,
    lp: &Ragged,
    reference: &Ragged,
    weights: &Ragged,
    length_average: bool,
) -> Var {
    tokens!(op; lp, reference);
    score(op, &(lp - reference), weights, length_average)
}

/// `(1 - e) f(z) + e f(-z)`, where e is `smoothing`, the share of labels that are wrong.
///
/// Without smoothing it is `f(z)` alone, since `0 · f(-z)` is NaN where f is infinite.
#[track_caller]
pub(super) fn smoothed(op: &'static str, z: &Var, smoothing: f64, f: impl Fn(&Var) -> Var) -> Var {
    match smoothing {
        0.0 => f(z),
        e if (0.0..=0.5).contains(&e) => f(z) * (1.0 - e) + f(&-z) * e,
        e => {
            let why = format!("`label_smoothing` is {e}; it is a share from 0 to 0.5");
            out_of_range(op, why).into()
        }
    }
}

/// `-ln σ(z)`.
#[track_caller]
pub(super) fn negative_log_sigmoid(z: &Var) -> Var {
    -z.log_sigmoid()
}
