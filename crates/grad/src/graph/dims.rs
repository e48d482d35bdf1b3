//! Arithmetic on shapes and dimension numbers, free of tensors.

use smallvec::SmallVec;

/// A shape or a list of dimensions. Four cover a transformer; more spill to the heap.
pub(crate) type Dims = SmallVec<[usize; 4]>;

pub(crate) fn elem_count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The number of elements, if so many f64 can be addressed.
pub(crate) fn checked_count(shape: &[usize]) -> Option<usize> {
    let most = isize::MAX as usize / size_of::<f64>();
    // A size of 0 hides no overflow: a part of the shape may be counted too.
    let count = shape.iter().try_fold(1usize, |count, &n| count.checked_mul(n.max(1)));
    count.filter(|&count| count <= most).map(|_| elem_count(shape))
}

/// The shape two operands broadcast to, by NumPy's rule, or `None`.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Option<Dims> {
    if a == b {
        return Some(Dims::from_slice(a));
    }
    let rank = a.len().max(b.len());
    let size =
        |shape: &[usize], d: usize| (d + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    (0..rank)
        .map(|d| match (size(a, d), size(b, d)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Dimension `dim` of a tensor of rank `rank`, negatives counting from the end.
pub(crate) fn resolve(dim: isize, rank: usize) -> Result<usize, String> {
    let d = if dim < 0 { dim + rank as isize } else { dim };
    usize::try_from(d)
        .ok()
        .filter(|&d| d < rank)
        .ok_or_else(|| format!("dimension {dim} is out of range for rank {rank}"))
}

/// Several distinct dimensions, resolved and in rising order.
pub(crate) fn resolve_all(dims: &[isize], rank: usize) -> Result<Dims, String> {
    let mut resolved = dims.iter().map(|&d| resolve(d, rank)).collect::<Result<Dims, _>>()?;
    resolved.sort_unstable();
    match resolved.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("dimension {} is named twice", pair[0])),
        None => Ok(resolved),
    }
}

/// `shape` with the dimensions `dims` (rising) reduced to size 1, or left out.
pub(crate) fn reduced(shape: &[usize], dims: &[usize], keepdim: bool) -> Dims {
    shape
        .iter()
        .enumerate()
        .filter_map(|(d, &n)| match dims.contains(&d) {
            true => keepdim.then_some(1),
            false => Some(n),
        })
        .collect()
}

/// Row-major strides.
pub(crate) fn strides(shape: &[usize]) -> Dims {
    let mut strides = Dims::from_elem(1, shape.len());
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d];
    }
    strides
}

/// The multi-dimensional index of flat position `flat`.
pub(crate) fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, &n) in index.iter_mut().zip(shape).rev() {
        *i = flat % n;
        flat /= n;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        assert_eq!(broadcast(&[2, 1, 3], &[4, 1]).unwrap().as_slice(), [2, 4, 3]);
        assert_eq!(broadcast(&[], &[0, 3]).unwrap().as_slice(), [0, 3]);
        assert_eq!(broadcast(&[1], &[0]).unwrap().as_slice(), [0]);
        assert_eq!(broadcast(&[2], &[3]), None);
        assert_eq!(broadcast(&[2], &[0]), None);
    }

    #[test]
    fn dimensions_count_from_the_end_and_stay_in_range() {
        assert_eq!(resolve(-1, 3), Ok(2));
        assert!(resolve(3, 3).is_err());
        assert!(resolve(-4, 3).is_err());
        assert_eq!(resolve_all(&[-1, 0], 3).unwrap().as_slice(), [0, 2]);
        assert!(resolve_all(&[0, -2], 2).is_err());
    }

    #[test]
    fn unravel_inverts_strides() {
        let shape = [3, 2, 4];
        for flat in 0..24 {
            let back: usize =
                unravel(flat, &shape).iter().zip(strides(&shape)).map(|(i, s)| i * s).sum();
            assert_eq!(back, flat);
        }
    }
}
