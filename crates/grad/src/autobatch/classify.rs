//! Which nodes do the same to each sequence.

use std::collections::hash_map::Entry;

use candle_core::DType;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::{At, LEAST};
use crate::graph::op::Op;
use crate::graph::segments::Segments;
use crate::graph::var::Var;
use crate::graph::walk::Graph;

/// Nodes that do the same, each to its own sequence or number.
pub(super) struct Class {
    pub(super) kind: Kind,
    /// The members. Where there is one for each sequence, by sequence.
    pub(super) members: Vec<At>,
    pub(super) operands: SmallVec<[Operand; 3]>,
    missing: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The rows of each sequence, narrowed out of a packed tensor.
    Pieces { of: At, space: usize },
    /// Rows computed for each sequence.
    Rows { space: usize },
    /// One number reduced from each sequence.
    Reduced { space: usize },
    /// Numbers.
    Numbers,
}

/// An operand of all members of a class.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operand {
    /// A number, maybe another one for each member.
    Constant,
    /// The same node for all.
    Shared(At),
    /// A member of that class for each.
    Of(usize),
}

/// What stands for a node after the rewriting.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Place {
    Alone,
    /// As it was, with all that it depends on.
    Kept,
    Constant(f64),
    Member {
        class: usize,
        index: usize,
    },
}

pub(super) struct Classes {
    pub(super) classes: Vec<Class>,
    /// For each node.
    pub(super) places: Vec<Place>,
    /// The ways in which packed rows divide into sequences.
    pub(super) spaces: Vec<Segments>,
}

impl Place {
    /// Which member of its class.
    pub(super) fn index(self) -> Option<usize> {
        match self {
            Place::Member { index, .. } => Some(index),
            _ => None,
        }
    }

    pub(super) fn constant(self) -> Option<f64> {
        match self {
            Place::Constant(number) => Some(number),
            _ => None,
        }
    }
}

impl Kind {
    pub(super) fn space(self) -> Option<usize> {
        match self {
            Kind::Pieces { space, .. } | Kind::Rows { space } | Kind::Reduced { space } => {
                Some(space)
            }
            Kind::Numbers => None,
        }
    }

    /// Whether members have as many rows as their sequences.
    pub(super) fn is_rows(self) -> bool {
        matches!(self, Kind::Pieces { .. } | Kind::Rows { .. })
    }
}

/// `None` if no packed tensor is divided into sequences.
pub(super) fn classify(graph: &Graph, kept: &[usize]) -> Option<Classes> {
    let mut narrowed: Vec<Piece> = Vec::new();
    for (at, var) in graph.nodes.iter().enumerate() {
        if let Op::Narrow { dim: 0, start } = var.0.op {
            let of = graph.inputs(at).next()? as At;
            let (len, at) = (var.shape()[0], at as At);
            narrowed.push(Piece { of, start, len, at });
        }
    }
    if narrowed.len() < LEAST {
        return None;
    }
    let mut classifier = Classifier {
        graph,
        found: Classes {
            classes: Vec::new(),
            places: vec![Place::Alone; graph.len()],
            spaces: Vec::new(),
        },
        known: FxHashMap::default(),
    };
    for &at in kept {
        classifier.found.places[at] = Place::Kept;
    }
    narrowed.retain(|piece| classifier.found.places[piece.at as usize] != Place::Kept);
    classifier.pieces(narrowed);
    if classifier.found.spaces.is_empty() {
        return None;
    }
    for at in 0..graph.len() {
        if classifier.found.places[at] != Place::Kept {
            classifier.place(at);
        }
    }
    classifier.found.dissolve_incomplete();
    Some(classifier.found)
}

/// A node that narrows `of`.
struct Piece {
    of: At,
    start: usize,
    len: usize,
    at: At,
}

/// What members of one class have in common.
#[derive(PartialEq, Eq, Hash)]
struct Key<'g> {
    /// With every parameter.
    op: &'g Op,
    dtype: DType,
    rank: usize,
    operands: SmallVec<[Operand; 3]>,
    /// How often the same sequence has had the same done to it before, with other constants.
    occurrence: u32,
}

struct Classifier<'g> {
    graph: &'g Graph<'g>,
    found: Classes,
    known: FxHashMap<Key<'g>, usize>,
}

impl Classifier<'_> {
    /// Makes a class of the pieces of each tensor that was divided without a gap.
    fn pieces(&mut self, mut narrowed: Vec<Piece>) {
        narrowed.sort_unstable_by_key(|piece| (piece.of, piece.start, piece.len, piece.at));
        for pieces in narrowed.chunk_by(|a, b| a.of == b.of) {
            let of = pieces[0].of;
            let sequences = pieces.chunk_by(|a, b| (a.start, a.len) == (b.start, b.len));
            let ranges: Vec<(usize, usize)> =
                sequences.clone().map(|same| (same[0].start, same[0].len)).collect();
            let mut end = 0;
            let has_gap = ranges.iter().any(|&(start, len)| {
                let begins_at = std::mem::replace(&mut end, start + len);
                start != begins_at
            });
            let rows = self.graph.nodes[of as usize].shape()[0];
            if has_gap || end != rows || ranges.len() < LEAST {
                continue;
            }
            let lengths: Vec<usize> = ranges.iter().map(|&(_, len)| len).collect();
            let space = self.space(&lengths);
            let class = self.found.classes.len();
            let mut members = Vec::with_capacity(lengths.len());
            for (index, same) in sequences.enumerate() {
                members.push(same[0].at);
                for piece in same {
                    self.found.places[piece.at as usize] = Place::Member { class, index };
                }
            }
            self.found.classes.push(Class {
                kind: Kind::Pieces { of, space },
                members,
                operands: SmallVec::new(),
                missing: 0,
            });
        }
    }

    fn space(&mut self, lengths: &[usize]) -> usize {
        let spaces = &mut self.found.spaces;
        spaces.iter().position(|space| space.lengths() == lengths).unwrap_or_else(|| {
            spaces.push(Segments::new(lengths));
            spaces.len() - 1
        })
    }

    fn place(&mut self, at: usize) {
        let var = self.graph.nodes[at];
        let place = match &var.0.op {
            // Placed already.
            Op::Narrow { .. } => return,
            Op::Full(value) if var.dtype() == DType::F32 => {
                Place::Constant(f64::from(value.get() as f32))
            }
            Op::Full(value) if var.is_float() => Place::Constant(value.get()),
            Op::Cast if var.is_float() && self.input(at, 0).constant().is_some() => {
                self.input(at, 0)
            }
            Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast | Op::Detach => {
                self.elementwise(at)
            }
            Op::Reduce { dims, .. } => self.reduction(at, dims),
            // A number, by another name.
            Op::Broadcast | Op::Reshape => match self.input(at, 0) {
                place @ Place::Constant(_) => place,
                place if self.graph.nodes[at].0.inputs[0].elem_count() == 1 => {
                    match self.class_of(place) {
                        Some(Class { kind: Kind::Reduced { .. } | Kind::Numbers, .. }) => place,
                        _ => Place::Alone,
                    }
                }
                _ => Place::Alone,
            },
            _ => Place::Alone,
        };
        self.found.places[at] = place;
    }

    fn input(&self, at: usize, i: usize) -> Place {
        let input = self.graph.inputs(at).nth(i);
        input.map_or(Place::Alone, |input| self.found.places[input])
    }

    fn class_of(&self, place: Place) -> Option<&Class> {
        match place {
            Place::Member { class, .. } => Some(&self.found.classes[class]),
            _ => None,
        }
    }

    fn elementwise(&mut self, at: usize) -> Place {
        let graph = self.graph;
        let var = graph.nodes[at];
        let mut operands: SmallVec<[Operand; 3]> = SmallVec::new();
        let (mut sequence, mut has_numbers, mut has_full_rows) = (None, false, false);
        for (input, node) in graph.inputs(at).zip(&var.0.inputs) {
            let place = self.found.places[input];
            operands.push(match place {
                Place::Constant(_) => Operand::Constant,
                Place::Alone | Place::Kept => Operand::Shared(input as At),
                Place::Member { class, .. } => Operand::Of(class),
            });
            let Place::Member { class, index } = place else {
                continue;
            };
            let kind = self.found.classes[class].kind;
            if !kind.is_rows() {
                has_numbers = true;
                continue;
            }
            let is_other = sequence.is_some_and(|seen| seen != (kind.space(), index));
            if is_other || node.rank() != var.rank() || node.shape()[0] != var.shape()[0] {
                return Place::Alone;
            }
            sequence = Some((kind.space(), index));
            has_full_rows |= node.shape() == var.shape();
        }
        let Some((Some(space), index)) = sequence else {
            return match has_numbers && var.elem_count() == 1 {
                true => self.join_numbers(at, operands),
                false => Place::Alone,
            };
        };
        let is_number = |node: &Var| has_full_rows || node.elem_count() == 1;
        let fits = |(operand, node): (&Operand, &Var)| match *operand {
            // Nothing that tells one row of the sequence from another.
            Operand::Shared(_) => {
                node.rank() < var.rank() || node.rank() == var.rank() && node.shape()[0] == 1
            }
            Operand::Of(class) if self.found.classes[class].kind.is_rows() => true,
            Operand::Of(_) => node.is_float() && is_number(node),
            Operand::Constant => is_number(node),
        };
        match operands.iter().zip(&var.0.inputs).all(fits) {
            true => self.join(at, Kind::Rows { space }, index, operands),
            false => Place::Alone,
        }
    }

    fn reduction(&mut self, at: usize, dims: &[usize]) -> Place {
        let Place::Member { class, index } = self.input(at, 0) else {
            return Place::Alone;
        };
        let kind = self.found.classes[class].kind;
        let Some(space) = kind.space().filter(|_| kind.is_rows()) else {
            return Place::Alone;
        };
        let operands = SmallVec::from_slice(&[Operand::Of(class)]);
        let rank = self.graph.nodes[at].0.inputs[0].rank();
        match dims {
            dims if dims.len() == rank => self.join(at, Kind::Reduced { space }, index, operands),
            dims if !dims.contains(&0) => self.join(at, Kind::Rows { space }, index, operands),
            _ => Place::Alone,
        }
    }

    /// Makes node `at` the member for sequence `index`.
    fn join(
        &mut self,
        at: usize,
        kind: Kind,
        index: usize,
        operands: SmallVec<[Operand; 3]>,
    ) -> Place {
        // A loop body that does the same more often than this to one sequence is not worth the
        // search.
        const MOST: u32 = 8;
        let var = self.graph.nodes[at];
        let sequences = kind.space().map_or(0, |space| self.found.spaces[space].len());
        for occurrence in 0..MOST {
            let key = Key::new(var, &operands, occurrence);
            let class = match self.known.entry(key) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => {
                    self.found.classes.push(Class {
                        kind,
                        members: vec![At::MAX; sequences],
                        operands: operands.clone(),
                        missing: sequences,
                    });
                    *unknown.insert(self.found.classes.len() - 1)
                }
            };
            let joined = &mut self.found.classes[class];
            let member = &mut joined.members[index];
            if *member == At::MAX {
                *member = at as At;
                joined.missing -= 1;
                return Place::Member { class, index };
            }
            let first = *member as usize;
            if self.is_same(first, at) {
                return Place::Member { class, index };
            }
        }
        Place::Alone
    }

    fn join_numbers(&mut self, at: usize, operands: SmallVec<[Operand; 3]>) -> Place {
        let class =
            *self.known.entry(Key::new(self.graph.nodes[at], &operands, 0)).or_insert_with(|| {
                self.found.classes.push(Class {
                    kind: Kind::Numbers,
                    members: Vec::new(),
                    operands,
                    missing: LEAST,
                });
                self.found.classes.len() - 1
            });
        let joined = &mut self.found.classes[class];
        joined.members.push(at as At);
        joined.missing = joined.missing.saturating_sub(1);
        Place::Member { class, index: joined.members.len() - 1 }
    }

    /// Whether two nodes of one class compute the same value.
    fn is_same(&self, a: usize, b: usize) -> bool {
        let same = |(a, b): (usize, usize)| match (self.found.places[a], self.found.places[b]) {
            (Place::Alone | Place::Kept, _) => a == b,
            (Place::Constant(a), Place::Constant(b)) => a.to_bits() == b.to_bits(),
            (a, b) => a == b,
        };
        self.graph.inputs(a).zip(self.graph.inputs(b)).all(same)
    }
}

impl<'g> Key<'g> {
    fn new(var: &'g Var, operands: &SmallVec<[Operand; 3]>, occurrence: u32) -> Key<'g> {
        Key {
            op: &var.0.op,
            dtype: var.dtype(),
            rank: var.rank(),
            operands: operands.clone(),
            occurrence,
        }
    }
}

impl Class {
    /// Whether one node replaces all members.
    pub(super) fn is_whole(&self) -> bool {
        self.missing == 0
    }
}

impl Classes {
    /// The members of a class that is not whole stand for themselves, and so do all that use them.
    fn dissolve_incomplete(&mut self) {
        for class in 0..self.classes.len() {
            let is_whole = |operand: &Operand| match *operand {
                Operand::Of(other) => self.classes[other].is_whole(),
                Operand::Constant | Operand::Shared(_) => true,
            };
            if !self.classes[class].operands.iter().all(is_whole) {
                self.classes[class].missing = usize::MAX;
            }
        }
        for place in &mut self.places {
            if let Place::Member { class, .. } = *place
                && !self.classes[class].is_whole()
            {
                *place = Place::Alone;
            }
        }
    }
}
