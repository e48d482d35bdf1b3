//! How a kernel's elements divide into rows, seen from its blocks.

use std::ops::Range;

use super::item::Rows;

/// The rows of a kernel, and the row in which its current block begins. Blocks come in order, so it
/// only moves forward.
pub(super) struct Cursor<'a> {
    rows: &'a Rows,
    row: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(rows: &'a Rows, start: usize) -> Cursor<'a> {
        let row = rows.row_of(start);
        Cursor { rows, row }
    }

    /// Moves on to the block that begins at `start`.
    pub(super) fn advance(&mut self, start: usize) {
        while self.rows.end(self.row).is_some_and(|end| end <= start) {
            self.row += 1;
        }
    }

    /// The row that holds all of the block `start..end`, if one does.
    pub(super) fn only_row(&self, end: usize) -> Option<usize> {
        let is_last = self.rows.end(self.row).is_none_or(|row_end| end <= row_end);
        is_last.then_some(self.row)
    }

    /// Shows `f` each row that has elements in the block `start..start + len`, and where they are
    /// in the block.
    #[inline(always)]
    pub(super) fn each_row(
        &self,
        start: usize,
        len: usize,
        mut f: impl FnMut(usize, Range<usize>),
    ) {
        let mut row = self.row;
        let mut at = 0;
        while at < len {
            let end = self.rows.end(row).map_or(len, |end| (end - start).min(len));
            if end > at {
                f(row, at..end);
            }
            at = end;
            row += 1;
        }
    }
}

impl Rows {
    pub(super) fn count(&self, len: usize) -> usize {
        match self {
            Rows::One => 1,
            Rows::Of(n) => len / n,
            Rows::Segments(segments) => segments.len(),
        }
    }

    pub(super) fn row_of(&self, element: usize) -> usize {
        match self {
            Rows::One => 0,
            Rows::Of(n) => element / n,
            Rows::Segments(segments) => {
                segments.offsets().partition_point(|&offset| offset <= element) - 1
            }
        }
    }

    pub(super) fn begins_at(&self, element: usize) -> bool {
        match self {
            Rows::One => element == 0,
            Rows::Of(n) => element.is_multiple_of(*n),
            Rows::Segments(segments) => segments.offsets().binary_search(&element).is_ok(),
        }
    }

    /// Where `row` ends, if there can be another after it.
    fn end(&self, row: usize) -> Option<usize> {
        match self {
            Rows::One => None,
            Rows::Of(n) => Some((row + 1) * n),
            Rows::Segments(segments) => segments.offsets().get(row + 1).copied(),
        }
    }
}
