//! Walks over the graph. All are loops: a graph may be a million nodes deep.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::var::Var;

/// The nodes that some roots depend on, in the order they were recorded, which is topological.
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Var>,
    position: HashMap<u64, usize, BuildHasherDefault<IdHasher>>,
}

impl Graph {
    pub(crate) fn reaching<'a>(roots: impl IntoIterator<Item = &'a Var>) -> Graph {
        let mut position: HashMap<u64, usize, BuildHasherDefault<IdHasher>> = HashMap::default();
        let mut nodes: Vec<Var> = Vec::new();
        let mut pending: Vec<Var> = roots.into_iter().cloned().collect();
        while let Some(var) = pending.pop() {
            if position.insert(var.0.id, 0).is_none() {
                pending.extend(var.0.inputs.iter().cloned());
                nodes.push(var);
            }
        }
        nodes.sort_unstable_by_key(|var| var.0.id);
        for (at, var) in nodes.iter().enumerate() {
            position.insert(var.0.id, at);
        }
        Graph { nodes, position }
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Where `var` stands in `nodes`, if any root depends on it.
    pub(crate) fn position(&self, var: &Var) -> Option<usize> {
        self.position.get(&var.0.id).copied()
    }

    /// Positions of the inputs of node `at`.
    pub(crate) fn inputs(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        self.nodes[at]
            .0
            .inputs
            .iter()
            .map(|input| self.position[&input.0.id])
    }
}

/// Node ids are already distinct; one multiplication spreads them over the table.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}
