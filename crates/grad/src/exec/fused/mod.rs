//! The fused executor: CPU, f32 or f64.
//!
//! `plan.rs` divides the graph into passes over memory, `program.rs` compiles each into a linear program and caches it by
//! structure, `run.rs` interprets it block by block on the kernels of `vmath`. Ops that are not elementwise, and nodes of
//! another dtype, go to the reference executor.

mod plan;
mod pool;
mod program;
mod run;
mod vmath;

use candle_core::{CpuStorage, DType, Device, Storage, StorageRef, Tensor};

use self::plan::{Item, ItemId, Kind, MapOp, Plan, Rows};
use self::pool::Pool;
use self::program::{Arg, Kernel, KernelOp, Node, Outcome};
use self::run::Operands;
use self::vmath::Real;
use super::{backend, reference};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::var::Element;

/// An element type of this executor.
pub(super) trait Scalar: Real + Element + Default + Send + Sync + 'static {
    fn of(storage: &CpuStorage) -> Option<&[Self]>;
    fn pool() -> Pool<Self>;
}

impl Scalar for f32 {
    fn of(storage: &CpuStorage) -> Option<&[f32]> {
        storage.as_slice().ok()
    }

    fn pool() -> Pool<f32> {
        pool::of_f32()
    }
}

impl Scalar for f64 {
    fn of(storage: &CpuStorage) -> Option<&[f64]> {
        storage.as_slice().ok()
    }

    fn pool() -> Pool<f64> {
        pool::of_f64()
    }
}

/// Evaluates `roots` (positions in `graph`), whose float nodes are mostly of type `T`.
pub(super) fn evaluate<T: Scalar>(
    graph: &Graph,
    roots: &[usize],
    threads: usize,
) -> Result<Vec<Tensor>> {
    let plan = Plan::new(graph, roots, T::DTYPE);
    let mut evaluation = Evaluation::<T> {
        graph,
        plan: &plan,
        values: plan.items.iter().map(|_| Value::Missing).collect(),
        pool: T::pool(),
        threads,
        marks: vec![(0, 0); plan.items.len()],
        epoch: 0,
    };
    evaluation.read_leaves()?;
    for stage in 0..plan.stages.len() {
        evaluation.run_stage(stage as u32)?;
    }
    let tensors = roots
        .iter()
        .zip(&plan.roots)
        .map(|(&at, &id)| evaluation.take_root(at, id))
        .collect();
    evaluation.release();
    tensors
}

/// What is known of an item.
enum Value<T> {
    Missing,
    Number(T),
    Array(Vec<T>),
    Tensor(Tensor),
}

struct Evaluation<'g, T: Scalar> {
    graph: &'g Graph,
    plan: &'g Plan,
    values: Vec<Value<T>>,
    pool: Pool<T>,
    threads: usize,
    /// For each item, the group of results that first needed it in the kernels being formed, or its place in the kernel being
    /// bound; only entries with the current `epoch` count.
    marks: Vec<(u32, u32)>,
    epoch: u32,
}

impl<'g, T: Scalar> Evaluation<'g, T> {
    fn item(&self, id: ItemId) -> &'g Item {
        &self.plan.items[id as usize]
    }

    fn read_leaves(&mut self) -> Result<()> {
        for (value, item) in self.values.iter_mut().zip(&self.plan.items) {
            *value = match item.kind {
                Kind::Constant(number) => Value::Number(T::from_f64(number)),
                Kind::Leaf { node } => {
                    let var = &self.graph.nodes[node];
                    let leaf = reference::compute(var, &[])?;
                    Value::Tensor(reference::dense(&leaf).map_err(|e| backend(var, e))?)
                }
                _ => continue,
            };
        }
        Ok(())
    }

    fn run_stage(&mut self, stage: u32) -> Result<()> {
        let work = &self.plan.stages[stage as usize];
        let mut kernels: Vec<(usize, Vec<ItemId>)> = Vec::new();
        for &id in work {
            let item = self.item(id);
            let over = match &item.kind {
                Kind::Map(_) | Kind::Expand(_) if item.len != 1 => item.len,
                Kind::Reduce(..) => self.item(item.inputs[0]).len,
                _ => continue,
            };
            match kernels.iter_mut().find(|(len, _)| *len == over) {
                Some((_, results)) => results.push(id),
                None => kernels.push((over, vec![id])),
            }
        }
        for (len, results) in kernels {
            for component in self.components(stage, len, &results) {
                self.run_kernel(len, &component)?;
            }
        }
        for &id in work {
            let item = self.item(id);
            let value = match &item.kind {
                Kind::Map(op) if item.len == 1 => Value::Number(self.number_op(*op, &item.inputs)?),
                Kind::Cat => Value::Array(self.cat(id)?),
                Kind::Opaque { node } => Value::Tensor(self.opaque(*node, id)?),
                Kind::Spread { from, to } => {
                    Value::Tensor(self.spread(item.inputs[0], from, to)?)
                }
                _ => continue,
            };
            self.values[id as usize] = value;
        }
        Ok(())
    }

    /// Divides `results`, which are computed over `len` elements in one stage, into groups that share values or arrays,
    /// each with all that has to be computed for it, operands first.
    fn components(&mut self, stage: u32, len: usize, results: &[ItemId]) -> Vec<Component> {
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
        self.plan.is_inside(id, len) && !(item.is_stored && item.stage < stage)
    }

    fn run_kernel(&mut self, len: usize, component: &Component) -> Result<()> {
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
        let program = program::compiled(&binding.kernel);

        let mut arrays: Vec<Vec<T>> = stored.iter().map(|_| self.pool.take(len)).collect();
        let mut scratch = self.pool.take(0);
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
            let outputs = arrays.iter_mut().map(Vec::as_mut_slice).collect();
            run::run(&program, &operands, outputs, &mut scratch, self.threads)
        };
        self.pool.give(scratch);
        for (id, array) in stored.into_iter().zip(arrays) {
            self.values[id as usize] = Value::Array(array);
        }
        for (id, rows) in reduced.into_iter().zip(reductions) {
            let mut rows = rows.into_iter().map(T::from_f64);
            self.values[id as usize] = match self.item(id).len {
                1 => Value::Number(rows.next().expect("one row")),
                count => {
                    let mut array = self.pool.take(count);
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
                match *op {
                    MapOp::Copy => KernelOp::Copy,
                    MapOp::Unary(op) => KernelOp::Unary(op),
                    MapOp::Binary(op) => KernelOp::Binary(op),
                    MapOp::Select => KernelOp::Select,
                    MapOp::Clamp { lo, hi } => KernelOp::Clamp {
                        lo: lo.to_bits(),
                        hi: hi.to_bits(),
                    },
                    MapOp::Power(exponent) => {
                        args[1] = Arg::Constant(exponent.to_bits());
                        KernelOp::Binary(vmath::Binary::Pow)
                    }
                }
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
            } => Arg::Constant(value.to_bits()),
            Item { len: 1, .. } => Arg::Number(binding.number(id)),
            _ => Arg::Array(binding.array(id)),
        }
    }

    fn rows_of(&self, id: ItemId) -> &'g Rows {
        match &self.item(id).kind {
            Kind::Expand(rows) | Kind::Reduce(_, rows) => rows,
            _ => unreachable!("rows are named by what reduces or expands them"),
        }
    }

    /// The elements of `id` in memory.
    fn read(&self, id: ItemId) -> Result<Read<'_, T>> {
        let mut id = id;
        let mut start = 0;
        let len = self.item(id).len;
        while let Kind::View { offset } = self.item(id).kind {
            start += offset;
            id = self.item(id).inputs[0];
        }
        let range = start..start + len;
        Ok(match &self.values[id as usize] {
            Value::Array(array) => Read::Slice(&array[range]),
            Value::Number(number) => Read::Slice(&std::slice::from_ref(number)[range]),
            Value::Tensor(tensor) if tensor.dtype() == T::DTYPE => {
                let (storage, layout) = tensor.storage_and_layout();
                let at = layout.start_offset();
                Read::Storage(storage, at + range.start..at + range.end)
            }
            Value::Tensor(tensor) => {
                // A mask that did not come from a kernel.
                let values = tensor
                    .to_dtype(T::DTYPE)
                    .and_then(|t| t.flatten_all()?.to_vec1::<T>());
                let values = values.map_err(|e| self.blame(e))?;
                Read::Owned(values[range].to_vec())
            }
            Value::Missing => unreachable!("operands are computed in an earlier stage"),
        })
    }

    fn number(&self, id: ItemId) -> Result<T> {
        Ok(self.read(id)?.slice()[0])
    }

    fn number_op(&self, op: MapOp, inputs: &[ItemId]) -> Result<T> {
        let x = inputs
            .iter()
            .map(|&id| self.number(id))
            .collect::<Result<smallvec::SmallVec<[T; 3]>>>()?;
        let kernels = vmath::Kernels::get();
        let mut y = [x[0]];
        match op {
            MapOp::Copy => {}
            MapOp::Unary(op) => kernels.unary(op, &[x[0]], &mut y),
            MapOp::Binary(op) => kernels.binary(op, x[..1].into(), x[1..2].into(), &mut y),
            MapOp::Power(exponent) => {
                kernels.binary(
                    vmath::Binary::Pow,
                    x[..1].into(),
                    vmath::Arg::Number(T::from_f64(exponent)),
                    &mut y,
                );
            }
            MapOp::Clamp { lo, hi } => {
                kernels.clamp(&[x[0]], T::from_f64(lo), T::from_f64(hi), &mut y)
            }
            MapOp::Select => kernels.select(&[x[0]], x[1..2].into(), x[2..3].into(), &mut y),
        }
        Ok(y[0])
    }

    fn cat(&mut self, id: ItemId) -> Result<Vec<T>> {
        let mut joined = self.pool.take(self.item(id).len);
        let mut at = 0;
        for &part in &self.item(id).inputs {
            let read = self.read(part)?;
            let part = read.slice();
            joined[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Ok(joined)
    }

    /// Runs graph node `node` by the reference executor.
    fn opaque(&mut self, node: usize, id: ItemId) -> Result<Tensor> {
        let var = &self.graph.nodes[node];
        let inputs: Vec<Tensor> = self
            .item(id)
            .inputs
            .iter()
            .zip(&var.0.inputs)
            .map(|(&input, var)| self.tensor(input, var.shape(), var.dtype()))
            .collect::<Result<_>>()?;
        let value = reference::compute(var, &inputs)?;
        reference::dense(&value).map_err(|e| backend(var, e))
    }

    fn spread(&mut self, input: ItemId, from: &[usize], to: &[usize]) -> Result<Tensor> {
        let whole = self.tensor(input, from, T::DTYPE)?;
        whole
            .broadcast_as(to)
            .and_then(|t| reference::dense(&t))
            .map_err(|e| self.blame(e))
    }

    /// The value of `id` as a tensor; a vector is moved into it, not copied, and stays readable.
    fn tensor(&mut self, id: ItemId, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let tensor = match std::mem::replace(&mut self.values[id as usize], Value::Missing) {
            Value::Missing => {
                let values = self.read(id)?.slice().to_vec();
                Tensor::from_vec(values, self.item(id).len, &Device::Cpu)
                    .map_err(|e| self.blame(e))?
            }
            Value::Number(number) => {
                self.values[id as usize] = Value::Number(number);
                Tensor::from_vec(vec![number], 1, &Device::Cpu).map_err(|e| self.blame(e))?
            }
            Value::Array(array) => {
                let tensor = Tensor::from_vec(array, self.item(id).len, &Device::Cpu)
                    .map_err(|e| self.blame(e))?;
                self.values[id as usize] = Value::Tensor(tensor.clone());
                tensor
            }
            Value::Tensor(tensor) => {
                self.values[id as usize] = Value::Tensor(tensor.clone());
                tensor
            }
        };
        tensor
            .reshape(shape)
            .and_then(|t| t.to_dtype(dtype))
            .map_err(|e| self.blame(e))
    }

    fn take_root(&mut self, at: usize, id: ItemId) -> Result<Tensor> {
        let var = &self.graph.nodes[at];
        self.tensor(id, var.shape(), var.dtype())
    }

    fn blame(&self, e: candle_core::Error) -> Error {
        backend(
            self.graph
                .nodes
                .last()
                .expect("a graph with work has nodes"),
            e,
        )
    }

    /// Gives the memory of intermediate values back for the next evaluation.
    fn release(self) {
        let mut pool = self.pool;
        for value in self.values {
            if let Value::Array(array) = value {
                pool.give(array);
            }
        }
    }
}

/// What one run of a program computes, operands first, and leaves behind.
#[derive(Default)]
struct Component {
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

enum Read<'a, T> {
    Slice(&'a [T]),
    Storage(StorageRef<'a>, std::ops::Range<usize>),
    Owned(Vec<T>),
}

impl<T: Scalar> Read<'_, T> {
    fn slice(&self) -> &[T] {
        match self {
            Read::Slice(slice) => slice,
            Read::Owned(values) => values,
            Read::Storage(storage, range) => match &**storage {
                Storage::Cpu(storage) => {
                    &T::of(storage).expect("the dtype was checked")[range.clone()]
                }
                _ => unreachable!("this executor is for the CPU"),
            },
        }
    }
}
