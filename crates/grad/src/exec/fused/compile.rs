//! From a kernel to its program: the order of the instructions, and where each value lies.

use super::program::{Arg, Instruction, Kernel, KernelOp, Node, Output, Program};
use super::simplify::simplified;
use crate::graph::op::Number;

/// Where a value lies, before the number of slots of each sort is known.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Scratch(u32),
    Stored(u32),
    Array(u32),
    Number(u32),
    Constant(u32),
    /// The same for all elements.
    Uniform(u32),
    Nowhere,
}

pub(super) fn compile(kernel: &Kernel) -> Program {
    let (nodes, results) = simplified(kernel);
    let mut compiler = Compiler {
        places: vec![Place::Nowhere; nodes.len()],
        code: Vec::with_capacity(nodes.len() + results.len()),
        constants: Vec::new(),
        scratch: Registers::default(),
        uniform: Vec::new(),
    };
    for (i, node) in nodes.iter().enumerate() {
        if compiler.is_uniform(node) {
            compiler.places[i] = Place::Uniform(compiler.uniform.len() as u32);
            let args = node.args.map(|arg| compiler.place(arg));
            compiler.uniform.push((node.op, args));
        }
    }

    // A value that is stored is computed where it is to lie. One that is stored twice, or is not
    // computed here, is copied.
    let mut copies = Vec::new();
    let mut reductions = Vec::new();
    let mut stores = 0;
    for &result in &results {
        let Output::Store { value } = result else {
            reductions.push((last_of(result), result, reductions.len() as u32));
            continue;
        };
        let place = Place::Stored(stores);
        match value.node() {
            Some(node) if compiler.places[node] == Place::Nowhere => compiler.places[node] = place,
            _ => copies.push((value, place)),
        }
        stores += 1;
    }
    let finished = lifetimes(&nodes, &results, &copies);
    reductions.sort_by_key(|&(last, ..)| last);
    let mut reductions = reductions.into_iter().peekable();

    while let Some((_, result, into)) = reductions.next_if(|(last, ..)| last.is_none()) {
        compiler.reduce(result, into);
    }
    for (i, node) in nodes.iter().enumerate() {
        if compiler.places[i] == Place::Nowhere {
            // Taken before the operands' registers are free, so that no instruction writes what it
            // reads.
            compiler.places[i] = Place::Scratch(compiler.scratch.take());
        }
        if !matches!(compiler.places[i], Place::Uniform(_)) {
            compiler.compute(node, compiler.places[i]);
        }
        while let Some((_, result, into)) = reductions.next_if(|(last, ..)| *last == Some(i)) {
            compiler.reduce(result, into);
        }
        for &value in &finished[i] {
            if let Place::Scratch(register) = compiler.places[value] {
                compiler.scratch.give(register);
            }
        }
    }
    for (value, place) in copies {
        compiler.compute(&Node::new(KernelOp::Copy, &[value]), place);
    }
    compiler.finish(kernel, stores)
}

/// The node that a reduction has to wait for.
fn last_of(result: Output) -> Option<usize> {
    result.values().filter_map(|value| value.node()).max()
}

/// For each node, the values that are not read after it. Copies are made at the end.
fn lifetimes(nodes: &[Node], results: &[Output], copies: &[(Arg, Place)]) -> Vec<Vec<usize>> {
    let mut last_use: Vec<usize> = (0..nodes.len()).collect();
    for (i, node) in nodes.iter().enumerate() {
        let operands = node.args.iter().filter_map(|arg| arg.node());
        operands.for_each(|operand| last_use[operand] = i);
    }
    for &result in results {
        let values = result.values().filter_map(|value| value.node());
        values
            .for_each(|value| last_use[value] = last_use[value].max(last_of(result).unwrap_or(0)));
    }
    let copied = copies.iter().filter_map(|(value, _)| value.node());
    copied.for_each(|value| last_use[value] = usize::MAX);

    let mut finished = vec![Vec::new(); nodes.len()];
    for (value, last) in last_use.into_iter().enumerate() {
        if let Some(finished) = finished.get_mut(last) {
            finished.push(value);
        }
    }
    finished
}

struct Compiler {
    /// Of each node.
    places: Vec<Place>,
    code: Vec<Instruction<Place>>,
    constants: Vec<Number>,
    scratch: Registers,
    uniform: Vec<(KernelOp, [Place; 4])>,
}

impl Compiler {
    /// Whether `node` is made of numbers only.
    fn is_uniform(&self, node: &Node) -> bool {
        let is_number = |arg: &Arg| match *arg {
            Arg::Node(node) => matches!(self.places[node as usize], Place::Uniform(_)),
            Arg::Array(_) => false,
            Arg::Number(_) | Arg::Constant(_) | Arg::Absent => true,
        };
        node.args.iter().all(is_number)
    }

    fn compute(&mut self, node: &Node, to: Place) {
        let instruction = match (node.op, node.args) {
            (KernelOp::Expand { rows }, [Arg::Array(array), ..]) => {
                Instruction::Expand { array, rows, to }
            }
            (KernelOp::Expand { .. }, _) => unreachable!("what is expanded lies in memory"),
            (op, args) => Instruction::Compute { op, args: args.map(|arg| self.place(arg)), to },
        };
        self.code.push(instruction);
    }

    fn reduce(&mut self, result: Output, into: u32) {
        let instruction = match result {
            Output::Reduce { op, rows, value } => {
                Instruction::Reduce { op, rows, value: self.place(value), into }
            }
            Output::Dot { rows, a, b } => {
                Instruction::Dot { rows, a: self.place(a), b: self.place(b), into }
            }
            Output::Store { .. } => unreachable!("not a reduction"),
        };
        self.code.push(instruction);
    }

    fn place(&mut self, arg: Arg) -> Place {
        match arg {
            Arg::Node(node) => self.places[node as usize],
            Arg::Array(array) => Place::Array(array),
            Arg::Number(number) => Place::Number(number),
            Arg::Constant(number) => {
                let known = self.constants.iter().position(|&c| c == number);
                let at = known.unwrap_or_else(|| {
                    self.constants.push(number);
                    self.constants.len() - 1
                });
                Place::Constant(at as u32)
            }
            Arg::Absent => Place::Nowhere,
        }
    }

    fn finish(self, kernel: &Kernel, stores: u32) -> Program {
        let scratch = self.scratch.count;
        let arrays = scratch + stores;
        let numbers = arrays + kernel.arrays;
        let constants = numbers + kernel.numbers;
        let uniform = constants + self.constants.len() as u32;
        let slot = |place| match place {
            Place::Scratch(register) => register,
            Place::Stored(store) => scratch + store,
            Place::Array(array) => arrays + array,
            Place::Number(number) => numbers + number,
            Place::Constant(constant) => constants + constant,
            Place::Uniform(number) => uniform + number,
            Place::Nowhere => 0,
        };
        let code = self.code.into_iter().map(|instruction| match instruction {
            Instruction::Compute { op, args, to } => {
                let given = args.map(|arg| if arg == Place::Nowhere { args[0] } else { arg });
                Instruction::Compute { op, args: given.map(slot), to: slot(to) }
            }
            Instruction::Expand { array, rows, to } => {
                Instruction::Expand { array, rows, to: slot(to) }
            }
            Instruction::Reduce { op, rows, value, into } => {
                Instruction::Reduce { op, rows, value: slot(value), into }
            }
            Instruction::Dot { rows, a, b, into } => {
                Instruction::Dot { rows, a: slot(a), b: slot(b), into }
            }
        });
        Program {
            code: code.collect(),
            scratch: scratch as usize,
            stores: stores as usize,
            constants: self.constants,
            uniform: self.uniform.into_iter().map(|(op, args)| (op, args.map(slot))).collect(),
        }
    }
}

/// Registers by linear scan: the one that was given back last is taken first, as it is warmest.
#[derive(Default)]
struct Registers {
    free: Vec<u32>,
    count: u32,
}

impl Registers {
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        })
    }

    fn give(&mut self, register: u32) {
        self.free.push(register);
    }
}
