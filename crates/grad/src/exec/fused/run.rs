//! Running a kernel: block by block, so that all values between its operands and its results stay
//! in L1.

use std::ops::Range;

use super::Scalar;
use super::item::Rows;
use super::partial::Partial;
use super::program::{Instruction, KernelOp, Program};
use super::rows::Cursor;
use crate::exec::math::{Arg, CHUNK, Chunk, Kernels};
use crate::graph::op::ReduceOp;

/// Elements of a register. 3 KiB of f32: enough that an instruction's overhead is small beside its
/// work, and few enough that registers and operands stay in L1. Not a power of two, so that arrays
/// of one alignment do not compete for the same cache sets.
const BLOCK: usize = 6 * CHUNK;

/// Bytes of a cache line. Registers begin at one: vectors that lie across two lines take twice as
/// long.
const LINE: usize = 64;

/// Registers are laid a cache line more than a power of two apart, so that they do not compete for
/// the same cache sets.
const STRIDE: usize = BLOCK + 16;

/// Elements that a thread must have to itself: waking it takes as long as a simple kernel takes for
/// half of them.
const SHARE: usize = 1 << 14;

/// What a kernel works on. Arrays that are read elementwise have `len` elements, those that are
/// expanded one for each row.
pub(super) struct Operands<'a, T> {
    pub(super) len: usize,
    pub(super) arrays: Vec<&'a [T]>,
    pub(super) numbers: Vec<T>,
    pub(super) rows: Vec<&'a Rows>,
}

/// Runs `program`, writing `outputs` and returning one value for each row of each reduction, in
/// `f64`.
///
/// The elements are divided among threads at block boundaries, and partial results are joined in
/// the order of the blocks, so the results are the same bits for any number of threads.
pub(super) fn run<T: Scalar>(
    program: &Program,
    operands: &Operands<T>,
    outputs: Vec<&mut [T]>,
    scratch: &mut Vec<T>,
    threads: usize,
) -> Vec<Vec<f64>> {
    let len = operands.len;
    let threads = threads.min(len / SHARE).max(1);
    if threads == 1 {
        let mut partials = program.reductions(operands, 0);
        run_range(program, operands, 0..len, outputs, scratch, &mut partials);
        return partials.into_iter().map(|partial| partial.values).collect();
    }
    let blocks = len.div_ceil(BLOCK);
    let bound = |t: usize| (blocks * t / threads * BLOCK).min(len);
    let mut shares: Vec<Share<T>> = (0..threads)
        .map(|t| Share {
            range: bound(t)..bound(t + 1),
            outputs: Vec::with_capacity(outputs.len()),
            partials: program.reductions(operands, bound(t)),
        })
        .collect();
    for mut output in outputs {
        for share in &mut shares {
            let (mine, rest) = output.split_at_mut(share.range.len());
            share.outputs.push(mine);
            output = rest;
        }
    }
    let work = |share: &mut Share<T>, scratch: &mut Vec<T>| {
        let outputs = std::mem::take(&mut share.outputs);
        run_range(program, operands, share.range.clone(), outputs, scratch, &mut share.partials);
    };
    let (own, others) = shares.split_first_mut().expect("one thread at least");
    rayon::in_place_scope(|scope| {
        for share in others {
            scope.spawn(|_| work(share, &mut Vec::new()));
        }
        work(own, scratch);
    });
    let joined = shares.into_iter().map(|share| share.partials);
    let joined = joined.reduce(|mut all, next| {
        all.iter_mut().zip(next).for_each(|(all, next)| all.append(next));
        all
    });
    joined.unwrap_or_default().into_iter().map(|partial| partial.values).collect()
}

/// What one thread does.
struct Share<'a, T> {
    range: Range<usize>,
    outputs: Vec<&'a mut [T]>,
    partials: Vec<Partial>,
}

fn run_range<'a, T: Scalar>(
    program: &'a Program,
    operands: &'a Operands<'a, T>,
    range: Range<usize>,
    mut outputs: Vec<&'a mut [T]>,
    scratch: &'a mut Vec<T>,
    partials: &mut [Partial],
) {
    if range.is_empty() {
        return;
    }
    let numbers = operands.numbers.len() + program.constants.len();
    let filled = numbers + program.uniform.len();
    let staged = program.stores + operands.arrays.len();
    let size = program.scratch * STRIDE + (filled + staged) * CHUNK + LINE;
    if scratch.len() < size {
        scratch.resize(size, T::ZERO);
    }
    let aligned = scratch.as_ptr().align_offset(LINE);
    let (registers, rest) = scratch[aligned..].split_at_mut(program.scratch * STRIDE);
    let (filled, staging) = rest.as_chunks_mut().0.split_at_mut(filled);
    let (filled, uniform) = filled.split_at_mut(numbers);
    let constants = program.constants.iter();
    let constants = constants.map(|number| T::narrowed(number.get()));
    let numbers = operands.numbers.iter().copied().chain(constants);
    for (chunk, number) in filled.iter_mut().zip(numbers) {
        *chunk = [number; CHUNK];
    }
    let registers = registers.chunks_exact_mut(STRIDE);
    let registers = registers.map(|register| register[..BLOCK].as_chunks_mut().0);
    let slots = registers.map(Slot::Register);
    let slots = slots.chain((0..staged).map(|_| Slot::Block(&[])));
    let mut slots: Vec<Slot<T>> = slots.chain(filled.iter().map(Slot::Number)).collect();
    let kernels = Kernels::get();
    for ((op, args), out) in program.uniform.iter().zip(uniform) {
        let read = |i: usize| slots[args[i] as usize].read();
        compute(kernels, *op, read, std::slice::from_mut(out));
        slots.push(Slot::Number(out));
    }
    let mut blocks = Blocks {
        kernels,
        program,
        operands,
        slots,
        cursors: operands.rows.iter().map(|rows| Cursor::new(rows, range.start)).collect(),
        partials,
    };
    let whole = range.len() / CHUNK * CHUNK;
    let mut start = range.start;
    while start < range.start + whole {
        let end = (range.start + whole).min(start + BLOCK);
        blocks.run_whole(start..end, &mut outputs);
        start = end;
    }
    if start < range.end {
        blocks.run_last(start..range.end, outputs, staging);
    }
}

/// What instructions read and write.
enum Slot<'a, T> {
    /// A number for all elements.
    Number(&'a Chunk<T>),
    Block(&'a [Chunk<T>]),
    Register(&'a mut [Chunk<T>]),
    /// A register of which only the first chunk is filled, as all of the block lies in one row, or
    /// is made of such registers and numbers.
    Expanded(&'a mut [Chunk<T>]),
}

impl<'a, T> Slot<'a, T> {
    fn read(&self) -> Arg<'_, T> {
        match self {
            Slot::Number(number) => Arg::Number(number),
            Slot::Expanded(register) => Arg::Number(&register[0]),
            Slot::Block(block) => Arg::Block(block),
            Slot::Register(register) => Arg::Block(register),
        }
    }

    fn take(&mut self) -> &'a mut [Chunk<T>] {
        match std::mem::replace(self, Slot::Block(&[])) {
            Slot::Register(register) | Slot::Expanded(register) => register,
            Slot::Number(_) | Slot::Block(_) => unreachable!("only registers are written"),
        }
    }
}

/// A run over consecutive blocks.
struct Blocks<'a, 'p, T> {
    kernels: Kernels,
    program: &'a Program,
    operands: &'a Operands<'a, T>,
    slots: Vec<Slot<'a, T>>,
    cursors: Vec<Cursor<'a>>,
    partials: &'p mut [Partial],
}

impl<'a, T: Scalar> Blocks<'a, '_, T> {
    /// The elements `block`, which make whole chunks. `outputs` are what is still to be written.
    fn run_whole(&mut self, block: Range<usize>, outputs: &mut [&'a mut [T]]) {
        let (scratch, stores) = (self.program.scratch, self.program.stores);
        for (slot, rest) in self.slots[scratch..].iter_mut().zip(outputs) {
            let output = rest.split_off_mut(..block.len());
            let output = output.expect("outputs are as long as the range");
            *slot = Slot::Register(output.as_chunks_mut().0);
        }
        for (slot, array) in self.slots[scratch + stores..].iter_mut().zip(&self.operands.arrays) {
            if array.len() == self.operands.len {
                *slot = Slot::Block(array[block.clone()].as_chunks().0);
            }
        }
        self.run(block);
    }

    /// The elements `block`, fewer than a chunk, by way of `staging`.
    fn run_last(
        &mut self,
        block: Range<usize>,
        outputs: Vec<&'a mut [T]>,
        staging: &'a mut [Chunk<T>],
    ) {
        let (scratch, stores) = (self.program.scratch, self.program.stores);
        let (stored, read) = staging.split_at_mut(stores);
        for (slot, chunk) in self.slots[scratch..].iter_mut().zip(stored) {
            *slot = Slot::Register(std::slice::from_mut(chunk));
        }
        let arrays = self.slots[scratch + stores..].iter_mut().zip(&self.operands.arrays);
        for ((slot, array), chunk) in arrays.zip(read) {
            if array.len() == self.operands.len {
                chunk[..block.len()].copy_from_slice(&array[block.clone()]);
                *slot = Slot::Block(std::slice::from_ref(chunk));
            }
        }
        let len = block.len();
        self.run(block);
        for (slot, output) in self.slots[scratch..].iter_mut().zip(outputs) {
            output.copy_from_slice(&slot.take().as_flattened()[..len]);
        }
    }

    fn run(&mut self, block: Range<usize>) {
        let chunks = block.len().div_ceil(CHUNK);
        for register in &mut self.slots[..self.program.scratch] {
            let all = register.take();
            *register = Slot::Register(if all.len() == chunks { all } else { &mut all[..chunks] });
        }
        for cursor in &mut self.cursors {
            cursor.advance(block.start);
        }
        for instruction in &self.program.code {
            self.execute(instruction, &block);
        }
    }

    #[inline]
    fn execute(&mut self, instruction: &Instruction, block: &Range<usize>) {
        let slots = &mut self.slots;
        match *instruction {
            Instruction::Compute { op, ref args, to } => {
                let out = slots[to as usize].take();
                let read = |i: usize| slots[args[i] as usize].read();
                let is_number = |i: usize| matches!(read(i), Arg::Number(_));
                slots[to as usize] =
                    if (to as usize) < self.program.scratch && (0..args.len()).all(is_number) {
                        compute(self.kernels, op, read, &mut out[..1]);
                        Slot::Expanded(out)
                    } else {
                        compute(self.kernels, op, read, out);
                        Slot::Register(out)
                    };
            }
            Instruction::Expand { array, rows, to } => {
                let per_row = self.operands.arrays[array as usize];
                let cursor = &self.cursors[rows as usize];
                let out = slots[to as usize].take();
                slots[to as usize] = match cursor.only_row(block.end) {
                    Some(row) if (to as usize) < self.program.scratch => {
                        out[0] = [per_row[row]; CHUNK];
                        Slot::Expanded(out)
                    }
                    _ => {
                        let elements = out.as_flattened_mut();
                        cursor.each_row(block.start, block.len(), |row, part| {
                            elements[part].fill(per_row[row]);
                        });
                        Slot::Register(out)
                    }
                };
            }
            Instruction::Dot { rows, a, b, into } => {
                let (a, b) = (slots[a as usize].read(), slots[b as usize].read());
                let (partial, kernels) = (&mut self.partials[into as usize], self.kernels);
                self.cursors[rows as usize].each_row(block.start, block.len(), |row, part| {
                    partial.add(row, dot(kernels, a, b, part));
                });
            }
            Instruction::Reduce { op, rows, value, into } => {
                let value = slots[value as usize].read();
                let (partial, kernels) = (&mut self.partials[into as usize], self.kernels);
                self.cursors[rows as usize].each_row(block.start, block.len(), |row, part| {
                    partial.add(row, reduce(kernels, op, value, part));
                });
            }
        }
    }
}

fn compute<'r, T: Scalar>(
    kernels: Kernels,
    op: KernelOp,
    read: impl Fn(usize) -> Arg<'r, T>,
    out: &mut [Chunk<T>],
) {
    match op {
        KernelOp::Copy => match read(0) {
            Arg::Block(x) => out.copy_from_slice(x),
            Arg::Number(x) => out.fill(*x),
        },
        KernelOp::Unary(op) => kernels.unary(op, read(0), out),
        KernelOp::Binary(op) => kernels.binary(op, read(0), read(1), out),
        KernelOp::Compare(op) => kernels.compare(op, read(0), read(1), out),
        KernelOp::Select => kernels.select(read(0), read(1), read(2), out),
        KernelOp::Choose(op, then) => {
            kernels.choose(op, then, [read(0), read(1)], [read(2), read(3)], out);
        }
        KernelOp::Pair(first, second) => {
            kernels.pair(first, second, [read(0), read(1), read(2)], out);
        }
        KernelOp::Expand { .. } => unreachable!("an instruction of its own"),
    }
}

fn reduce<T: Scalar>(kernels: Kernels, op: ReduceOp, value: Arg<T>, part: Range<usize>) -> f64 {
    match (op, value) {
        (op, Arg::Block(x)) => kernels.reduce(op, &x.as_flattened()[part]),
        (ReduceOp::Sum, Arg::Number(x)) => x[0].into() * part.len() as f64,
        (ReduceOp::Max | ReduceOp::Min, Arg::Number(x)) => x[0].into(),
    }
}

fn dot<T: Scalar>(kernels: Kernels, a: Arg<T>, b: Arg<T>, part: Range<usize>) -> f64 {
    match (a, b) {
        (Arg::Block(a), Arg::Block(b)) => {
            kernels.dot(&a.as_flattened()[part.clone()], &b.as_flattened()[part])
        }
        (Arg::Block(x), Arg::Number(number)) | (Arg::Number(number), Arg::Block(x)) => {
            kernels.scaled_sum(&x.as_flattened()[part], number[0])
        }
        (Arg::Number(a), Arg::Number(b)) => (a[0] * b[0]).into() * part.len() as f64,
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
        all.into_iter().map(|(_, op, rows)| Partial::new(op, rows, operands.len, start)).collect()
    }
}
