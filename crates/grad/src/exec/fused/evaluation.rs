//! Carrying out a plan, stage by stage.

use std::ops::{Deref, DerefMut};

use candle_core::{DType, Device, Storage, StorageRef, Tensor};

use super::Scalar;
use super::plan::{Item, ItemId, Kind, Plan};
use super::pool::Pool;
use crate::error::{Error, Result};
use crate::exec::{backend, reference};
use crate::graph::op::Op;
use crate::graph::walk::Graph;

/// Evaluates `roots` (positions in `graph`), whose float nodes are mostly of type `T`. A root goes to its place in `into`
/// where there is one, and else becomes a tensor.
pub(in crate::exec) fn evaluate<T: Scalar>(
    graph: &Graph,
    roots: &[usize],
    threads: usize,
    into: Vec<Option<&mut [T]>>,
) -> Result<Vec<Option<Tensor>>> {
    let plan = Plan::new(graph, roots, T::DTYPE);
    let mut evaluation = Evaluation::<T> {
        graph,
        plan: &plan,
        values: plan.items.iter().map(|_| Value::Missing).collect(),
        pool: T::pool(),
        given: Vec::new(),
        threads,
        marks: vec![(0, 0); plan.items.len()],
        epoch: 0,
    };
    let mut destinations = Vec::with_capacity(roots.len());
    for (&id, place) in plan.roots.iter().zip(into) {
        let is_free = evaluation.given.iter().all(|(taken, _)| *taken != id);
        destinations.push(match place {
            Some(place) if is_free && plan.items[id as usize].is_written() => {
                evaluation.given.push((id, place));
                Destination::Written
            }
            Some(place) => Destination::Copied(place),
            None => Destination::Tensor,
        });
    }
    evaluation.read_leaves()?;
    for stage in 0..plan.stages.len() {
        evaluation.run_stage(stage as u32)?;
    }
    let mut tensors = Vec::with_capacity(roots.len());
    for ((&at, &id), destination) in roots.iter().zip(&plan.roots).zip(destinations) {
        tensors.push(match destination {
            Destination::Tensor => Some(evaluation.take_root(at, id)?),
            Destination::Written => None,
            Destination::Copied(place) => {
                place.copy_from_slice(evaluation.read(id)?.slice());
                None
            }
        });
    }
    evaluation.release();
    Ok(tensors)
}

/// Where the value of a root goes.
enum Destination<'o, T> {
    Tensor,
    /// The caller's memory, written by the kernel itself.
    Written,
    /// The caller's memory, copied there: the value is a view, or has gone elsewhere already.
    Copied(&'o mut [T]),
}

/// What is known of an item.
pub(super) enum Value<'g, 'o, T> {
    Missing,
    Number(T),
    Array(Buffer<'o, T>),
    /// Memory that a leaf shares with its maker.
    Shared(&'g [T]),
    Tensor(Tensor),
}

/// Memory to write a value to.
pub(super) enum Buffer<'o, T> {
    Pooled(Vec<T>),
    /// By the caller, for a root.
    Given(&'o mut [T]),
}

impl<T> Deref for Buffer<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Buffer::Pooled(values) => values,
            Buffer::Given(values) => values,
        }
    }
}

impl<T> DerefMut for Buffer<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Buffer::Pooled(values) => values,
            Buffer::Given(values) => values,
        }
    }
}

pub(super) struct Evaluation<'g, 'o, T: Scalar> {
    pub(super) graph: &'g Graph<'g>,
    pub(super) plan: &'g Plan,
    pub(super) values: Vec<Value<'g, 'o, T>>,
    pub(super) pool: Pool<T>,
    /// Where the values of some items go.
    given: Vec<(ItemId, &'o mut [T])>,
    pub(super) threads: usize,
    /// For each item, the group of results that first needed it in the kernels being formed, or its place in the kernel being
    /// bound; only entries with the current `epoch` count.
    pub(super) marks: Vec<(u32, u32)>,
    pub(super) epoch: u32,
}

impl<'g, 'o, T: Scalar> Evaluation<'g, 'o, T> {
    pub(super) fn item(&self, id: ItemId) -> &'g Item {
        &self.plan.items[id as usize]
    }

    fn read_leaves(&mut self) -> Result<()> {
        for (value, item) in self.values.iter_mut().zip(&self.plan.items) {
            *value = match item.kind {
                Kind::Constant(number) => Value::Number(T::from_f64(number.get())),
                Kind::Leaf { node } => {
                    let var = self.graph.nodes[node];
                    match &var.0.op {
                        Op::Leaf(leaf) if let Some(shared) = T::of_leaf(leaf) => {
                            Value::Shared(shared)
                        }
                        _ => {
                            let leaf = reference::compute(var, &[])?;
                            Value::Tensor(reference::dense(&leaf).map_err(|e| backend(var, e))?)
                        }
                    }
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
                Kind::Map(_) | Kind::Expand(_) => item.len,
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

    /// Memory for the elements of `id`.
    pub(super) fn buffer(&mut self, id: ItemId) -> Buffer<'o, T> {
        match self.given.iter().position(|(given, _)| *given == id) {
            Some(at) => Buffer::Given(self.given.swap_remove(at).1),
            None => Buffer::Pooled(self.pool.take(self.item(id).len)),
        }
    }

    /// The elements of `id` in memory.
    pub(super) fn read(&self, id: ItemId) -> Result<Read<'_, T>> {
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
            Value::Shared(values) => Read::Slice(&values[range]),
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

    pub(super) fn number(&self, id: ItemId) -> Result<T> {
        Ok(self.read(id)?.slice()[0])
    }

    fn cat(&mut self, id: ItemId) -> Result<Buffer<'o, T>> {
        let mut joined = self.buffer(id);
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
        let var = self.graph.nodes[node];
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
            Value::Array(Buffer::Pooled(array)) => {
                let tensor = Tensor::from_vec(array, self.item(id).len, &Device::Cpu)
                    .map_err(|e| self.blame(e))?;
                self.values[id as usize] = Value::Tensor(tensor.clone());
                tensor
            }
            Value::Shared(values) => {
                self.values[id as usize] = Value::Shared(values);
                Tensor::from_slice(values, self.item(id).len, &Device::Cpu)
                    .map_err(|e| self.blame(e))?
            }
            Value::Array(Buffer::Given(array)) => {
                let copy = array.to_vec();
                self.values[id as usize] = Value::Array(Buffer::Given(array));
                Tensor::from_vec(copy, self.item(id).len, &Device::Cpu)
                    .map_err(|e| self.blame(e))?
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
        let var = self.graph.nodes[at];
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
            if let Value::Array(Buffer::Pooled(array)) = value {
                pool.give(array);
            }
        }
    }
}

pub(super) enum Read<'a, T> {
    Slice(&'a [T]),
    Storage(StorageRef<'a>, std::ops::Range<usize>),
    Owned(Vec<T>),
}

impl<T: Scalar> Read<'_, T> {
    pub(super) fn slice(&self) -> &[T] {
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
