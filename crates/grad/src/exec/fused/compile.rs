//! From a kernel to its program: the order of the instructions, and where each value lies.

use super::program::{Arg, Instruction, Kernel, KernelOp, Node, Outcome, Program};
use super::simplify::simplified;

/// Where a value lies, before the number of slots of each sort is known.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Scratch(u32),
    Stored(u32),
    Array(u32),
    Number(u32),
    Constant(u32),
    Nowhere,
}

pub(super) fn compile(kernel: &Kernel) -> Program {
    let (nodes, results) = simplified(kernel);
    let last_use = last_uses(&nodes);
    let mut compiler = Compiler {
        places: vec![Place::Nowhere; nodes.len()],
        code: Vec::with_capacity(nodes.len() + results.len()),
        constants: Vec::new(),
        scratch: Registers::default(),
    };

    // A value that is stored is computed where it is to lie. One that is stored twice, or is not computed here, is copied.
    let mut copies = Vec::new();
    let stored = results.iter().filter_map(|result| match *result {
        Outcome::Store { value } => Some(value),
        Outcome::Reduce { .. } => None,
    });
    let mut stores = 0;
    for value in stored {
        let place = Place::Stored(stores);
        match node_of(&value) {
            Some(node) if compiler.places[node] == Place::Nowhere => compiler.places[node] = place,
            _ => copies.push((value, place)),
        }
        stores += 1;
    }

    compiler.reduce(&results, |value| node_of(value).is_none());
    for (i, node) in nodes.iter().enumerate() {
        let is_temporary = compiler.places[i] == Place::Nowhere;
        if is_temporary {
            // Taken before the operands' registers are free, so that no instruction writes what it reads.
            compiler.places[i] = Place::Scratch(compiler.scratch.take());
        }
        compiler.compute(node, compiler.places[i]);
        compiler.reduce(&results, |value| node_of(value) == Some(i));

        let is_copied = |value: usize| copies.iter().any(|(copy, _)| node_of(copy) == Some(value));
        let mut finished: Vec<usize> = node.args.iter().filter_map(node_of).collect();
        finished.push(i);
        finished.sort_unstable();
        finished.dedup();
        for value in finished {
            if let (Place::Scratch(register), true) = (compiler.places[value], last_use[value] <= i)
                && !is_copied(value)
            {
                compiler.scratch.give(register);
            }
        }
    }
    for (value, place) in copies {
        let copy = Node {
            op: KernelOp::Copy,
            args: [value, Arg::Absent, Arg::Absent, Arg::Absent],
        };
        compiler.compute(&copy, place);
    }
    compiler.finish(kernel, stores)
}

/// For each node, the last node that reads it, or 0.
fn last_uses(nodes: &[Node]) -> Vec<usize> {
    let mut last_use = vec![0; nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        let operands = node.args.iter().filter_map(node_of);
        operands.for_each(|operand| last_use[operand] = i);
    }
    last_use
}

pub(super) fn node_of(arg: &Arg) -> Option<usize> {
    match arg {
        Arg::Node(node) => Some(*node as usize),
        _ => None,
    }
}

struct Compiler {
    /// Of each node.
    places: Vec<Place>,
    code: Vec<Instruction<Place>>,
    constants: Vec<f64>,
    scratch: Registers,
}

impl Compiler {
    fn compute(&mut self, node: &Node, to: Place) {
        let instruction = match (node.op, node.args) {
            (KernelOp::Expand { rows }, [Arg::Array(array), ..]) => {
                Instruction::Expand { array, rows, to }
            }
            (KernelOp::Expand { .. }, _) => unreachable!("what is expanded lies in memory"),
            (op, args) => Instruction::Compute {
                op,
                args: args.map(|arg| self.place(arg)),
                to,
            },
        };
        self.code.push(instruction);
    }

    /// Adds the reductions of the values that `is_ready` picks.
    fn reduce(&mut self, results: &[Outcome], is_ready: impl Fn(&Arg) -> bool) {
        let mut into = 0;
        for result in results {
            if let Outcome::Reduce { op, rows, value } = *result {
                if is_ready(&value) {
                    let value = self.place(value);
                    self.code.push(Instruction::Reduce {
                        op,
                        rows,
                        value,
                        into,
                    });
                }
                into += 1;
            }
        }
    }

    fn place(&mut self, arg: Arg) -> Place {
        match arg {
            Arg::Node(node) => self.places[node as usize],
            Arg::Array(array) => Place::Array(array),
            Arg::Number(number) => Place::Number(number),
            Arg::Constant(bits) => {
                let known = self.constants.iter().position(|c| c.to_bits() == bits);
                let at = known.unwrap_or_else(|| {
                    self.constants.push(f64::from_bits(bits));
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
        let slot = |place| match place {
            Place::Scratch(register) => register,
            Place::Stored(store) => scratch + store,
            Place::Array(array) => arrays + array,
            Place::Number(number) => numbers + number,
            Place::Constant(constant) => constants + constant,
            Place::Nowhere => 0,
        };
        let code = self.code.into_iter().map(|instruction| match instruction {
            Instruction::Compute { op, args, to } => Instruction::Compute {
                op,
                args: args.map(slot),
                to: slot(to),
            },
            Instruction::Expand { array, rows, to } => Instruction::Expand {
                array,
                rows,
                to: slot(to),
            },
            Instruction::Reduce {
                op,
                rows,
                value,
                into,
            } => Instruction::Reduce {
                op,
                rows,
                value: slot(value),
                into,
            },
        });
        Program {
            code: code.collect(),
            scratch: scratch as usize,
            stores: stores as usize,
            constants: self.constants,
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
