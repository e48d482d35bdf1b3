//! From a graph to a schedule: what runs where, in how many passes over memory, and what has to be
//! stored.
//!
//! Every node that computes elementwise over n elements can run in one pass with the others of the
//! same n, unless a reduction over those elements lies between them. So each item gets a *stage*,
//! the number of such barriers before it; items of one stage and one length that share operands
//! make one kernel. A value of an earlier stage that a later kernel needs is computed again there,
//! which is cheaper than storing it, unless its history is long.

#[cfg(test)]
#[path = "../../../tests/unit/passes.rs"]
mod passes;

use std::collections::HashMap;

use candle_core::DType;
use smallvec::SmallVec;

use super::item::{Fallback, Item, ItemId, Kind, Rows};
use super::kernel::{Binding, Former};
use super::program::KernelOp;
use crate::error::{Error, Loc};
use crate::graph::dims::{Dims, elem_count};
use crate::graph::op::{BinaryOp, Number, Op, ReduceOp, UnaryOp};
use crate::graph::var::Var;
use crate::graph::walk::Graph;

/// A value with more elementwise steps behind it than this is stored rather than computed twice.
const LONGEST_RECOMPUTATION: u32 = 48;

/// How the elements of a node come from those of its item.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Same,
    /// One number for all.
    Number,
    /// One element for each row of this many.
    Rows(usize),
}

/// A schedule. It refers to the graph that it was made for by the numbers of its leaves only.
pub(in crate::exec) struct Plan {
    pub(super) items: Vec<Item>,
    /// What is to be computed, in this order.
    pub(super) steps: Vec<Step>,
    pub(in crate::exec) roots: Vec<Root>,
    /// Where the leaves stand in the graph.
    pub(in crate::exec) leaves: Vec<usize>,
}

/// Where the value of a root is, and what the root is.
pub(in crate::exec) struct Root {
    pub(super) item: ItemId,
    pub(super) shape: Dims,
    pub(super) dtype: DType,
    op: &'static str,
    at: Loc,
}

impl Root {
    pub(in crate::exec) fn backend(&self, e: candle_core::Error) -> Error {
        Error::backend(self.op, e, self.at)
    }
}

pub(super) enum Step {
    Kernel(Binding),
    /// An item that is not computed by a kernel.
    Item(ItemId),
}

impl Plan {
    /// For `roots` (positions in `graph`), where most floats are of type `dtype`.
    pub(in crate::exec) fn new(graph: &Graph, roots: &[usize], dtype: DType) -> Plan {
        let mut planner = Planner {
            graph,
            dtype,
            items: Vec::with_capacity(graph.len() + 8),
            of: Vec::with_capacity(graph.len()),
            expands: HashMap::new(),
            leaves: Vec::new(),
        };
        for at in 0..graph.len() {
            let renamed = planner.classify(at);
            planner.of.push(renamed);
        }
        let root = |&at: &usize| Root {
            item: planner.full(at),
            shape: graph.nodes[at].0.shape.clone(),
            dtype: graph.nodes[at].dtype(),
            op: graph.nodes[at].0.op.name(),
            at: graph.nodes[at].0.at,
        };
        let roots: Vec<Root> = roots.iter().map(root).collect();
        for root in &roots {
            planner.store(root.item);
        }
        let Planner { items, leaves, .. } = planner;
        Plan { steps: steps(&items), items, roots, leaves }
    }
}

/// What computes `items`, stage by stage.
fn steps(items: &[Item]) -> Vec<Step> {
    /// The results of kernels over so many elements, and other items.
    type Stage = (Vec<(usize, Vec<ItemId>)>, Vec<ItemId>);
    let count = 1 + items.iter().map(|item| item.stage).max().unwrap_or(0) as usize;
    let mut stages: Vec<Stage> = vec![Stage::default(); count];
    for (id, item) in items.iter().enumerate() {
        let id = id as ItemId;
        let (kernels, others) = &mut stages[item.stage as usize];
        let over = match item.kind {
            Kind::Leaf(_) | Kind::Constant(_) | Kind::View { .. } => continue,
            Kind::Map(_) | Kind::Expand(_) if !item.is_stored => continue,
            Kind::Map(_) | Kind::Expand(_) => item.len,
            Kind::Reduce(..) => items[item.inputs[0] as usize].len,
            Kind::Cat | Kind::Fallback(_) | Kind::Broadcast { .. } => {
                others.push(id);
                continue;
            }
        };
        match kernels.iter_mut().find(|(len, _)| *len == over) {
            Some((_, results)) => results.push(id),
            None => kernels.push((over, vec![id])),
        }
    }
    let mut former = Former::new(items);
    let mut steps = Vec::new();
    for (stage, (kernels, others)) in stages.into_iter().enumerate() {
        for (len, results) in kernels {
            let bindings = former.kernels(stage as u32, len, &results);
            steps.extend(bindings.into_iter().map(Step::Kernel));
        }
        steps.extend(others.into_iter().map(Step::Item));
    }
    steps
}

struct Planner<'g> {
    graph: &'g Graph<'g>,
    dtype: DType,
    items: Vec<Item>,
    /// The item and form of each graph node so far.
    of: Vec<(ItemId, Form)>,
    /// Expansions by row length, so that each is made once.
    expands: HashMap<(ItemId, usize), ItemId>,
    leaves: Vec<usize>,
}

impl Planner<'_> {
    fn classify(&mut self, at: usize) -> (ItemId, Form) {
        let graph = self.graph;
        let var = graph.nodes[at];
        let inputs: SmallVec<[usize; 3]> = graph.inputs(at).collect();
        let input = |i: usize| graph.nodes[inputs[i]];
        let len = var.elem_count();
        let same = |id: ItemId| (id, Form::Same);
        let computes = |v: &Var| v.dtype() == self.dtype || v.dtype() == DType::U8;

        // Masks are numbers inside of a kernel; what is neither number nor mask is not a kernel's
        // business.
        let is_ours = match &var.0.op {
            Op::Compare(_) => input(0).dtype() == self.dtype,
            Op::Cast => var.dtype() == self.dtype && input(0).dtype() == DType::U8,
            Op::Leaf(_) => true,
            Op::Full(_) => var.dtype() == self.dtype,
            Op::Reshape | Op::Detach | Op::Broadcast | Op::Narrow { .. } => computes(var),
            _ => var.dtype() == self.dtype,
        };
        if !is_ours {
            return same(self.fallback(at, &inputs));
        }

        match &var.0.op {
            Op::Leaf(_) => {
                self.leaves.push(at);
                same(self.item(Kind::Leaf(self.leaves.len() - 1), &[], len))
            }
            Op::Full(value) => self.constant(*value, len),
            Op::Reshape | Op::Detach | Op::Cast => self.of[inputs[0]],
            Op::Broadcast => {
                let (id, form) = self.of[inputs[0]];
                match form_of(input(0).shape(), var.shape()) {
                    Some(Form::Same) => (id, form),
                    Some(Form::Number) => (id, Form::Number),
                    Some(Form::Rows(n)) if form == Form::Same => (id, Form::Rows(n)),
                    Some(Form::Rows(_)) if form == Form::Number => (id, Form::Number),
                    _ => same(self.broadcast(inputs[0], var.shape())),
                }
            }
            Op::Unary(op) => self.map(at, KernelOp::Unary(*op), &inputs),
            Op::Binary(BinaryOp::Mul) if let Some(other) = self.times_one(&inputs, len) => {
                self.of[other]
            }
            Op::Binary(op) => self.map(at, KernelOp::Binary(*op), &inputs),
            Op::Compare(op) => self.map(at, KernelOp::Compare(*op), &inputs),
            Op::Select => self.map(at, KernelOp::Select, &inputs),
            Op::Reduce { .. } if len == input(0).elem_count() => self.of[inputs[0]],
            Op::Reduce { op, dims } => match trailing(input(0).shape(), dims) {
                Some(_) if len == 1 => same(self.reduce(*op, Rows::One, inputs[0], len)),
                Some(row) if row > 0 => same(self.reduce(*op, Rows::Of(row), inputs[0], len)),
                _ => same(self.fallback(at, &inputs)),
            },
            Op::SegmentReduce { op, segments }
                if input(0).elem_count() == segments.rows()
                    && len == segments.len()
                    && segments.rows() != 1 =>
            {
                same(self.reduce(*op, Rows::Segments(segments.clone()), inputs[0], len))
            }
            Op::SegmentExpand(_) if self.of[inputs[0]].1 == Form::Number => self.of[inputs[0]],
            Op::SegmentExpand(segments) if len == segments.rows() && len != 1 => {
                let per_row = self.full(inputs[0]);
                match self.items[per_row as usize].len {
                    1 => (per_row, Form::Number),
                    _ => same(self.item(
                        Kind::Expand(Rows::Segments(segments.clone())),
                        &[per_row],
                        len,
                    )),
                }
            }
            Op::Narrow { dim, start } if elem_count(&var.shape()[..*dim]) == 1 => {
                let (id, form) = self.of[inputs[0]];
                if form == Form::Number {
                    return (id, form);
                }
                let offset = start * elem_count(&var.shape()[dim + 1..]);
                let whole = self.full(inputs[0]);
                same(self.item(Kind::View { offset }, &[whole], len))
            }
            Op::Cat { dim } if elem_count(&var.shape()[..*dim]) == 1 => {
                let parts: SmallVec<[ItemId; 3]> =
                    inputs.iter().map(|&part| self.full(part)).collect();
                same(self.item(Kind::Cat, &parts, len))
            }
            _ => same(self.fallback(at, &inputs)),
        }
    }

    /// The other factor of a product with the constant 1, as gradients begin with, if it has all
    /// `len` elements.
    fn times_one(&self, factors: &[usize], len: usize) -> Option<usize> {
        let is_one = |at: usize| matches!(self.items[self.of[at].0 as usize].kind, Kind::Constant(one) if one.get() == 1.0);
        let pairs = [(factors[0], factors[1]), (factors[1], factors[0])];
        let mut products = pairs.into_iter().filter(|&(one, _)| is_one(one));
        products
            .find_map(|(_, other)| (self.graph.nodes[other].elem_count() == len).then_some(other))
    }

    /// The item that holds all elements of node `at`.
    fn full(&mut self, at: usize) -> ItemId {
        let len = self.graph.nodes[at].elem_count();
        let (id, form) = self.of[at];
        match form {
            Form::Same => id,
            Form::Number if len == 1 => id,
            Form::Number => {
                let copy = self.item(Kind::Map(KernelOp::Copy), &[id], len);
                self.of[at] = (copy, Form::Same);
                copy
            }
            Form::Rows(n) => {
                let expanded = self.expand(id, n, len);
                self.of[at] = (expanded, Form::Same);
                expanded
            }
        }
    }

    fn map(&mut self, at: usize, op: KernelOp, inputs: &[usize]) -> (ItemId, Form) {
        let var = self.graph.nodes[at];
        let len = var.elem_count();
        let operands: SmallVec<[ItemId; 3]> = inputs
            .iter()
            .map(|&input| {
                let (id, form) = self.of[input];
                match (form_of(self.graph.nodes[input].shape(), var.shape()), form) {
                    (_, Form::Number)
                    | (Some(Form::Number), _)
                    | (Some(Form::Same), Form::Same) => id,
                    (Some(Form::Same), Form::Rows(n)) | (Some(Form::Rows(n)), Form::Same) => {
                        self.expand(id, n, len)
                    }
                    _ => self.broadcast(input, var.shape()),
                }
            })
            .collect();
        match self.folded(op, &operands) {
            Some(number) => self.constant(number, len),
            None => (self.item(Kind::Map(op), &operands, len), Form::Same),
        }
    }

    fn constant(&mut self, number: Number, len: usize) -> (ItemId, Form) {
        let form = if len == 1 { Form::Same } else { Form::Number };
        (self.item(Kind::Constant(number), &[], 1), form)
    }

    /// Arithmetic on constants. If a kernel did it, what is made of its result, as the gradient of
    /// a mean is, would have to wait for another pass. An f64 has more than twice the digits of an
    /// f32, so rounding twice gives the f32 that rounding once does.
    fn folded(&self, op: KernelOp, operands: &[ItemId]) -> Option<Number> {
        let rounded = |x: f64| match self.dtype {
            DType::F32 => f64::from(x as f32),
            _ => x,
        };
        let number = |&id: &ItemId| match self.items[id as usize].kind {
            Kind::Constant(number) => Some(rounded(number.get())),
            _ => None,
        };
        let numbers: SmallVec<[f64; 3]> = operands.iter().map(number).collect::<Option<_>>()?;
        let result = match (op, numbers.as_slice()) {
            (KernelOp::Unary(UnaryOp::Neg), [x]) => -x,
            (KernelOp::Binary(BinaryOp::Add), [a, b]) => a + b,
            (KernelOp::Binary(BinaryOp::Sub), [a, b]) => a - b,
            (KernelOp::Binary(BinaryOp::Mul), [a, b]) => a * b,
            (KernelOp::Binary(BinaryOp::Div), [a, b]) => a / b,
            _ => return None,
        };
        Some(Number::new(rounded(result)))
    }

    fn reduce(&mut self, op: ReduceOp, rows: Rows, input: usize, len: usize) -> ItemId {
        let input = self.full(input);
        self.item(Kind::Reduce(op, rows), &[input], len)
    }

    fn expand(&mut self, per_row: ItemId, row: usize, len: usize) -> ItemId {
        if let Some(&made) = self.expands.get(&(per_row, row)) {
            return made;
        }
        let made = self.item(Kind::Expand(Rows::Of(row)), &[per_row], len);
        self.expands.insert((per_row, row), made);
        made
    }

    fn broadcast(&mut self, input: usize, to: &[usize]) -> ItemId {
        let from = self.graph.nodes[input].shape().to_vec();
        let whole = self.full(input);
        self.item(Kind::Broadcast { from, to: to.to_vec() }, &[whole], elem_count(to))
    }

    fn fallback(&mut self, at: usize, inputs: &[usize]) -> ItemId {
        let parts: SmallVec<[ItemId; 3]> = inputs.iter().map(|&input| self.full(input)).collect();
        let node = self.graph.nodes[at];
        let operands = node.0.inputs.iter();
        let operands = operands.map(|input| (input.0.shape.clone(), input.dtype()));
        let fallback = Fallback { node: node.without_inputs(), operands: operands.collect() };
        self.item(Kind::Fallback(Box::new(fallback)), &parts, self.graph.nodes[at].elem_count())
    }

    /// Adds an item, placing it in the earliest stage that its inputs allow.
    fn item(&mut self, kind: Kind, inputs: &[ItemId], len: usize) -> ItemId {
        // The kernel that a reduction belongs to runs over the elements that it reduces.
        let over = match kind {
            Kind::Reduce(..) => Some(self.items[inputs[0] as usize].len),
            Kind::Map(_) => Some(len),
            _ => None,
        };
        let is_inside = |item: &Item| over.is_some_and(|over| item.is_inside(over));
        let mut stage = 0;
        for &input in inputs {
            let item = &self.items[input as usize];
            stage = stage.max(if is_inside(item) { item.stage } else { item.available() });
        }
        let mut cost = 1u32;
        for &input in inputs {
            let item = &self.items[input as usize];
            let is_recomputed = is_inside(item)
                && !(item.is_stored && item.stage < stage)
                && !(item.stage < stage && item.cost > LONGEST_RECOMPUTATION);
            if is_recomputed {
                cost = cost.saturating_add(item.cost);
            } else if !(is_inside(item) && item.stage == stage) {
                self.store(input);
            }
        }
        self.items.push(Item {
            kind,
            inputs: SmallVec::from_slice(inputs),
            len,
            stage,
            is_stored: false,
            cost,
        });
        self.items.len() as ItemId - 1
    }

    /// Marks `id` as read from memory, and what it is a view of.
    fn store(&mut self, id: ItemId) {
        let mut id = id;
        loop {
            let item = &mut self.items[id as usize];
            item.is_stored = true;
            match item.kind {
                Kind::View { .. } => id = item.inputs[0],
                _ => return,
            }
        }
    }
}

/// How an operand of shape `from` is read by an op of shape `to`, if a kernel can do that in place.
fn form_of(from: &[usize], to: &[usize]) -> Option<Form> {
    let (n, len) = (elem_count(from), elem_count(to));
    if n == len {
        return Some(Form::Same);
    }
    if n == 1 {
        return Some(Form::Number);
    }
    // [a, b, 1, 1] to [a, b, c, d]
    let added = to.len() - from.len();
    let split = from.iter().rposition(|&size| size != 1)? + 1;
    let leads =
        to[..added].iter().all(|&size| size == 1) && from[..split] == to[added..added + split];
    leads.then(|| Form::Rows(elem_count(&to[added + split..])))
}

/// The number of elements in a reduced row, if `dims` are the last dimensions, but for sizes of 1.
fn trailing(shape: &[usize], dims: &[usize]) -> Option<usize> {
    let first = dims.iter().copied().find(|&d| shape[d] != 1).unwrap_or(shape.len());
    let is_trailing = (first..shape.len()).all(|d| shape[d] == 1 || dims.contains(&d));
    is_trailing.then(|| elem_count(&shape[first..]))
}
