//! A kernel's code: a linear program over registers that each hold one block of elements and stay in L1.

use rustc_hash::FxHashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::compile::compile;
use crate::exec::math::Then;
use crate::graph::op::{BinaryOp, CompareOp, Number, ReduceOp, UnaryOp};

/// A kernel in single-assignment form, free of lengths and addresses: what programs are cached by. Node i is the i-th
/// value; arrays, numbers, rows and outputs are named by their position in the kernel's binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Kernel {
    pub(super) nodes: Vec<Node>,
    pub(super) results: Vec<Outcome>,
    /// How many arrays and numbers there are.
    pub(super) arrays: u32,
    pub(super) numbers: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) op: KernelOp,
    pub(super) args: [Arg; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum KernelOp {
    Copy,
    Unary(UnaryOp),
    Binary(BinaryOp),
    Compare(CompareOp),
    Select,
    /// `args[0] op args[1] ? then(args[2]) : args[3]` for a comparison.
    Choose(CompareOp, Then),
    /// Array `args[0]`, one element a row, to all elements of the rows.
    Expand {
        rows: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Arg {
    Node(u32),
    Array(u32),
    Number(u32),
    Constant(Number),
    Absent,
}

/// What a kernel leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    Store {
        value: Arg,
    },
    Reduce {
        op: ReduceOp,
        rows: u32,
        value: Arg,
    },
    /// The sums of `a * b`.
    Dot {
        rows: u32,
        a: Arg,
        b: Arg,
    },
}

/// The code: instructions over slots. Slots hold blocks of scratch memory first, then blocks of the stored outputs, of the
/// arrays, and after these the numbers and constants.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) code: Vec<Instruction>,
    pub(super) scratch: usize,
    pub(super) stores: usize,
    pub(super) constants: Vec<Number>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Instruction<Slot = u32> {
    /// Operands that the op does not have are slot 0.
    Compute {
        op: KernelOp,
        args: [Slot; 4],
        to: Slot,
    },
    /// An array with one element a row, to all elements of the rows.
    Expand { array: u32, rows: u32, to: Slot },
    Reduce {
        op: ReduceOp,
        rows: u32,
        value: Slot,
        into: u32,
    },
    Dot {
        rows: u32,
        a: Slot,
        b: Slot,
        into: u32,
    },
}

/// The program for `kernel`, compiled when this structure is met for the first time.
pub(super) fn compiled(kernel: &Kernel) -> Arc<Program> {
    static CACHE: LazyLock<Mutex<FxHashMap<Kernel, Arc<Program>>>> = LazyLock::new(Mutex::default);
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

impl Node {
    pub(super) fn new(op: KernelOp, operands: &[Arg]) -> Node {
        let mut args = [Arg::Absent; 4];
        args[..operands.len()].copy_from_slice(operands);
        Node { op, args }
    }

    pub(super) fn binary(op: BinaryOp, a: Arg, b: Arg) -> Node {
        Node::new(KernelOp::Binary(op), &[a, b])
    }

    pub(super) fn with(&self, f: impl Fn(Arg) -> Arg) -> Node {
        Node {
            op: self.op,
            args: self.args.map(f),
        }
    }
}

impl Outcome {
    pub(super) fn values(self) -> impl Iterator<Item = Arg> {
        let (value, other) = match self {
            Outcome::Store { value } | Outcome::Reduce { value, .. } => (value, None),
            Outcome::Dot { a, b, .. } => (a, Some(b)),
        };
        std::iter::once(value).chain(other)
    }

    pub(super) fn with(self, f: impl Fn(Arg) -> Arg) -> Outcome {
        match self {
            Outcome::Store { value } => Outcome::Store { value: f(value) },
            Outcome::Reduce { op, rows, value } => Outcome::Reduce {
                op,
                rows,
                value: f(value),
            },
            Outcome::Dot { rows, a, b } => Outcome::Dot {
                rows,
                a: f(a),
                b: f(b),
            },
        }
    }
}
