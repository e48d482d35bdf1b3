//! A kernel's code: a linear program over registers that each hold one block of elements and stay in L1.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::vmath::{Binary, Unary};
use crate::op::ReduceOp;

/// A kernel in single-assignment form, free of lengths and addresses: what programs are cached by. Node i is the i-th
/// value; arrays, numbers, rows and outputs are named by their position in the kernel's binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Kernel {
    pub(super) nodes: Vec<Node>,
    pub(super) results: Vec<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) op: KernelOp,
    pub(super) args: [Arg; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum KernelOp {
    Copy,
    Unary(Unary),
    Binary(Binary),
    Select,
    /// `args[0] op args[1] ? args[2] : args[3]` for a comparison.
    Choose(Binary),
    /// Bounds as bits of an f64.
    Clamp {
        lo: u64,
        hi: u64,
    },
    /// Array `args[0]`, one element a row, to all elements of the rows.
    Expand {
        rows: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Arg {
    Node(u32),
    Array(u32),
    Number(u32),
    /// As bits of an f64.
    Constant(u64),
    Absent,
}

/// What a kernel leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    Store { value: Arg },
    Reduce { op: ReduceOp, rows: u32, value: Arg },
}

/// The code: instructions over registers. Registers `0..scratch` are blocks of scratch memory, the ones after them blocks
/// of the stored outputs, in the order of the stores.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) code: Vec<Instruction>,
    pub(super) scratch: usize,
    pub(super) stores: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Instruction {
    Compute {
        op: KernelOp,
        args: [Source; 4],
        to: u32,
    },
    Reduce {
        op: ReduceOp,
        rows: u32,
        value: Source,
        into: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Source {
    Register(u32),
    Array(u32),
    Number(u32),
    Constant(f64),
    Absent,
}

/// The program for `kernel`, compiled when this structure is met for the first time.
pub(super) fn compiled(kernel: &Kernel) -> Arc<Program> {
    static CACHE: LazyLock<Mutex<HashMap<Kernel, Arc<Program>>>> = LazyLock::new(Mutex::default);
    /// Far more structures than a training loop has; a program that is met only once must not pile up.
    const MOST: usize = 4096;

    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = cache.get(kernel) {
        return program.clone();
    }
    if cache.len() == MOST {
        cache.clear();
    }
    let program = Arc::new(compile(kernel));
    cache.insert(kernel.clone(), program.clone());
    program
}

fn compile(kernel: &Kernel) -> Program {
    let (nodes, values) = simplified(kernel);
    let results: Vec<Outcome> = kernel
        .results
        .iter()
        .map(|r| r.with(|arg| renamed(arg, &values)))
        .collect();

    // A value that is stored is computed where it is to lie.
    let mut home: Vec<Option<u32>> = vec![None; nodes.len()];
    let mut last_use = vec![0; nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        node.args
            .iter()
            .filter_map(node_of)
            .for_each(|arg| last_use[arg] = i);
    }
    let mut stores = 0;
    let mut reductions = 0;
    let mut copies = Vec::new();
    let mut reduces: Vec<Vec<(ReduceOp, u32, u32)>> = vec![Vec::new(); nodes.len()];
    let mut reduces_of_inputs = Vec::new();
    for result in &results {
        match *result {
            Outcome::Store { value } => {
                match node_of(&value) {
                    Some(node) if home[node].is_none() => home[node] = Some(stores),
                    _ => copies.push((value, stores)),
                }
                stores += 1;
            }
            Outcome::Reduce { op, rows, value } => {
                match node_of(&value) {
                    Some(node) => reduces[node].push((op, rows, reductions)),
                    None => reduces_of_inputs.push((op, rows, value, reductions)),
                }
                reductions += 1;
            }
        }
    }
    for (value, _) in &copies {
        node_of(value)
            .into_iter()
            .for_each(|node| last_use[node] = usize::MAX);
    }

    let mut registers = Registers::default();
    let mut place: Vec<u32> = vec![0; nodes.len()];
    let mut code = Vec::with_capacity(nodes.len() + results.len());
    // Stored outputs are numbered after the scratch registers, whose number is known at the end.
    const STORED: u32 = 1 << 31;
    let source = |arg: &Arg, place: &[u32]| match *arg {
        Arg::Node(node) => Source::Register(place[node as usize]),
        Arg::Array(array) => Source::Array(array),
        Arg::Number(number) => Source::Number(number),
        Arg::Constant(bits) => Source::Constant(f64::from_bits(bits)),
        Arg::Absent => Source::Absent,
    };
    for (i, node) in nodes.iter().enumerate() {
        // Taken before the operands' registers are free, so that no instruction writes what it reads.
        let to = home[i].map_or_else(|| registers.take(), |output| STORED | output);
        place[i] = to;
        code.push(Instruction::Compute {
            op: node.op,
            args: node.args.map(|arg| source(&arg, &place)),
            to,
        });
        for &(op, rows, into) in &reduces[i] {
            code.push(Instruction::Reduce {
                op,
                rows,
                value: Source::Register(to),
                into,
            });
        }
        let mut finished: Vec<usize> = node
            .args
            .iter()
            .filter_map(node_of)
            .filter(|&arg| last_use[arg] == i)
            .collect();
        finished.dedup();
        finished.sort_unstable();
        finished.dedup();
        if last_use[i] <= i {
            finished.push(i); // read by reductions and stores only
        }
        finished
            .into_iter()
            .filter(|&value| home[value].is_none())
            .for_each(|value| registers.give(place[value]));
    }
    for (op, rows, value, into) in reduces_of_inputs {
        code.push(Instruction::Reduce {
            op,
            rows,
            value: source(&value, &place),
            into,
        });
    }
    for (value, output) in copies {
        let args = [
            source(&value, &place),
            Source::Absent,
            Source::Absent,
            Source::Absent,
        ];
        code.push(Instruction::Compute {
            op: KernelOp::Copy,
            args,
            to: STORED | output,
        });
    }

    let scratch = registers.count;
    let number = |register: u32| {
        if register & STORED == 0 {
            register
        } else {
            scratch + (register & !STORED)
        }
    };
    let numbered = |source: Source| match source {
        Source::Register(register) => Source::Register(number(register)),
        other => other,
    };
    for instruction in &mut code {
        match instruction {
            Instruction::Compute { args, to, .. } => {
                *args = args.map(numbered);
                *to = number(*to);
            }
            Instruction::Reduce { value, .. } => *value = numbered(*value),
        }
    }
    Program {
        code,
        scratch: scratch as usize,
        stores: stores as usize,
    }
}

/// Equal nodes are computed once: derivatives repeat much of what the forward pass has. A selection by a comparison is one
/// node, and what nobody needs then is left out. Gives the nodes that remain, and for each old node the new one.
fn simplified(kernel: &Kernel) -> (Vec<Node>, Vec<Arg>) {
    let mut seen: HashMap<Node, u32> = HashMap::new();
    let mut nodes: Vec<Node> = Vec::new();
    let mut values = Vec::with_capacity(kernel.nodes.len());
    for node in &kernel.nodes {
        let node = chosen(
            Node {
                op: node.op,
                args: node.args.map(|arg| renamed(arg, &values)),
            },
            &nodes,
        );
        values.push(match node.op {
            KernelOp::Copy if node_of(&node.args[0]).is_some() => node.args[0],
            _ => Arg::Node(*seen.entry(node).or_insert_with(|| {
                nodes.push(node);
                nodes.len() as u32 - 1
            })),
        });
    }

    let mut is_needed = vec![false; nodes.len()];
    let results = kernel
        .results
        .iter()
        .map(|result| renamed(result.value(), &values));
    results
        .filter_map(|value| node_of(&value))
        .for_each(|node| is_needed[node] = true);
    for at in (0..nodes.len()).rev() {
        if is_needed[at] {
            nodes[at]
                .args
                .iter()
                .filter_map(node_of)
                .for_each(|arg| is_needed[arg] = true);
        }
    }
    let mut place = vec![Arg::Absent; nodes.len()];
    let mut kept = Vec::with_capacity(nodes.len());
    for (at, node) in nodes
        .into_iter()
        .enumerate()
        .filter(|(at, _)| is_needed[*at])
    {
        place[at] = Arg::Node(kept.len() as u32);
        kept.push(Node {
            op: node.op,
            args: node.args.map(|arg| renamed(arg, &place)),
        });
    }
    let values = values
        .into_iter()
        .map(|value| renamed(value, &place))
        .collect();
    (kept, values)
}

fn renamed(arg: Arg, values: &[Arg]) -> Arg {
    match arg {
        Arg::Node(node) => values[node as usize],
        other => other,
    }
}

fn node_of(arg: &Arg) -> Option<usize> {
    match arg {
        Arg::Node(node) => Some(*node as usize),
        _ => None,
    }
}

/// `node`, or the choice that it is, if it selects by a comparison of arrays.
fn chosen(node: Node, nodes: &[Node]) -> Node {
    if let (KernelOp::Select, Some(mask)) = (node.op, node_of(&node.args[0]))
        && let Node {
            op: KernelOp::Binary(op),
            args: [a @ (Arg::Node(_) | Arg::Array(_)), b, ..],
        } = nodes[mask]
        && op.is_comparison()
    {
        return Node {
            op: KernelOp::Choose(op),
            args: [a, b, node.args[1], node.args[2]],
        };
    }
    node
}

impl Outcome {
    fn value(self) -> Arg {
        match self {
            Outcome::Store { value } | Outcome::Reduce { value, .. } => value,
        }
    }

    fn with(self, f: impl Fn(Arg) -> Arg) -> Outcome {
        match self {
            Outcome::Store { value } => Outcome::Store { value: f(value) },
            Outcome::Reduce { op, rows, value } => Outcome::Reduce {
                op,
                rows,
                value: f(value),
            },
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
