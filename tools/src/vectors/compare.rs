//! `|got - want| <= tolerance * max(1, max|want| over the tensor)`; a NaN matches a NaN, an
//! infinity only itself.

use anyhow::{Result, bail, ensure};
use tinsmith_grad::DType;

use super::execute::Answer;
use super::file::{Expectations, Expected};
use super::number::Number;

/// Accepts `answer` if it equals any of the acceptable ones; the error tells the difference to the
/// first of them.
pub fn answer(answer: &Answer, expected: &Expectations, dtype: DType) -> Result<()> {
    let tolerance = tolerance(dtype);
    let mut outcomes =
        expected.acceptable(dtype).into_iter().map(|want| equals(answer, want, tolerance));
    let first = outcomes.next().expect("PyTorch's own answer is always there");
    if first.is_err() && outcomes.any(|other| other.is_ok()) {
        return Ok(());
    }
    first
}

fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-11,
        _ => 2e-5,
    }
}

fn equals(answer: &Answer, want: &Expected, tolerance: f64) -> Result<()> {
    ensure!(
        answer.shape == want.out.shape,
        "shape: got {:?}, want {:?}",
        answer.shape,
        want.out.shape
    );
    values("value", &answer.out, &want.out.data, tolerance)?;
    ensure!(
        answer.grads.len() == want.grads.len(),
        "{} gradients, want {}",
        answer.grads.len(),
        want.grads.len()
    );
    for (index, (got, want)) in answer.grads.iter().zip(&want.grads).enumerate() {
        values(&format!("gradient {index}"), got, want, tolerance)?;
    }
    for (name, want) in &want.metrics {
        let Some((_, got)) = answer.metrics.iter().find(|(found, _)| found == name) else {
            bail!("metric `{name}`: missing, want {}", want.0);
        };
        values(&format!("metric `{name}`"), &[*got], &[*want], tolerance)?;
    }
    Ok(())
}

/// Compares two flat tensors; the error names the first difference.
pub fn values(what: &str, got: &[f64], want: &[Number], tolerance: f64) -> Result<()> {
    ensure!(got.len() == want.len(), "{what}: {} elements, want {}", got.len(), want.len());
    let largest =
        want.iter().map(|want| want.0.abs()).filter(|x| x.is_finite()).fold(1.0, f64::max);
    for (index, (&got, &Number(want))) in got.iter().zip(want).enumerate() {
        let same = got == want
            || got.is_nan() && want.is_nan()
            || (got - want).abs() <= tolerance * largest;
        ensure!(same, "{what}[{index}]: got {got:?}, want {want:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(got: f64, want: f64) -> bool {
        values("x", &[got], &[Number(want)], 1e-3).is_ok()
    }

    #[test]
    fn tolerance_is_relative_above_one_and_absolute_below() {
        assert!(same(2000.0, 2001.9));
        assert!(!same(2000.0, 2002.1));
        assert!(same(0.0, 0.001));
        assert!(!same(0.0, 0.0011));
    }

    #[test]
    fn the_scale_is_that_of_the_whole_tensor() {
        let want = [Number(0.0), Number(1000.0)];
        assert!(values("x", &[0.9, 1000.0], &want, 1e-3).is_ok());
        assert!(values("x", &[1.1, 1000.0], &want, 1e-3).is_err());
    }

    #[test]
    fn what_is_not_finite_matches_only_its_like() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        for (got, want, matches) in [
            (nan, nan, true),
            (inf, inf, true),
            (inf, -inf, false),
            (nan, inf, false),
            (1.0, inf, false),
            (inf, 1.0, false),
            (nan, 1.0, false),
        ] {
            assert_eq!(same(got, want), matches, "{got} against {want}");
        }
    }
}
