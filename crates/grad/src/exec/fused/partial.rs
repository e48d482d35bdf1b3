//! Reductions in the making.

use super::item::Rows;
use crate::graph::op::ReduceOp;

/// A reduction over the elements from some point on. Where that point lies within a row, that row's
/// values are kept apart, to be added one by one to what came before: the order of additions must
/// not depend on where threads divide the work.
pub(super) struct Partial {
    op: ReduceOp,
    continued: Option<(usize, Vec<f64>)>,
    pub(super) values: Vec<f64>,
}
impl Partial {
    pub(super) fn new(op: ReduceOp, rows: &Rows, len: usize, start: usize) -> Partial {
        let is_inside = start > 0 && start < len && !rows.begins_at(start);
        let continued = is_inside.then(|| (rows.row_of(start), Vec::new()));
        Partial { op, continued, values: vec![op.neutral(); rows.count(len)] }
    }

    pub(super) fn add(&mut self, row: usize, value: f64) {
        match &mut self.continued {
            Some((continued, values)) if *continued == row => values.push(value),
            _ => self.values[row] = self.op.join(self.values[row], value),
        }
    }

    pub(super) fn append(&mut self, next: Partial) {
        if let Some((row, values)) = next.continued {
            values
                .into_iter()
                .for_each(|value| self.values[row] = self.op.join(self.values[row], value));
        }
        for (all, value) in self.values.iter_mut().zip(next.values) {
            *all = self.op.join(*all, value);
        }
    }
}
