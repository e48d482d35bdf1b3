//! One walk over arrays of one length, for all that is to be known of them. In eight lanes that do
//! not wait for one another, and in f64.

use std::array::from_fn;

const LANES: usize = 8;

/// The sums of what `terms` gives first for the elements at one place, and the greatest of what it
/// gives second, none below 0. Arrays that are longer than the first are cut.
pub fn walk<const N: usize, const S: usize, const M: usize>(
    arrays: [&[f32]; N],
    terms: impl Fn([f64; N]) -> ([f64; S], [f64; M]),
) -> ([f64; S], [f64; M]) {
    let (mut sums, mut greatest) = ([[0.0; LANES]; S], [[0.0f64; LANES]; M]);
    let mut add = |lane: usize, elements: [f32; N]| {
        let (to_add, to_compare) = terms(elements.map(f64::from));
        for (sums, term) in sums.iter_mut().zip(to_add) {
            sums[lane] += term;
        }
        for (greatest, term) in greatest.iter_mut().zip(to_compare) {
            // `f64::max` would look for NaN at each.
            greatest[lane] = if term > greatest[lane] { term } else { greatest[lane] };
        }
    };
    let chunks = arrays.map(|array| array.as_chunks::<LANES>());
    let whole = chunks.iter().map(|(whole, _)| whole.len()).min().unwrap_or(0);
    for i in 0..whole {
        let blocks = chunks.map(|(whole, _)| &whole[i]);
        let elements: [[f32; N]; LANES] = from_fn(|lane| from_fn(|array| blocks[array][lane]));
        for (lane, elements) in elements.into_iter().enumerate() {
            add(lane, elements);
        }
    }
    let rest = arrays.map(|array| &array[(whole * LANES).min(array.len())..]);
    let length = rest.iter().map(|rest| rest.len()).min().unwrap_or(0);
    (0..length).for_each(|i| add(i % LANES, from_fn(|array| rest[array][i])));
    let sums = sums.map(|lanes| lanes.iter().sum());
    (sums, greatest.map(|lanes| lanes.into_iter().fold(0.0, f64::max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_counts_once_however_many_there_are() {
        for n in [0usize, 1, 7, 8, 9, 16, 100] {
            let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let b: Vec<f32> = (0..n).map(|i| (n - i) as f32).collect();
            let triangle = (n * n.saturating_sub(1) / 2) as f64;
            let (sums, greatest) = walk([&a, &b], |[a, b]| ([a, a + b], [a, b]));
            assert_eq!(sums, [triangle, (n * n) as f64], "{n}");
            assert_eq!(greatest, [n.saturating_sub(1) as f64, n as f64], "{n}");
        }
    }
}
