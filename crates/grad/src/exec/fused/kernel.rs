//! The kernels of a pass: which values they compute together, and what they read and leave behind.

use std::sync::Arc;

use super::cache::compiled;
use super::item::{Item, ItemId, Kind, Rows};
use super::program::{Arg, Kernel, KernelOp, Node, Output, Program};

/// A program, and the items that it works on.
pub(super) struct Binding {
    /// Elements.
    pub(super) len: usize,
    pub(super) program: Arc<Program>,
    pub(super) arrays: Vec<ItemId>,
    pub(super) numbers: Vec<ItemId>,
    /// Items that expand or reduce the program's rows.
    pub(super) rows: Vec<ItemId>,
    pub(super) stored: Vec<ItemId>,
    pub(super) reduced: Vec<ItemId>,
}

/// What one run of a program computes, operands first, and leaves behind.
#[derive(Default)]
struct Cluster {
    inside: Vec<ItemId>,
    results: Vec<ItemId>,
}

/// A kernel, and the items that its arrays, numbers and rows are.
#[derive(Default)]
struct Forming {
    kernel: Kernel,
    arrays: Vec<ItemId>,
    numbers: Vec<ItemId>,
    rows: Vec<ItemId>,
}

/// Forms the kernels of a plan.
pub(super) struct Former<'p> {
    items: &'p [Item],
    /// For each item, the group of results that first needed it in the clusters being formed, or
    /// its place in the kernel being formed; only entries with the current `epoch` count.
    marks: Vec<(u32, u32)>,
    epoch: u32,
}

impl<'p> Former<'p> {
    pub(super) fn new(items: &'p [Item]) -> Former<'p> {
        Former { items, marks: vec![(0, 0); items.len()], epoch: 0 }
    }

    /// The kernels for `results`, which are computed over `len` elements in one stage.
    pub(super) fn kernels(&mut self, stage: u32, len: usize, results: &[ItemId]) -> Vec<Binding> {
        let clusters = self.clusters(stage, len, results);
        clusters.iter().map(|cluster| self.form(len, cluster)).collect()
    }

    fn item(&self, id: ItemId) -> &'p Item {
        &self.items[id as usize]
    }

    /// Divides `results`, which are computed over `len` elements in one stage, into clusters that
    /// share values or arrays.
    fn clusters(&mut self, stage: u32, len: usize, results: &[ItemId]) -> Vec<Cluster> {
        self.epoch += 1;
        let mut leader: Vec<usize> = (0..results.len()).collect();
        fn find(leader: &mut [usize], mut group: usize) -> usize {
            while leader[group] != group {
                leader[group] = leader[leader[group]];
                group = leader[group];
            }
            group
        }
        let mut inside: Vec<ItemId> = Vec::new();
        let mut pending: Vec<ItemId> = Vec::new();
        for (group, &result) in results.iter().enumerate() {
            match self.item(result).kind {
                Kind::Reduce(..) => pending.push(self.item(result).inputs[0]),
                _ => pending.push(result),
            }
            while let Some(id) = pending.pop() {
                if self.item(id).len != len {
                    continue;
                }
                if let Some(other) = self.mark(id) {
                    let (a, b) = (find(&mut leader, group), find(&mut leader, other as usize));
                    leader[a.max(b)] = a.min(b);
                    continue;
                }
                self.marks[id as usize] = (self.epoch, group as u32);
                if self.is_computed(id, stage, len) {
                    inside.push(id);
                    let item = self.item(id);
                    if matches!(item.kind, Kind::Map(_)) {
                        pending.extend(item.inputs.iter().copied());
                    }
                }
            }
        }
        inside.sort_unstable();
        let mut clusters: Vec<Cluster> = Vec::new();
        let mut place: Vec<Option<usize>> = vec![None; results.len()];
        let mut cluster = |group: usize, clusters: &mut Vec<Cluster>, leader: &mut Vec<usize>| {
            let group = find(leader, group);
            *place[group].get_or_insert_with(|| {
                clusters.push(Cluster::default());
                clusters.len() - 1
            })
        };
        for id in inside {
            let at = cluster(self.marks[id as usize].1 as usize, &mut clusters, &mut leader);
            clusters[at].inside.push(id);
        }
        for (group, &result) in results.iter().enumerate() {
            let at = cluster(group, &mut clusters, &mut leader);
            clusters[at].results.push(result);
        }
        clusters
    }

    fn mark(&self, id: ItemId) -> Option<u32> {
        let (epoch, mark) = self.marks[id as usize];
        (epoch == self.epoch).then_some(mark)
    }

    /// Whether a kernel of `stage` over `len` elements computes `id` rather than reading it from
    /// memory.
    fn is_computed(&self, id: ItemId, stage: u32, len: usize) -> bool {
        let item = self.item(id);
        item.is_inside(len) && !(item.is_stored && item.stage < stage)
    }

    fn form(&mut self, len: usize, cluster: &Cluster) -> Binding {
        self.epoch += 1;
        let mut forming = Forming::default();
        for &id in &cluster.inside {
            self.bind(id, &mut forming);
        }
        let (mut stored, mut reduced) = (Vec::new(), Vec::new());
        for &id in &cluster.results {
            let output = match &self.item(id).kind {
                Kind::Reduce(op, rows) => {
                    reduced.push(id);
                    Output::Reduce {
                        op: *op,
                        rows: forming.rows(self.items, id, rows),
                        value: self.arg(self.item(id).inputs[0], &mut forming),
                    }
                }
                _ => {
                    stored.push(id);
                    let value = self.arg(id, &mut forming);
                    Output::Store { value }
                }
            };
            forming.kernel.outputs.push(output);
        }
        let Forming { mut kernel, arrays, numbers, rows } = forming;
        kernel.arrays = arrays.len() as u32;
        kernel.numbers = numbers.len() as u32;
        Binding { len, program: compiled(&kernel), arrays, numbers, rows, stored, reduced }
    }

    fn bind(&mut self, id: ItemId, forming: &mut Forming) {
        let item = self.item(id);
        let mut args = [Arg::Absent; 4];
        let op = match &item.kind {
            Kind::Expand(rows) => {
                args[0] = Arg::Array(forming.array(item.inputs[0]));
                KernelOp::Expand { rows: forming.rows(self.items, id, rows) }
            }
            Kind::Map(op) => {
                for (arg, &input) in args.iter_mut().zip(&item.inputs) {
                    *arg = self.arg(input, forming);
                }
                *op
            }
            _ => unreachable!("only elementwise items are computed inside of a kernel"),
        };
        forming.kernel.nodes.push(Node { op, args });
        self.marks[id as usize] = (self.epoch, forming.kernel.nodes.len() as u32 - 1);
    }

    fn arg(&self, id: ItemId, forming: &mut Forming) -> Arg {
        if let Some(node) = self.mark(id) {
            return Arg::Node(node);
        }
        match self.item(id) {
            Item { kind: Kind::Constant(value), .. } => Arg::Constant(*value),
            Item { len: 1, .. } => Arg::Number(forming.number(id)),
            _ => Arg::Array(forming.array(id)),
        }
    }
}

impl Forming {
    fn array(&mut self, id: ItemId) -> u32 {
        position_or_push(&mut self.arrays, id, |&known| known == id)
    }

    fn number(&mut self, id: ItemId) -> u32 {
        position_or_push(&mut self.numbers, id, |&known| known == id)
    }

    fn rows(&mut self, items: &[Item], id: ItemId, rows: &Rows) -> u32 {
        position_or_push(&mut self.rows, id, |&known| items[known as usize].rows() == rows)
    }
}

fn position_or_push(
    list: &mut Vec<ItemId>,
    id: ItemId,
    is_same: impl FnMut(&ItemId) -> bool,
) -> u32 {
    list.iter().position(is_same).unwrap_or_else(|| {
        list.push(id);
        list.len() - 1
    }) as u32
}
