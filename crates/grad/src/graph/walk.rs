//! Walks over the graph. All are loops: a graph may be a million nodes deep.

use rustc_hash::FxHashMap;

use crate::graph::var::Var;

/// The nodes that some roots depend on, in the order they were recorded, which is topological.
pub(crate) struct Graph<'a> {
    pub(crate) nodes: Vec<&'a Var>,
    by_id: Positions,
}

impl<'a> Graph<'a> {
    pub(crate) fn reaching(roots: impl IntoIterator<Item = &'a Var>) -> Graph<'a> {
        let mut pending: Vec<&Var> = roots.into_iter().collect();
        let newest = pending.iter().map(|root| root.0.id).max().unwrap_or(0);
        let mut positions = Positions::new(newest);
        let mut found: Vec<&Var> = Vec::new();
        while let Some(var) = pending.pop() {
            if positions.insert_new(var.0.id, found.len() as u32) {
                pending.extend(&var.0.inputs);
                found.push(var);
            }
        }
        let nodes = positions.renumber().into_iter();
        Graph { nodes: nodes.map(|at| found[at as usize]).collect(), by_id: positions }
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Where `var` stands in `nodes`, if any root depends on it.
    pub(crate) fn position(&self, var: &Var) -> Option<usize> {
        self.by_id.get(var.0.id).map(|at| at as usize)
    }

    /// Where those of `vars` stand that some root depends on.
    pub(crate) fn positions(&self, vars: &[&Var]) -> Vec<usize> {
        vars.iter().filter_map(|var| self.position(var)).collect()
    }

    /// Positions of the inputs of node `at`.
    pub(crate) fn inputs(&self, at: usize) -> impl DoubleEndedIterator<Item = usize> + '_ {
        let position = |input| self.position(input).expect("inputs are in the graph");
        self.nodes[at].0.inputs.iter().map(position)
    }
}

/// A map from node ids to numbers. Most nodes of a graph were recorded shortly before its root, one
/// after another: those lie in a table by age, the few older ones, leaves mostly, in a hash map.
struct Positions {
    newest: u64,
    /// By age, the distance from `newest`.
    recent: Vec<u32>,
    old: FxHashMap<u64, u32>,
    len: usize,
}

const NONE: u32 = u32::MAX;

impl Positions {
    fn new(newest: u64) -> Positions {
        Positions { newest, recent: Vec::new(), old: FxHashMap::default(), len: 0 }
    }

    fn get(&self, id: u64) -> Option<u32> {
        let age = self.newest.checked_sub(id)? as usize;
        match self.recent.get(age) {
            Some(&NONE) => None,
            Some(&at) => Some(at),
            None => self.old.get(&id).copied(),
        }
    }

    /// False, and no change, if `id` is there already.
    fn insert_new(&mut self, id: u64, at: u32) -> bool {
        let age = (self.newest - id) as usize;
        // The table may be sparse, but not much larger than what is in it.
        if age >= self.recent.len() && age < 4 * self.len + 64 {
            self.grow(age + 1);
        }
        let is_new = match self.recent.get_mut(age) {
            Some(place) if *place == NONE => {
                *place = at;
                true
            }
            Some(_) => false,
            None => match self.old.entry(id) {
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(at);
                    true
                }
                std::collections::hash_map::Entry::Occupied(_) => false,
            },
        };
        self.len += usize::from(is_new);
        is_new
    }

    fn grow(&mut self, len: usize) {
        let Positions { newest, recent, old, .. } = self;
        recent.resize(len.next_power_of_two(), NONE);
        old.retain(|&id, &mut at| match recent.get_mut((*newest - id) as usize) {
            Some(place) => {
                *place = at;
                false
            }
            None => true,
        });
    }

    /// Numbers the ids by rising id, and returns their former numbers in that order.
    fn renumber(&mut self) -> Vec<u32> {
        let mut former = Vec::with_capacity(self.len);
        let mut number = |place: &mut u32| {
            former.push(*place);
            *place = former.len() as u32 - 1;
        };
        let mut old: Vec<_> = self.old.iter_mut().collect();
        old.sort_unstable_by_key(|(id, _)| **id);
        old.into_iter().for_each(|(_, place)| number(place));
        let recent = self.recent.iter_mut().rev();
        recent.filter(|place| **place != NONE).for_each(number);
        former
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    /// Leaves recorded long before the rest, and many nodes in between that do not belong to the
    /// graph.
    #[test]
    fn nodes_of_any_age_are_found_once_and_in_order() {
        let one = || Var::ones(&[], DType::F64, &Device::Cpu);
        let old: Vec<Var> = (0..40).map(|_| one()).collect();
        let others: Vec<Var> = (0..20_000).map(|_| one()).collect();
        let mut root = one();
        for leaf in old.iter().chain(&old) {
            root = root.exp() + leaf;
        }
        let graph = Graph::reaching([&root, &old[3], &root]);
        assert_eq!(graph.len(), 40 + 1 + 2 * 80);
        assert!(graph.nodes.is_sorted_by_key(|var| var.0.id));
        for (at, var) in graph.nodes.iter().enumerate() {
            assert_eq!(graph.position(var), Some(at));
        }
        assert_eq!(graph.position(&one()), None);
        assert_eq!(graph.position(&others[7]), None);
    }
}
