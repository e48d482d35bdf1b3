//! Running a kernel: block by block, so that all values between its operands and its results stay in L1.

use std::ops::Range;

use super::Scalar;
use super::partial::Partial;
use super::plan::Rows;
use super::program::{Instruction, KernelOp, Program, Then};
use super::rows::Cursor;
use crate::exec::math::{Arg, Calls, Choice, Dispatch, Kernels, Taken};
use crate::graph::op::{Number, ReduceOp};

/// Elements of a register. 1.5 KiB of f32: enough that an instruction's overhead is small beside its work, and few enough that
/// registers and operands stay in L1 and the processor, fetching ahead, has the next block there in time. Not a power of two,
/// so that arrays of one alignment do not compete for the same cache sets.
const BLOCK: usize = 384;

/// Bytes of a cache line. Registers begin at one: vectors that lie across two lines take twice as long.
const LINE: usize = 64;

/// Registers are laid a cache line more than a power of two apart, so that they do not compete for the same cache sets.
const STRIDE: usize = BLOCK + 16;

/// What a kernel works on. Arrays that are read elementwise have `len` elements, those that are expanded one for each row.
pub(super) struct Operands<'a, T> {
    pub(super) len: usize,
    pub(super) arrays: Vec<&'a [T]>,
    pub(super) numbers: Vec<T>,
    pub(super) rows: Vec<&'a Rows>,
}

/// Runs `program`, writing `outputs` and returning one value for each row of each reduction, in `f64`.
///
/// The elements are divided among threads at block boundaries, and partial results are joined in the order of the blocks,
/// so the results are the same bits for any number of threads.
pub(super) fn run<T: Scalar>(
    program: &Program,
    operands: &Operands<T>,
    outputs: Vec<&mut [T]>,
    scratch: &mut Vec<T>,
    threads: usize,
) -> Vec<Vec<f64>> {
    let blocks = operands.len.div_ceil(BLOCK);
    let threads = threads.clamp(1, blocks.max(1));
    let bounds: Vec<usize> = (0..=threads)
        .map(|t| (blocks * t / threads * BLOCK).min(operands.len))
        .collect();
    let mut shares: Vec<Vec<&mut [T]>> = (0..threads)
        .map(|_| Vec::with_capacity(outputs.len()))
        .collect();
    for mut output in outputs {
        for (share, bound) in shares.iter_mut().zip(bounds.windows(2)) {
            let (mine, rest) = output.split_at_mut(bound[1] - bound[0]);
            share.push(mine);
            output = rest;
        }
    }
    let registers = program.scratch * STRIDE + LINE;
    scratch.resize(registers.max(scratch.len()), T::from_f64(0.0));
    let work = |share, range: Range<usize>, scratch: &mut [T]| {
        let mut partials = program.reductions(operands, range.start);
        run_range(program, operands, range, share, scratch, &mut partials);
        partials
    };
    let mut shares = shares
        .into_iter()
        .zip(bounds.windows(2).map(|bound| bound[0]..bound[1]));
    let (own, range) = shares.next().expect("one thread at least");
    let joined = std::thread::scope(|scope| {
        let spawn = |(share, range)| {
            scope.spawn(move || work(share, range, &mut vec![T::from_f64(0.0); registers]))
        };
        let workers: Vec<_> = shares.map(spawn).collect();
        let mut joined = work(own, range, scratch);
        for worker in workers {
            let partials = worker.join().expect("kernels do not panic");
            joined
                .iter_mut()
                .zip(partials)
                .for_each(|(all, part)| all.append(part));
        }
        joined
    });
    joined.into_iter().map(|partial| partial.values).collect()
}

fn run_range<T: Scalar>(
    program: &Program,
    operands: &Operands<T>,
    range: Range<usize>,
    outputs: Vec<&mut [T]>,
    scratch: &mut [T],
    partials: &mut [Partial],
) {
    if range.is_empty() {
        return;
    }
    let aligned = scratch.as_ptr().align_offset(LINE);
    let registers = scratch[aligned..]
        .chunks_exact_mut(STRIDE)
        .take(program.scratch);
    let number = |&number: &T| Slot::Number(number);
    let constant = |value: &Number| Slot::Number(T::from_f64(value.get()));
    let slots = registers
        .map(|register| Slot::Register(&mut register[..BLOCK]))
        .chain(outputs.iter().map(|_| Slot::default()))
        .chain(operands.arrays.iter().map(|_| Slot::default()))
        .chain(operands.numbers.iter().map(number))
        .chain(program.constants.iter().map(constant));
    let cursors = operands.rows.iter();
    Kernels::get().within(Blocks {
        program,
        operands,
        slots: slots.collect(),
        cursors: cursors.map(|rows| Cursor::new(rows, range.start)).collect(),
        range,
        outputs,
        partials,
    });
}

/// What instructions read and write: one block of it at a time, or one number for all elements.
enum Slot<'a, T> {
    Number(T),
    Array(&'a [T]),
    Register(&'a mut [T]),
    /// A register that nobody has to fill, as all of the block lies in one row.
    Expanded(T, &'a mut [T]),
}

impl<T: Scalar> Default for Slot<'_, T> {
    fn default() -> Self {
        Slot::Number(T::ZERO)
    }
}

impl<'a, T: Scalar> Slot<'a, T> {
    #[inline(always)]
    fn read(&self) -> Arg<'_, T> {
        match self {
            Slot::Number(number) | Slot::Expanded(number, _) => Arg::Number(*number),
            Slot::Array(block) => Arg::Block(block),
            Slot::Register(block) => Arg::Block(block),
        }
    }

    #[inline(always)]
    fn take(&mut self) -> &'a mut [T] {
        match std::mem::take(self) {
            Slot::Register(block) | Slot::Expanded(_, block) => block,
            Slot::Number(_) | Slot::Array(_) => unreachable!("only registers are written"),
        }
    }
}

/// A run over the blocks of `range`.
struct Blocks<'a, T> {
    program: &'a Program,
    operands: &'a Operands<'a, T>,
    range: Range<usize>,
    slots: Vec<Slot<'a, T>>,
    cursors: Vec<Cursor<'a>>,
    /// What of the outputs is still to be written.
    outputs: Vec<&'a mut [T]>,
    partials: &'a mut [Partial],
}

impl<T: Scalar> Calls for Blocks<'_, T> {
    #[inline(always)]
    fn make(mut self, kernels: Kernels<impl Dispatch>) {
        let mut start = self.range.start;
        while start < self.range.end {
            let end = self.range.end.min(start + BLOCK);
            self.move_to(start..end);
            for instruction in &self.program.code {
                self.execute(kernels, instruction, start..end);
            }
            start = end;
        }
    }
}

impl<T: Scalar> Blocks<'_, T> {
    fn move_to(&mut self, block: Range<usize>) {
        let Program {
            scratch, stores, ..
        } = *self.program;
        let (registers, slots) = self.slots.split_at_mut(scratch);
        if block.len() < BLOCK {
            for register in registers {
                *register = Slot::Register(&mut register.take()[..block.len()]);
            }
        }
        let (stored, slots) = slots.split_at_mut(stores);
        for (slot, rest) in stored.iter_mut().zip(&mut self.outputs) {
            let output = rest.split_off_mut(..block.len());
            *slot = Slot::Register(output.expect("outputs are as long as the range"));
        }
        for (slot, array) in slots.iter_mut().zip(&self.operands.arrays) {
            if array.len() == self.operands.len {
                *slot = Slot::Array(&array[block.clone()]);
            }
        }
        for cursor in &mut self.cursors {
            cursor.advance(block.start);
        }
    }

    #[inline(always)]
    fn execute(
        &mut self,
        kernels: Kernels<impl Dispatch>,
        instruction: &Instruction,
        block: Range<usize>,
    ) {
        match *instruction {
            Instruction::Compute { op, ref args, to } => {
                let out = self.slots[to as usize].take();
                let read = |i: usize| self.slots[args[i] as usize].read();
                compute(kernels, op, read, out);
                self.slots[to as usize] = Slot::Register(out);
            }
            Instruction::Expand { array, rows, to } => {
                let per_row = self.operands.arrays[array as usize];
                let cursor = &self.cursors[rows as usize];
                let out = self.slots[to as usize].take();
                self.slots[to as usize] = match cursor.only_row(block.end) {
                    Some(row) if (to as usize) < self.program.scratch => {
                        Slot::Expanded(per_row[row], out)
                    }
                    _ => {
                        cursor.each_row(block.start, block.len(), |row, part| {
                            out[part].fill(per_row[row]);
                        });
                        Slot::Register(out)
                    }
                };
            }
            Instruction::Dot { rows, a, b, into } => {
                let (a, b) = (self.slots[a as usize].read(), self.slots[b as usize].read());
                let partial = &mut self.partials[into as usize];
                self.cursors[rows as usize].each_row(block.start, block.len(), |row, part| {
                    partial.add(row, dot(kernels, a, b, part));
                });
            }
            Instruction::Reduce {
                op,
                rows,
                value,
                into,
            } => {
                let value = self.slots[value as usize].read();
                let partial = &mut self.partials[into as usize];
                self.cursors[rows as usize].each_row(block.start, block.len(), |row, part| {
                    partial.add(row, reduce(kernels, op, value, part));
                });
            }
        }
    }
}

#[inline(always)]
fn compute<'r, T: Scalar>(
    kernels: Kernels<impl Dispatch>,
    op: KernelOp,
    read: impl Fn(usize) -> Arg<'r, T>,
    out: &mut [T],
) {
    match op {
        KernelOp::Copy => fill(read(0), out),
        KernelOp::Unary(op) => match read(0) {
            Arg::Block(x) => kernels.unary(op, x, out),
            Arg::Number(x) => {
                kernels.unary(op, &[x], &mut out[..1]);
                out.fill(out[0]);
            }
        },
        KernelOp::Binary(op) => kernels.binary(op, read(0), read(1), out),
        KernelOp::Compare(op) => kernels.compare(op, read(0), read(1), out),
        KernelOp::Select => match read(0) {
            Arg::Block(mask) => kernels.select(mask, read(1), read(2), out),
            Arg::Number(mask) => fill(read(if mask != T::ZERO { 1 } else { 2 }), out),
        },
        KernelOp::Choose(op, then) => {
            let number = |bound: Number| T::from_f64(bound.get());
            let taken = match then {
                Then::Nothing => Taken::AsIs,
                Then::Neg => Taken::Negated,
                Then::Minimum(bound) => Taken::AtMost(number(bound)),
                Then::Maximum(bound) => Taken::AtLeast(number(bound)),
            };
            kernels.choose(
                Choice { op, taken },
                [read(0), read(1)],
                [read(2), read(3)],
                out,
            );
        }
        KernelOp::Expand { .. } => unreachable!("an instruction of its own"),
    }
}

#[inline(always)]
fn fill<T: Copy>(value: Arg<T>, out: &mut [T]) {
    match value {
        Arg::Block(x) => out.copy_from_slice(x),
        Arg::Number(x) => out.fill(x),
    }
}

#[inline(always)]
fn reduce<T: Scalar>(
    kernels: Kernels<impl Dispatch>,
    op: ReduceOp,
    value: Arg<T>,
    part: Range<usize>,
) -> f64 {
    match (op, value) {
        (ReduceOp::Sum, Arg::Block(x)) => kernels.sum(&x[part]),
        (ReduceOp::Max, Arg::Block(x)) => kernels.max(&x[part]).into(),
        (ReduceOp::Min, Arg::Block(x)) => kernels.min(&x[part]).into(),
        (ReduceOp::Sum, Arg::Number(x)) => x.into() * part.len() as f64,
        (ReduceOp::Max | ReduceOp::Min, Arg::Number(x)) => x.into(),
    }
}

#[inline(always)]
fn dot<T: Scalar>(
    kernels: Kernels<impl Dispatch>,
    a: Arg<T>,
    b: Arg<T>,
    part: Range<usize>,
) -> f64 {
    match (a, b) {
        (Arg::Block(a), Arg::Block(b)) => kernels.dot(&a[part.clone()], Arg::Block(&b[part])),
        (Arg::Block(x), number) | (number, Arg::Block(x)) => kernels.dot(&x[part], number),
        (Arg::Number(a), Arg::Number(b)) => (a * b).into() * part.len() as f64,
    }
}

impl Program {
    /// Empty accumulators for a range of elements that begins at `start`.
    fn reductions<T>(&self, operands: &Operands<T>, start: usize) -> Vec<Partial> {
        let of_instruction = |instruction: &Instruction| match *instruction {
            Instruction::Reduce { op, rows, into, .. } => {
                Some((into, op, operands.rows[rows as usize]))
            }
            Instruction::Dot { rows, into, .. } => {
                Some((into, ReduceOp::Sum, operands.rows[rows as usize]))
            }
            Instruction::Compute { .. } | Instruction::Expand { .. } => None,
        };
        let mut all: Vec<_> = self.code.iter().filter_map(of_instruction).collect();
        all.sort_unstable_by_key(|&(into, ..)| into);
        all.into_iter()
            .map(|(_, op, rows)| Partial::new(op, rows, operands.len, start))
            .collect()
    }
}
