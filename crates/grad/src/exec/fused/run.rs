//! Running a kernel: block by block, so that all values between its operands and its results stay in L1.

use std::ops::Range;

use super::Scalar;
use super::plan::Rows;
use super::program::{Instruction, KernelOp, Program, Source};
use super::vmath::{Arg, Kernels};
use crate::op::ReduceOp;

/// Elements of a register. 4 KiB of f32: few enough that a kernel's registers stay near, and enough that an
/// instruction's overhead is small beside its work.
const BLOCK: usize = 1024;

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
    let mut joined: Vec<Partial> = program.reductions(operands, 0);
    if threads == 1 {
        scratch.resize(
            (program.scratch * STRIDE).max(scratch.len()),
            T::from_f64(0.0),
        );
        run_range(
            program,
            operands,
            0..operands.len,
            outputs,
            scratch,
            &mut joined,
        );
    } else {
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
        let partials: Vec<Vec<Partial>> = std::thread::scope(|scope| {
            let mut workers = Vec::with_capacity(threads);
            for (share, bound) in shares.into_iter().zip(bounds.windows(2)) {
                let range = bound[0]..bound[1];
                workers.push(scope.spawn(move || {
                    let mut scratch = vec![T::from_f64(0.0); program.scratch * STRIDE];
                    let mut partials = program.reductions(operands, range.start);
                    run_range(program, operands, range, share, &mut scratch, &mut partials);
                    partials
                }));
            }
            workers
                .into_iter()
                .map(|worker| worker.join().expect("kernels do not panic"))
                .collect()
        });
        for partial in partials {
            joined
                .iter_mut()
                .zip(partial)
                .for_each(|(all, part)| all.append(part));
        }
    }
    joined.into_iter().map(|partial| partial.values).collect()
}

fn run_range<'s, T: Scalar>(
    program: &Program,
    operands: &Operands<T>,
    range: Range<usize>,
    mut outputs: Vec<&'s mut [T]>,
    scratch: &'s mut [T],
    partials: &mut [Partial],
) {
    let kernels = Kernels::get();
    let mut registers: Vec<&'s mut [T]> = scratch
        .chunks_exact_mut(STRIDE)
        .take(program.scratch)
        .collect();
    registers.extend((0..program.stores).map(|_| <&mut [T]>::default()));

    let mut start = range.start;
    while start < range.end {
        let len = BLOCK.min(range.end - start);
        for (rest, register) in outputs.iter_mut().zip(&mut registers[program.scratch..]) {
            let (block, after) = std::mem::take(rest).split_at_mut(len);
            *register = block;
            *rest = after;
        }
        for instruction in &program.code {
            match *instruction {
                Instruction::Compute { op, ref args, to } => {
                    let register = std::mem::take(&mut registers[to as usize]);
                    let read = |i: usize| operands.read(args[i], &registers, start, len);
                    compute(
                        kernels,
                        op,
                        read,
                        operands,
                        (args[0], start),
                        &mut register[..len],
                    );
                    registers[to as usize] = register;
                }
                Instruction::Reduce {
                    op,
                    rows,
                    value,
                    into,
                } => {
                    let value = operands.read(value, &registers, start, len);
                    let partial = &mut partials[into as usize];
                    each_row(operands.rows[rows as usize], start, len, |row, part| {
                        partial.add(row, reduce(kernels, op, value, part));
                    });
                }
            }
        }
        start += len;
    }
}

fn compute<'r, T: Scalar>(
    kernels: Kernels,
    op: KernelOp,
    read: impl Fn(usize) -> Arg<'r, T>,
    operands: &Operands<T>,
    (source, start): (Source, usize),
    out: &mut [T],
) {
    match op {
        KernelOp::Copy => fill(read(0), out),
        KernelOp::Unary(op) => match read(0) {
            Arg::Block(x) => kernels.unary(op, x, out),
            Arg::Number(x) => {
                let mut y = [x];
                kernels.unary(op, &[x], &mut y);
                out.fill(y[0]);
            }
        },
        KernelOp::Binary(op) => kernels.binary(op, read(0), read(1), out),
        KernelOp::Select => match read(0) {
            Arg::Block(mask) => kernels.select(mask, read(1), read(2), out),
            Arg::Number(mask) => fill(read(if mask != T::from_f64(0.0) { 1 } else { 2 }), out),
        },
        KernelOp::Choose(op) => match read(0) {
            Arg::Block(a) => kernels.choose(op, a, read(1), read(2), read(3), out),
            Arg::Number(_) => unreachable!("a choice is made of a comparison of arrays"),
        },
        KernelOp::Clamp { lo, hi } => {
            let (lo, hi) = (
                T::from_f64(f64::from_bits(lo)),
                T::from_f64(f64::from_bits(hi)),
            );
            match read(0) {
                Arg::Block(x) => kernels.clamp(x, lo, hi, out),
                Arg::Number(x) => {
                    let mut y = [x];
                    kernels.clamp(&[x], lo, hi, &mut y);
                    out.fill(y[0]);
                }
            }
        }
        KernelOp::Expand { rows } => {
            let Source::Array(array) = source else {
                unreachable!("what is expanded lies in memory")
            };
            let per_row = operands.arrays[array as usize];
            each_row(
                operands.rows[rows as usize],
                start,
                out.len(),
                |row, part| out[part].fill(per_row[row]),
            );
        }
    }
}

fn fill<T: Copy>(value: Arg<T>, out: &mut [T]) {
    match value {
        Arg::Block(x) => out.copy_from_slice(x),
        Arg::Number(x) => out.fill(x),
    }
}

fn reduce<T: Scalar>(kernels: Kernels, op: ReduceOp, value: Arg<T>, part: Range<usize>) -> f64 {
    match (op, value) {
        (ReduceOp::Sum, Arg::Block(x)) => kernels.sum(&x[part]),
        (ReduceOp::Max, Arg::Block(x)) => kernels.max(&x[part]).into(),
        (ReduceOp::Min, Arg::Block(x)) => kernels.min(&x[part]).into(),
        (ReduceOp::Sum, Arg::Number(x)) => x.into() * part.len() as f64,
        (ReduceOp::Max | ReduceOp::Min, Arg::Number(x)) => x.into(),
    }
}

/// Shows `f` each row that has elements in the block, and where they are in the block.
fn each_row(rows: &Rows, start: usize, len: usize, mut f: impl FnMut(usize, Range<usize>)) {
    match rows {
        Rows::One => f(0, 0..len),
        Rows::Of(n) => {
            let mut at = 0;
            while at < len {
                let row = (start + at) / n;
                let end = ((row + 1) * n - start).min(len);
                f(row, at..end);
                at = end;
            }
        }
        Rows::Segments(segments) => {
            let offsets = segments.offsets();
            let mut row = offsets.partition_point(|&offset| offset <= start) - 1;
            let mut at = 0;
            while at < len {
                let end = (offsets[row + 1] - start).min(len);
                if end > at {
                    f(row, at..end);
                }
                at = end;
                row += 1;
            }
        }
    }
}

impl<T: Scalar> Operands<'_, T> {
    fn read<'r>(
        &'r self,
        source: Source,
        registers: &'r [&mut [T]],
        start: usize,
        len: usize,
    ) -> Arg<'r, T> {
        match source {
            Source::Register(register) => Arg::Block(&registers[register as usize][..len]),
            Source::Array(array) => match self.arrays[array as usize] {
                array if array.len() == self.len => Arg::Block(&array[start..start + len]),
                expanded => Arg::Block(expanded),
            },
            Source::Number(number) => Arg::Number(self.numbers[number as usize]),
            Source::Constant(value) => Arg::Number(T::from_f64(value)),
            Source::Absent => Arg::Number(T::from_f64(0.0)),
        }
    }
}

impl Rows {
    pub(super) fn count(&self, len: usize) -> usize {
        match self {
            Rows::One => 1,
            Rows::Of(n) => len / n,
            Rows::Segments(segments) => segments.len(),
        }
    }

    fn row_of(&self, element: usize) -> usize {
        match self {
            Rows::One => 0,
            Rows::Of(n) => element / n,
            Rows::Segments(segments) => {
                segments
                    .offsets()
                    .partition_point(|&offset| offset <= element)
                    - 1
            }
        }
    }

    fn begins_at(&self, element: usize) -> bool {
        match self {
            Rows::One => element == 0,
            Rows::Of(n) => element.is_multiple_of(*n),
            Rows::Segments(segments) => segments.offsets().binary_search(&element).is_ok(),
        }
    }
}

impl Program {
    /// Empty accumulators for a range of elements that begins at `start`.
    fn reductions<T>(&self, operands: &Operands<T>, start: usize) -> Vec<Partial> {
        let of_instruction = |instruction: &Instruction| match *instruction {
            Instruction::Reduce { op, rows, into, .. } => {
                Some((into, op, operands.rows[rows as usize]))
            }
            Instruction::Compute { .. } => None,
        };
        let mut all: Vec<_> = self.code.iter().filter_map(of_instruction).collect();
        all.sort_unstable_by_key(|&(into, ..)| into);
        all.into_iter()
            .map(|(_, op, rows)| Partial::new(op, rows, operands.len, start))
            .collect()
    }
}

/// A reduction over the elements from some point on. Where that point lies within a row, that row's values are kept apart, to
/// be added one by one to what came before: the order of additions must not depend on where threads divide the work.
struct Partial {
    op: ReduceOp,
    continued: Option<(usize, Vec<f64>)>,
    values: Vec<f64>,
}

impl Partial {
    fn new(op: ReduceOp, rows: &Rows, len: usize, start: usize) -> Partial {
        let neutral = match op {
            ReduceOp::Sum => 0.0,
            ReduceOp::Max => f64::NEG_INFINITY,
            ReduceOp::Min => f64::INFINITY,
        };
        let is_inside = start > 0 && start < len && !rows.begins_at(start);
        let continued = is_inside.then(|| (rows.row_of(start), Vec::new()));
        Partial {
            op,
            continued,
            values: vec![neutral; rows.count(len)],
        }
    }

    fn add(&mut self, row: usize, value: f64) {
        match &mut self.continued {
            Some((continued, values)) if *continued == row => values.push(value),
            _ => self.values[row] = combine(self.op, self.values[row], value),
        }
    }

    fn append(&mut self, next: Partial) {
        if let Some((row, values)) = next.continued {
            values
                .into_iter()
                .for_each(|value| self.values[row] = combine(self.op, self.values[row], value));
        }
        for (all, value) in self.values.iter_mut().zip(next.values) {
            *all = combine(self.op, *all, value);
        }
    }
}

fn combine(op: ReduceOp, a: f64, b: f64) -> f64 {
    match op {
        ReduceOp::Sum => a + b,
        ReduceOp::Max if a > b || a.is_nan() => a,
        ReduceOp::Min if a < b || a.is_nan() => a,
        ReduceOp::Max | ReduceOp::Min => b,
    }
}
