//! The kernels of a pass: which values they compute together, and what they read and leave behind.

use super::Scalar;
use super::evaluation::{Buffer, Evaluation, Read, Value};
use super::plan::{Item, ItemId, Kind, Plan, Rows};
use super::program::{self, Arg, Kernel, KernelOp, Node, Outcome};
use super::run::{self, Operands};
use crate::error::Result;

/// What one run of a program computes, operands first, and leaves behind.
#[derive(Default)]
pub(super) struct Component {
    inside: Vec<ItemId>,
    results: Vec<ItemId>,
}

/// A kernel, and the items that its arrays, numbers and rows are.
#[derive(Default)]
struct Binding {
    kernel: Kernel,
    arrays: Vec<ItemId>,
    numbers: Vec<ItemId>,
    /// Items that expand or reduce these rows.
    rows: Vec<ItemId>,
}

impl<T: Scalar> Evaluation<'_, '_, T> {
    /// Divides `results`, which are computed over `len` elements in one stage, into groups that share values or arrays,
    /// each with all that has to be computed for it, operands first.
    pub(super) fn components(
        &mut self,
        stage: u32,
        len: usize,
        results: &[ItemId],
    ) -> Vec<Component> {
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
        let mut components: Vec<Component> = Vec::new();
        let mut place: Vec<Option<usize>> = vec![None; results.len()];
        let mut component =
            |group: usize, components: &mut Vec<Component>, leader: &mut Vec<usize>| {
                let group = find(leader, group);
                *place[group].get_or_insert_with(|| {
                    components.push(Component::default());
                    components.len() - 1
                })
            };
        for id in inside {
            let at = component(
                self.marks[id as usize].1 as usize,
                &mut components,
                &mut leader,
            );
            components[at].inside.push(id);
        }
        for (group, &result) in results.iter().enumerate() {
            let at = component(group, &mut components, &mut leader);
            components[at].results.push(result);
        }
        components
    }

    fn mark(&self, id: ItemId) -> Option<u32> {
        let (epoch, mark) = self.marks[id as usize];
        (epoch == self.epoch).then_some(mark)
    }

    /// Whether a kernel of `stage` over `len` elements computes `id` rather than reading it from memory.
    fn is_computed(&self, id: ItemId, stage: u32, len: usize) -> bool {
        let item = self.item(id);
        item.is_inside(len) && !(item.is_stored && item.stage < stage)
    }

    pub(super) fn run_kernel(&mut self, len: usize, component: &Component) -> Result<()> {
        self.epoch += 1;
        let mut binding = Binding::default();
        for &id in &component.inside {
            self.bind(id, &mut binding);
        }
        let mut stored = Vec::new();
        let mut reduced = Vec::new();
        for &id in &component.results {
            match &self.item(id).kind {
                Kind::Reduce(op, rows) => {
                    let value = self.arg(self.item(id).inputs[0], &mut binding);
                    let rows = binding.rows(self.plan, id, rows);
                    binding.kernel.results.push(Outcome::Reduce {
                        op: *op,
                        rows,
                        value,
                    });
                    reduced.push(id);
                }
                _ => {
                    let value = self.arg(id, &mut binding);
                    binding.kernel.results.push(Outcome::Store { value });
                    stored.push(id);
                }
            }
        }
        binding.kernel.arrays = binding.arrays.len() as u32;
        binding.kernel.numbers = binding.numbers.len() as u32;
        let program = program::compiled(&binding.kernel);

        let mut arrays: Vec<Buffer<T>> = stored.iter().map(|&id| self.buffer(id)).collect();
        let mut scratch = self.pool.take_registers();
        let reductions = {
            let reads = binding
                .arrays
                .iter()
                .map(|&id| self.read(id))
                .collect::<Result<Vec<_>>>()?;
            let operands = Operands {
                len,
                arrays: reads.iter().map(Read::slice).collect(),
                numbers: binding
                    .numbers
                    .iter()
                    .map(|&id| self.number(id))
                    .collect::<Result<_>>()?,
                rows: binding.rows.iter().map(|&id| self.rows_of(id)).collect(),
            };
            let outputs = arrays.iter_mut().map(|array| &mut **array).collect();
            run::run(&program, &operands, outputs, &mut scratch, self.threads)
        };
        self.pool.give_registers(scratch);
        for (id, array) in stored.into_iter().zip(arrays) {
            self.values[id as usize] = match self.item(id).len {
                1 => Value::Number(array[0]),
                _ => Value::Array(array),
            };
        }
        for (id, rows) in reduced.into_iter().zip(reductions) {
            let mut rows = rows.into_iter().map(T::from_f64);
            self.values[id as usize] = match self.item(id).len {
                1 => Value::Number(rows.next().expect("one row")),
                _ => {
                    let mut array = self.buffer(id);
                    array.iter_mut().zip(rows).for_each(|(to, row)| *to = row);
                    Value::Array(array)
                }
            };
        }
        Ok(())
    }

    fn bind(&mut self, id: ItemId, binding: &mut Binding) {
        let item = self.item(id);
        let mut args = [Arg::Absent; 4];
        let op = match &item.kind {
            Kind::Expand(rows) => {
                args[0] = Arg::Array(binding.array(item.inputs[0]));
                KernelOp::Expand {
                    rows: binding.rows(self.plan, id, rows),
                }
            }
            Kind::Map(op) => {
                for (arg, &input) in args.iter_mut().zip(&item.inputs) {
                    *arg = self.arg(input, binding);
                }
                *op
            }
            _ => unreachable!("only elementwise items are computed inside of a kernel"),
        };
        binding.kernel.nodes.push(Node { op, args });
        self.marks[id as usize] = (self.epoch, binding.kernel.nodes.len() as u32 - 1);
    }

    fn arg(&self, id: ItemId, binding: &mut Binding) -> Arg {
        if let Some(node) = self.mark(id) {
            return Arg::Node(node);
        }
        match self.item(id) {
            Item {
                kind: Kind::Constant(value),
                ..
            } => Arg::Constant(*value),
            Item { len: 1, .. } => Arg::Number(binding.number(id)),
            _ => Arg::Array(binding.array(id)),
        }
    }

    fn rows_of(&self, id: ItemId) -> &Rows {
        match &self.item(id).kind {
            Kind::Expand(rows) | Kind::Reduce(_, rows) => rows,
            _ => unreachable!("rows are named by what reduces or expands them"),
        }
    }
}

impl Binding {
    fn array(&mut self, id: ItemId) -> u32 {
        position_or_push(&mut self.arrays, id, |&known| known == id)
    }

    fn number(&mut self, id: ItemId) -> u32 {
        position_or_push(&mut self.numbers, id, |&known| known == id)
    }

    fn rows(&mut self, plan: &Plan, id: ItemId, rows: &Rows) -> u32 {
        position_or_push(&mut self.rows, id, |&known| {
            match &plan.items[known as usize].kind {
                Kind::Expand(other) | Kind::Reduce(_, other) => other == rows,
                _ => false,
            }
        })
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
