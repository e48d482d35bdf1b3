//! A kernel's code: a linear program over registers that each hold one block of elements and stay
//! in L1.

use crate::exec::math::{Step, Then};
use crate::graph::op::{BinaryOp, CompareOp, Number, ReduceOp, UnaryOp};

/// A kernel in single-assignment form, free of lengths and addresses: what programs are cached by.
/// Node i is the i-th value; arrays, numbers, rows and outputs are named by their position in the
/// kernel's binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Kernel {
    pub(super) nodes: Vec<Node>,
    pub(super) outputs: Vec<Output>,
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
    /// `(args[0] first args[1]) second args[2]`
    Pair(Step, Step),
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
pub(super) enum Output {
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

/// The code: instructions over slots. Slots hold blocks of scratch memory first, then blocks of the
/// stored outputs, of the arrays, and after these the numbers, the constants, and what is computed
/// of them.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) code: Vec<Instruction>,
    pub(super) scratch: usize,
    pub(super) stores: usize,
    pub(super) constants: Vec<Number>,
    /// What is the same for all elements, computed once: the slots after the constants, in this
    /// order.
    pub(super) uniform: Vec<(KernelOp, [u32; 4])>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Instruction<Slot = u32> {
    /// Operands that the op does not have are its first.
    Compute {
        op: KernelOp,
        args: [Slot; 4],
        to: Slot,
    },
    /// An array with one element a row, to all elements of the rows.
    Expand {
        array: u32,
        rows: u32,
        to: Slot,
    },
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

impl Arg {
    pub(super) fn node(self) -> Option<usize> {
        match self {
            Arg::Node(node) => Some(node as usize),
            Arg::Array(_) | Arg::Number(_) | Arg::Constant(_) | Arg::Absent => None,
        }
    }
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
        Node { op: self.op, args: self.args.map(f) }
    }
}

impl Output {
    pub(super) fn values(self) -> impl Iterator<Item = Arg> {
        let (value, other) = match self {
            Output::Store { value } | Output::Reduce { value, .. } => (value, None),
            Output::Dot { a, b, .. } => (a, Some(b)),
        };
        std::iter::once(value).chain(other)
    }

    pub(super) fn with(self, f: impl Fn(Arg) -> Arg) -> Output {
        match self {
            Output::Store { value } => Output::Store { value: f(value) },
            Output::Reduce { op, rows, value } => Output::Reduce { op, rows, value: f(value) },
            Output::Dot { rows, a, b } => Output::Dot { rows, a: f(a), b: f(b) },
        }
    }
}
