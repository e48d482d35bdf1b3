use crate::diagnose::reach::{Rows, through};
use crate::graph::op::Op;
use crate::graph::segments::Segments;
use crate::graph::var::Var;
use crate::graph::walk::Graph;

/// A sequence of a ragged batch, and a row in it if only one is meant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) seq: usize,
    pub(crate) row: Option<usize>,
}

/// The place of row `row` of `var`, if what it is computed from lies in one sequence: found by
/// following the row back to the nearest value that is known to be divided into sequences.
pub(crate) fn place(var: &Var, row: usize) -> Option<Place> {
    let graph = Graph::reaching([var]);
    let mut rows: Vec<Rows> = vec![Rows::default(); graph.len()];
    rows.last_mut()?.join(Rows(std::iter::once(row..row + 1).collect()));
    for at in (0..graph.len()).rev() {
        let (var, rows_here) = (graph.nodes[at], std::mem::take(&mut rows[at]));
        if let Some(found) = within_one(var, &rows_here) {
            return Some(found);
        }
        for (i, input) in graph.inputs(at).enumerate() {
            rows[input].join(through(var, i, &rows_here));
        }
    }
    None
}

fn within_one(var: &Var, rows: &Rows) -> Option<Place> {
    let (first, last) = (rows.0.first()?.start, rows.0.last()?.end - 1);
    let row = (first == last).then_some(first);
    if let Op::SegmentReduce { .. } = var.0.op {
        return row.map(|seq| Place { seq, row: None });
    }
    let segments = division(var)?;
    let seq = segments.owner(first);
    let row = row.map(|row| row - segments.range(seq).start);
    (segments.owner(last) == seq).then_some(Place { seq, row })
}

fn division(var: &Var) -> Option<&Segments> {
    match &var.0.op {
        Op::SegmentExpand(segments) => Some(segments),
        _ => var.0.sequences.get().map(AsRef::as_ref),
    }
}
