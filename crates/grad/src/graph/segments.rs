use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

/// How the rows of a packed tensor divide into consecutive sequences. Cheap to clone and to
/// compare.
#[derive(Clone, Debug)]
pub(crate) struct Segments {
    lengths: Arc<[usize]>,
    offsets: Arc<[usize]>,
}

impl Segments {
    pub(crate) fn new(lengths: &[usize]) -> Segments {
        let mut offsets = Vec::with_capacity(lengths.len() + 1);
        offsets.push(0);
        let mut end = 0;
        for &length in lengths {
            end = usize::saturating_add(end, length);
            offsets.push(end);
        }
        Segments { lengths: lengths.into(), offsets: offsets.into() }
    }

    pub(crate) fn len(&self) -> usize {
        self.lengths.len()
    }

    pub(crate) fn rows(&self) -> usize {
        self.offsets[self.len()]
    }

    pub(crate) fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// `len() + 1` row numbers: sequence i is `offsets[i]..offsets[i + 1]`.
    pub(crate) fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    pub(crate) fn range(&self, seq: usize) -> Range<usize> {
        self.offsets[seq]..self.offsets[seq + 1]
    }

    /// The sequence that `row` belongs to.
    pub(crate) fn owner(&self, row: usize) -> usize {
        self.offsets.partition_point(|&start| start <= row) - 1
    }

    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.offsets.windows(2).map(|w| w[0]..w[1])
    }
}

impl Eq for Segments {}

impl Hash for Segments {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.lengths.hash(state);
    }
}

impl PartialEq for Segments {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lengths, &other.lengths) || self.lengths == other.lengths
    }
}
