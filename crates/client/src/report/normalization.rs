use serde::Serialize;
use tinsmith_wire::GradAccumulationNormalization;

/// What the gradient was divided by here, before it was sent:
/// [`Loss::normalize`](crate::Loss::normalize).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Normalization {
    /// What was counted.
    pub by: GradAccumulationNormalization,
    /// How many there are with a gradient other than 0. If 0, nothing was divided.
    pub count: usize,
}

impl Normalization {
    /// Of a gradient, row-major, whose sequence i has the rows `offsets[i]..offsets[i + 1]`. A row
    /// is a token.
    pub(crate) fn of(
        by: GradAccumulationNormalization,
        gradient: &[f32],
        offsets: &[usize],
    ) -> Option<Self> {
        if by == GradAccumulationNormalization::None {
            return None;
        }
        let total = offsets.last().copied().unwrap_or(0);
        let row_len = (gradient.len() / total.max(1)).max(1);
        let rows = gradient.chunks_exact(row_len);
        let is_reached = |row: &[f32]| f32::from(u8::from(row.iter().any(|&g| g != 0.0)));
        let reached: Vec<f32> = rows.map(is_reached).collect();
        let seqs = offsets.windows(2).map(|seq| &reached[seq[0]..seq[1]]);
        let count = by.count(seqs);
        Some(Normalization { by, count })
    }

    /// What the gradient is multiplied with.
    pub(crate) fn factor(self) -> f64 {
        1.0 / self.count.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_a_gradient_count_and_so_do_their_sequences() {
        use GradAccumulationNormalization::{None as Nothing, NumLossTokens, NumSequences};
        // Three sequences of 2, 1 and 0 tokens, two targets each.
        let gradient = [0.0, -1.0, 0.0, 0.0, 2.0, 3.0];
        let count = |by| Normalization::of(by, &gradient, &[0, 2, 3, 3]).map(|found| found.count);
        assert_eq!(count(Nothing), None);
        assert_eq!(count(NumLossTokens), Some(2));
        assert_eq!(count(NumSequences), Some(2));
        let zeros = Normalization::of(NumSequences, &[0.0; 6], &[0, 2, 3, 3]);
        assert_eq!(zeros.map(|found| (found.count, found.factor())), Some((0, 1.0)));
    }
}
