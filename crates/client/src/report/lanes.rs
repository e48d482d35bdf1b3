//! Sums over many numbers. In eight lanes that do not wait for one another, and in f64.

const LANES: usize = 8;

/// The sums of what `terms` gives for each pair.
pub fn sums<const N: usize>(
    a: &[f32],
    b: &[f32],
    terms: impl Fn(f64, f64) -> [f64; N],
) -> [f64; N] {
    fold(a, b, terms, |sum, term| sum + term)
}

/// The greatest of what `terms` gives for each pair, none below 0.
pub fn greatest(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let [greatest] = fold(a, b, |a, b| [term(a, b)], f64::max);
    greatest
}

fn fold<const N: usize>(
    a: &[f32],
    b: &[f32],
    terms: impl Fn(f64, f64) -> [f64; N],
    join: impl Fn(f64, f64) -> f64,
) -> [f64; N] {
    let mut lanes = [[0.0; LANES]; N];
    let (whole_a, rest_a) = a.as_chunks::<LANES>();
    let (whole_b, rest_b) = b.as_chunks::<LANES>();
    let mut add = |lane: usize, a: f32, b: f32| {
        let terms = terms(a.into(), b.into());
        for (lanes, term) in lanes.iter_mut().zip(terms) {
            lanes[lane] = join(lanes[lane], term);
        }
    };
    for (a, b) in whole_a.iter().zip(whole_b) {
        for lane in 0..LANES {
            add(lane, a[lane], b[lane]);
        }
    }
    for (lane, (&a, &b)) in rest_a.iter().zip(rest_b).enumerate() {
        add(lane, a, b);
    }
    lanes.map(|lanes| lanes.into_iter().fold(0.0, &join))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_counts_once_however_many_there_are() {
        for n in [0usize, 1, 7, 8, 9, 16, 100] {
            let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let b: Vec<f32> = (0..n).map(|i| (n - i) as f32).collect();
            let triangle = (n * n.saturating_sub(1) / 2) as f64;
            let found = sums(&a, &b, |a, b| [a, a + b]);
            assert_eq!(found, [triangle, (n * n) as f64], "{n}");
            assert_eq!(greatest(&a, &b, |a, _| a), n.saturating_sub(1) as f64, "{n}");
        }
    }
}
