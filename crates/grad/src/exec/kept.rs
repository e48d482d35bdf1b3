//! Schedules kept by structure.
//!
//! A training step records the graph of the step before it, on other values. What autobatching,
//! differentiation and planning find for a structure is found once: a schedule refers to the
//! recorded graph by the positions of its leaves only, and a graph that is the same node by node,
//! but for the values of its leaves, goes from recording to execution.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::DType;
use smallvec::SmallVec;

use super::dtype_of;
use super::fused::Plan;
use crate::error::Loc;
use crate::graph::dims::Dims;
use crate::graph::op::Op;
use crate::graph::var::Var;
use crate::graph::walk::Graph;

/// What is asked of a recorded graph.
pub(crate) struct Request<'a> {
    pub(crate) graph: &'a Graph<'a>,
    /// Positions of the roots.
    pub(crate) roots: &'a [usize],
    /// Positions of the nodes whose gradients are wanted.
    pub(crate) wrt: &'a [usize],
    /// Whether one of them may have no gradient.
    pub(crate) allow_unused: bool,
}

/// A plan, and where the values of its leaves come from.
pub(super) struct Schedule {
    pub(super) plan: Plan,
    pub(super) dtype: DType,
    leaves: Vec<Source>,
}

enum Source {
    /// The node at this position of the recorded graph.
    Recorded(usize),
    /// Made by autobatching: indices, and numbers of the graph as a vector.
    Made(Var),
}

/// All that a schedule depends on.
struct Structure {
    nodes: Vec<Node>,
    roots: Vec<usize>,
    wrt: Vec<usize>,
    allow_unused: bool,
}

/// A structure and its schedule.
struct Kept {
    fingerprint: u64,
    structure: Structure,
    schedule: Arc<Schedule>,
}

struct Node {
    /// With every parameter; `None` for a leaf, whose values do not matter.
    op: Option<Op>,
    inputs: SmallVec<[u32; 3]>,
    shape: Dims,
    dtype: DType,
    /// Errors name it.
    at: Loc,
}

struct Cache {
    /// The one that was used last comes first.
    kept: Vec<Kept>,
    /// Fingerprints of structures that were planned. One that is met for the first time may be met
    /// never again, as when lengths are others in each step: it is kept when it is met again.
    met: VecDeque<u64>,
}

/// More structures than a training loop has losses, and metrics.
const MOST: usize = 32;
/// Nodes of all of them together, of some 200 bytes each.
const MOST_NODES: usize = 1 << 20;
const MET: usize = 256;
/// Nodes that a fingerprint looks at.
const SAMPLES: usize = 64;

static CACHE: Mutex<Cache> = Mutex::new(Cache { kept: Vec::new(), met: VecDeque::new() });

impl Request<'_> {
    /// The schedule for a graph of this structure, made by `make` unless one is kept.
    pub(super) fn schedule<E>(
        &self,
        make: impl FnOnce() -> Result<Schedule, E>,
    ) -> Result<Arc<Schedule>, E> {
        let fingerprint = self.fingerprint();
        if let Some(schedule) = self.find(fingerprint) {
            return Ok(schedule);
        }
        let schedule = Arc::new(make()?);
        if self.is_told_by_structure() {
            let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
            if cache.met.contains(&fingerprint) {
                let kept =
                    Kept { fingerprint, structure: self.structure(), schedule: schedule.clone() };
                cache.kept.insert(0, kept);
                let mut nodes = 0;
                cache.kept.retain(|kept| {
                    nodes += kept.structure.nodes.len();
                    nodes <= MOST_NODES
                });
                cache.kept.truncate(MOST);
            } else {
                cache.met.truncate(MET - 1);
                cache.met.push_front(fingerprint);
            }
        }
        Ok(schedule)
    }

    /// Whether the structure tells all that an evaluation does: a custom op's derivative is its own
    /// affair.
    fn is_told_by_structure(&self) -> bool {
        let is_foreign = |var: &&Var| matches!(var.0.op, Op::Custom(_) | Op::Invalid(_));
        !self.graph.nodes.iter().any(is_foreign)
    }

    fn find(&self, fingerprint: u64) -> Option<Arc<Schedule>> {
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |kept: &Kept| kept.fingerprint == fingerprint && self.has(&kept.structure);
        let at = cache.kept.iter().position(is_same)?;
        cache.kept[..=at].rotate_right(1);
        Some(cache.kept[0].schedule.clone())
    }

    /// Tells most structures apart, at little cost. Whether two are the same is for
    /// [`has`](Request::has) to say.
    fn fingerprint(&self) -> u64 {
        let mut mixed = self.graph.len() as u64;
        let mut mix = |x: usize| {
            mixed = (mixed.rotate_left(5) ^ x as u64).wrapping_mul(0x517c_c1b7_2722_0a95);
        };
        for var in self.graph.nodes.iter().step_by(1 + self.graph.len() / SAMPLES) {
            let size = var.shape().first().copied().unwrap_or(0);
            mix(size << 8 | var.shape().len() << 4 | var.0.inputs.len());
            // A loop whose numbers are others in each step is never met again.
            if let Op::Full(number) = var.0.op {
                mix(number.get().to_bits() as usize);
            }
        }
        self.roots.iter().chain(self.wrt).for_each(|&at| mix(at));
        mixed
    }

    fn structure(&self) -> Structure {
        let node = |(at, var): (usize, &&Var)| Node {
            op: match &var.0.op {
                Op::Leaf(_) => None,
                op => Some(op.clone()),
            },
            inputs: self.graph.inputs(at).map(|input| input as u32).collect(),
            shape: var.0.shape.clone(),
            dtype: var.dtype(),
            at: var.0.at,
        };
        Structure {
            nodes: self.graph.nodes.iter().enumerate().map(node).collect(),
            roots: self.roots.to_vec(),
            wrt: self.wrt.to_vec(),
            allow_unused: self.allow_unused,
        }
    }

    /// Whether the structure of this request is `other`.
    fn has(&self, other: &Structure) -> bool {
        let Structure { nodes, roots, wrt, allow_unused } = other;
        let same = |(at, (var, other)): (usize, (&&Var, &Node))| {
            let Node { op, inputs, shape, dtype, at: location } = other;
            let same_op = match (&var.0.op, op) {
                (Op::Leaf(_), None) => true,
                (op, Some(other)) => op == other,
                (_, None) => false,
            };
            same_op
                && var.dtype() == *dtype
                && var.0.shape == *shape
                && var.0.inputs.len() == inputs.len()
                && self.graph.inputs(at).zip(inputs).all(|(input, &other)| input == other as usize)
                && (std::ptr::eq(var.0.at, *location) || var.0.at == *location)
        };
        self.graph.len() == nodes.len()
            && self.roots == roots
            && self.wrt == wrt
            && self.allow_unused == *allow_unused
            && self.graph.nodes.iter().zip(nodes).enumerate().all(same)
    }
}

impl Schedule {
    /// For `roots`, which `graph` leads to and which compute what `recorded` asks for.
    pub(super) fn new(recorded: &Graph, graph: &Graph, roots: &[usize]) -> Schedule {
        let dtype = dtype_of(graph).unwrap_or(DType::F32);
        let plan = Plan::new(graph, roots, dtype);
        let source = |&at: &usize| {
            let var = graph.nodes[at];
            let recorded = recorded.position(var).map(Source::Recorded);
            recorded.unwrap_or_else(|| Source::Made(var.clone()))
        };
        Schedule { leaves: plan.leaves.iter().map(source).collect(), plan, dtype }
    }

    /// The leaves of the plan, for the recorded graph at hand.
    pub(super) fn leaves<'a>(&'a self, recorded: &Graph<'a>) -> Vec<&'a Var> {
        let leaf = |source: &'a Source| match source {
            Source::Recorded(at) => recorded.nodes[*at],
            Source::Made(var) => var,
        };
        self.leaves.iter().map(leaf).collect()
    }
}
