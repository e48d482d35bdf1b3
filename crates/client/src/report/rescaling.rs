use serde::Serialize;
use tinsmith_wire::TensorData;

/// What becomes of a batch on a server that divides the weights of each sequence by their sum, or
/// by 1e-9 where that is less. SkyRL-tx's JAX engine does, and tells its losses as they were
/// before, so that [`SurrogateCheck`](crate::SurrogateCheck) cannot show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Rescaling {
    /// Sequences whose gradient changes its size: their weights do not add up to 1.
    pub sequences: usize,
    /// Of these, the ones whose weights add up to 0 or less, so that they are multiplied by up to
    /// 1e9.
    pub inflated: usize,
}

/// How far from 1 a sum may be for rounding.
const TOLERANCE: f64 = 0.01;

impl Rescaling {
    /// `weights[i]` are sent for datum i. None if they stay as they are.
    pub(crate) fn of(weights: &[TensorData]) -> Option<Self> {
        let (mut sequences, mut inflated) = (0, 0);
        for weights in weights {
            let dense = weights.to_dense().ok()?;
            let weights = dense.as_f32()?;
            let sum: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            if weights.iter().all(|&w| w == 0.0) || (sum - 1.0).abs() <= TOLERANCE {
                continue;
            }
            sequences += 1;
            inflated += usize::from(sum <= 1e-9);
        }
        (sequences > 0).then_some(Rescaling { sequences, inflated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_weights_that_add_up_to_one_stay() {
        let of = |weights: &[&[f32]]| {
            let weights: Vec<TensorData> = weights.iter().map(|it| it.to_vec().into()).collect();
            Rescaling::of(&weights).map(|it| (it.sequences, it.inflated))
        };
        assert_eq!(of(&[&[0.25, 0.75], &[0.0, 0.0]]), None);
        assert_eq!(of(&[&[0.25, 0.75], &[0.5], &[3.0, -1.0]]), Some((2, 0)));
        assert_eq!(of(&[&[1.0], &[-0.5], &[2.0, -2.0]]), Some((2, 2)));
    }
}
