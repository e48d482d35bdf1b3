//! Carrying out a plan, stage by stage.

use std::ops::{Deref, DerefMut};

use candle_core::{DType, Device, Storage, StorageRef, Tensor};

use super::Scalar;
use super::item::{Fallback, Item, ItemId, Kind};
use super::kernel::Binding;
use super::plan::{Plan, Step};
use super::pool::Pool;
use super::run::{self, Operands};
use crate::error::{Error, Result};
use crate::exec::{backend, reference};
use crate::graph::op::Op;
use crate::graph::var::Var;

/// Carries out `plan` with the values of its leaves. A root goes to its place in `into` where there
/// is one, and else becomes a tensor.
pub(in crate::exec) fn evaluate<'p, T: Scalar>(
    plan: &'p Plan,
    leaves: &[&'p Var],
    threads: usize,
    into: Vec<Option<&mut [T]>>,
) -> Result<Vec<Option<Tensor>>> {
    let mut evaluation = Evaluation::<T> {
        plan,
        values: plan.items.iter().map(|_| Value::Missing).collect(),
        pool: T::pool(),
        given: Vec::new(),
        threads,
    };
    let mut destinations = Vec::with_capacity(plan.roots.len());
    for (root, place) in plan.roots.iter().zip(into) {
        let id = root.item;
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
    evaluation.read_leaves(leaves)?;
    for step in &plan.steps {
        match step {
            Step::Kernel(binding) => evaluation.run_kernel(binding)?,
            Step::Item(id) => evaluation.run_item(*id)?,
        }
    }
    let mut tensors = Vec::with_capacity(plan.roots.len());
    for (root, destination) in plan.roots.iter().zip(destinations) {
        let id = root.item;
        tensors.push(match destination {
            Destination::Tensor => Some(evaluation.tensor(id, &root.shape, root.dtype)?),
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
enum Value<'g, 'o, T> {
    Missing,
    Number(T),
    Array(Buffer<'o, T>),
    /// Memory that a leaf shares with its maker.
    Shared(&'g [T]),
    Tensor(Tensor),
}

/// Memory to write a value to.
enum Buffer<'o, T> {
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

struct Evaluation<'p, 'o, T: Scalar> {
    plan: &'p Plan,
    values: Vec<Value<'p, 'o, T>>,
    pool: Pool<T>,
    /// Where the values of some items go.
    given: Vec<(ItemId, &'o mut [T])>,
    threads: usize,
}

impl<'p, 'o, T: Scalar> Evaluation<'p, 'o, T> {
    fn item(&self, id: ItemId) -> &'p Item {
        &self.plan.items[id as usize]
    }

    fn read_leaves(&mut self, leaves: &[&'p Var]) -> Result<()> {
        for (value, item) in self.values.iter_mut().zip(&self.plan.items) {
            *value = match item.kind {
                Kind::Constant(number) => Value::Number(T::from_f64(number.get())),
                Kind::Leaf(number) => {
                    let var = leaves[number];
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

    fn run_kernel(&mut self, binding: &Binding) -> Result<()> {
        let stored = binding.stored.iter();
        let mut arrays: Vec<Buffer<T>> = stored.map(|&id| self.buffer(id)).collect();
        let mut scratch = self.pool.take_registers();
        let reductions = {
            let reads = binding.arrays.iter().map(|&id| self.read(id));
            let reads = reads.collect::<Result<Vec<_>>>()?;
            let numbers = binding.numbers.iter().map(|&id| self.number(id));
            let operands = Operands {
                len: binding.len,
                arrays: reads.iter().map(Read::slice).collect(),
                numbers: numbers.collect::<Result<_>>()?,
                rows: binding.rows.iter().map(|&id| self.item(id).rows()).collect(),
            };
            let outputs = arrays.iter_mut().map(|array| &mut **array).collect();
            run::run(&binding.program, &operands, outputs, &mut scratch, self.threads)
        };
        self.pool.give_registers(scratch);
        for (&id, array) in binding.stored.iter().zip(arrays) {
            self.values[id as usize] = match array {
                Buffer::Pooled(array) if array.len() == 1 => {
                    let number = array[0];
                    self.pool.give(array);
                    Value::Number(number)
                }
                array => Value::Array(array),
            };
        }
        for (&id, rows) in binding.reduced.iter().zip(reductions) {
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

    fn run_item(&mut self, id: ItemId) -> Result<()> {
        let item = self.item(id);
        self.values[id as usize] = match &item.kind {
            Kind::Cat => Value::Array(self.cat(id)?),
            Kind::Fallback(fallback) => Value::Tensor(self.fallback(fallback, &item.inputs)?),
            Kind::Broadcast { from, to } => {
                Value::Tensor(self.broadcast(item.inputs[0], from, to)?)
            }
            Kind::Leaf(_)
            | Kind::Constant(_)
            | Kind::View { .. }
            | Kind::Map(_)
            | Kind::Expand(_)
            | Kind::Reduce(..) => unreachable!("known from the start, or a kernel's"),
        };
        Ok(())
    }

    /// Memory for the elements of `id`.
    fn buffer(&mut self, id: ItemId) -> Buffer<'o, T> {
        match self.given.iter().position(|(given, _)| *given == id) {
            Some(at) => Buffer::Given(self.given.swap_remove(at).1),
            None => Buffer::Pooled(self.pool.take(self.item(id).len)),
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
            Value::Shared(values) => Read::Slice(&values[range]),
            Value::Number(number) => Read::Slice(&std::slice::from_ref(number)[range]),
            Value::Tensor(tensor) if tensor.dtype() == T::DTYPE => {
                let (storage, layout) = tensor.storage_and_layout();
                let at = layout.start_offset();
                Read::Storage(storage, at + range.start..at + range.end)
            }
            Value::Tensor(tensor) => {
                // A mask that did not come from a kernel.
                let values =
                    tensor.to_dtype(T::DTYPE).and_then(|t| t.flatten_all()?.to_vec1::<T>());
                let values = values.map_err(|e| self.blame(e))?;
                Read::Owned(values[range].to_vec())
            }
            Value::Missing => unreachable!("operands are computed in an earlier stage"),
        })
    }

    fn number(&self, id: ItemId) -> Result<T> {
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

    fn fallback(&mut self, fallback: &Fallback, inputs: &[ItemId]) -> Result<Tensor> {
        let Fallback { node, operands } = fallback;
        let inputs = inputs.iter().zip(operands);
        let inputs = inputs.map(|(&input, (shape, dtype))| self.tensor(input, shape, *dtype));
        let value = reference::compute(node, &inputs.collect::<Result<Vec<_>>>()?)?;
        reference::dense(&value).map_err(|e| backend(node, e))
    }

    fn broadcast(&mut self, input: ItemId, from: &[usize], to: &[usize]) -> Result<Tensor> {
        let whole = self.tensor(input, from, T::DTYPE)?;
        whole.broadcast_as(to).and_then(|t| reference::dense(&t)).map_err(|e| self.blame(e))
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
        tensor.reshape(shape).and_then(|t| t.to_dtype(dtype)).map_err(|e| self.blame(e))
    }

    fn blame(&self, e: candle_core::Error) -> Error {
        let root = self.plan.roots.last();
        root.expect("what is evaluated has a root").backend(e)
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
