//! Evaluation: a step of its own that sees the whole graph.

#[cfg(test)]
#[path = "../../tests/unit/agreement.rs"]
mod agreement;
mod fused;
mod kept;
mod math;
pub(crate) mod reference;

use candle_core::{DType, Tensor};

pub(crate) use self::kept::Request;
use self::kept::Schedule;
use crate::autobatch::autobatch;
use crate::error::{Error, Result};
use crate::graph::element::{Element, Floats};
use crate::graph::var::Var;
use crate::graph::walk::Graph;

/// Evaluates several `Var`s in one schedule, which shares the work that they have in common.
///
/// ```
/// # use tinsmith_grad::{Device, Var, eval};
/// let x = Var::from_vec(vec![1f64, 3.0], &[2], &Device::Cpu);
/// let e = x.exp();
/// let both = eval(&[&e.sum(), &(&e / e.sum())])?;
/// assert_eq!(both[1].dims(), [2]);
/// # anyhow::Ok(())
/// ```
pub fn eval(roots: &[&Var]) -> Result<Vec<Tensor>> {
    let graph = graph_of(roots)?;
    let positions = graph.positions(roots);
    let request = Request { graph: &graph, roots: &positions, wrt: &[], allow_unused: false };
    let tensors = run_kept(&request, roots.iter().map(|_| None).collect(), || {
        let batched = autobatch(&graph, &positions, &[]);
        Ok(batched.unwrap_or_else(|| roots.iter().map(|&root| root.clone()).collect()))
    })?;
    Ok(tensors.into_iter().flatten().collect())
}

/// Evaluates what `made` gives for a request, as [`run_into`], unless its schedule is known from an
/// earlier request of the same structure.
pub(crate) fn run_kept(
    request: &Request,
    into: Vec<Option<Floats>>,
    make: impl FnOnce() -> Result<Vec<Var>>,
) -> Result<Vec<Option<Tensor>>> {
    let recorded = request.graph;
    let roots = request.roots.iter().map(|&at| recorded.nodes[at]);
    let is_fused = matches!(EXECUTOR.get(), Executor::Fused { .. });
    if !is_fused || dtype_of(recorded).is_none() || !on_cpu(roots) {
        let made = make()?;
        let roots: Vec<&Var> = made.iter().collect();
        return run_into(&graph_of(&roots)?, &roots, into);
    }
    let schedule = request.schedule(|| {
        let made = make()?;
        let roots: Vec<&Var> = made.iter().collect();
        let graph = graph_of(&roots)?;
        Ok(Schedule::new(recorded, &graph, &graph.positions(&roots)))
    })?;
    run_schedule(&schedule, recorded, into)
}

/// Evaluates `roots`, which `graph` leads to, as they are.
pub(crate) fn run(graph: &Graph, roots: &[&Var]) -> Result<Vec<Tensor>> {
    let tensors = run_into(graph, roots, roots.iter().map(|_| None).collect())?;
    Ok(tensors.into_iter().flatten().collect())
}

/// As [`run`], but a root that has a place in `into`, of its dtype and size, is written there and
/// gives no tensor.
pub(crate) fn run_into(
    graph: &Graph,
    roots: &[&Var],
    into: Vec<Option<Floats>>,
) -> Result<Vec<Option<Tensor>>> {
    let positions = graph.positions(roots);
    let is_fused = matches!(EXECUTOR.get(), Executor::Fused { .. });
    if is_fused && dtype_of(graph).is_some() && on_cpu(roots.iter().copied()) {
        return run_schedule(&Schedule::new(graph, graph, &positions), graph, into);
    }
    let tensors = reference::evaluate(graph, &positions, |_, _| Ok(()))?;
    let each = tensors.into_iter().zip(roots).zip(into);
    each.map(|((tensor, root), place)| hand_over(tensor, place).map_err(|e| backend(root, e)))
        .collect()
}

/// What most floats of a graph are.
fn dtype_of(graph: &Graph) -> Option<DType> {
    let first = graph.nodes.iter().find(|var| var.is_float());
    first.map(|var| var.dtype())
}

fn on_cpu<'a>(mut roots: impl Iterator<Item = &'a Var>) -> bool {
    roots.all(|root| root.device().is_cpu())
}

fn run_schedule(
    schedule: &Schedule,
    recorded: &Graph,
    into: Vec<Option<Floats>>,
) -> Result<Vec<Option<Tensor>>> {
    match schedule.dtype {
        DType::F64 => run_fused::<f64>(schedule, recorded, into),
        _ => run_fused::<f32>(schedule, recorded, into),
    }
}

fn run_fused<T: fused::Scalar>(
    schedule: &Schedule,
    recorded: &Graph,
    into: Vec<Option<Floats>>,
) -> Result<Vec<Option<Tensor>>> {
    let threads = match EXECUTOR.get() {
        Executor::Fused { threads } => threads,
        Executor::Reference => 1,
    };
    // Places of the other float dtype are filled from tensors.
    let (mut direct, mut later) = (Vec::with_capacity(into.len()), Vec::with_capacity(into.len()));
    for place in into {
        let (now, rest) = place.map_or((None, None), T::own);
        direct.push(now);
        later.push(rest);
    }
    let leaves = schedule.leaves(recorded);
    let tensors = fused::evaluate::<T>(&schedule.plan, &leaves, threads, direct)?;
    let each = tensors.into_iter().zip(&schedule.plan.roots).zip(later);
    each.map(|((tensor, root), place)| match tensor {
        Some(tensor) => hand_over(tensor, place).map_err(|e| root.backend(e)),
        None => Ok(None),
    })
    .collect()
}

fn hand_over(tensor: Tensor, place: Option<Floats>) -> candle_core::Result<Option<Tensor>> {
    fn fill<T: Element>(place: &mut [T], tensor: &Tensor) -> candle_core::Result<()> {
        place.copy_from_slice(&tensor.flatten_all()?.to_vec1::<T>()?);
        Ok(())
    }
    match place {
        None => return Ok(Some(tensor)),
        Some(Floats::F32(place)) => fill(place, &tensor),
        Some(Floats::F64(place)) => fill(place, &tensor),
    }?;
    Ok(None)
}

/// All that `roots` depend on, or the error that one of them carries.
pub(crate) fn graph_of<'a>(roots: &[&'a Var]) -> Result<Graph<'a>> {
    no_error(roots)?;
    Ok(Graph::reaching(roots.iter().copied()))
}

/// The first error that one of `vars` carries, as such.
pub(crate) fn no_error(vars: &[&Var]) -> Result<()> {
    match vars.iter().find_map(|var| var.error()) {
        Some(error) => Err(error.clone()),
        None => Ok(()),
    }
}

/// Reading values.
impl Var {
    /// The values as a candle tensor, on this `Var`'s device.
    pub fn tensor(&self) -> Result<Tensor> {
        let mut tensors = eval(&[self])?;
        Ok(tensors.pop().expect("one root, one tensor"))
    }

    /// The value of a `Var` with one element, as f64.
    pub fn item(&self) -> Result<f64> {
        let tensor = self.tensor()?;
        number(&tensor).ok_or_else(|| Error::Shape {
            op: "item",
            shapes: vec![self.shape().to_vec()],
            why: "is not one number; reduce it, or read it with to_vec".into(),
            at: self.0.at,
        })
    }

    /// The values, row-major. `T` must be the `Var`'s dtype.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        let tensor = self.tensor()?;
        if T::DTYPE != self.dtype() {
            let why = "the type asked for differs from the dtype; convert with to_dtype";
            return Err(Error::DType {
                op: "to_vec",
                dtypes: vec![T::DTYPE, self.dtype()],
                why,
                at: self.0.at,
            });
        }
        tensor.flatten_all().and_then(|flat| flat.to_vec1()).map_err(|e| backend(self, e))
    }
}

/// How graphs are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executor {
    /// Elementwise chains, reductions and gradients in a few passes over memory, on `threads`
    /// threads. For tensors on the CPU; others go to the reference executor. The results are the
    /// same bits for any number of threads. The default, with one thread.
    Fused {
        /// Each takes 16,384 elements at least; more than one pays from about half a million on.
        threads: usize,
    },
    /// One candle op after another, on any device. What the fused executor is tested against.
    Reference,
}

thread_local! {
    static EXECUTOR: std::cell::Cell<Executor> = const { std::cell::Cell::new(Executor::Fused { threads: 1 }) };
}

/// Runs `f` with every evaluation on this thread done by `executor`.
///
/// ```
/// # use tinsmith_grad::{Device, Executor, Var, with_executor};
/// let x = Var::from_vec(vec![0.5f64, 1.5], &[2], &Device::Cpu);
/// let loss = x.tanh().sum();
/// let fused = loss.item()?;
/// let reference = with_executor(Executor::Reference, || loss.item())?;
/// assert!((fused - reference).abs() < 1e-15);
/// # anyhow::Ok(())
/// ```
pub fn with_executor<R>(executor: Executor, f: impl FnOnce() -> R) -> R {
    struct Restore(Executor);
    impl Drop for Restore {
        fn drop(&mut self) {
            EXECUTOR.set(self.0);
        }
    }
    let _restore = Restore(EXECUTOR.replace(executor));
    f()
}

/// The value of a tensor with one element.
pub(crate) fn number(tensor: &Tensor) -> Option<f64> {
    let one = tensor.reshape(()).ok()?;
    one.to_dtype(DType::F64).ok()?.to_scalar().ok()
}

pub(crate) fn backend(var: &Var, e: candle_core::Error) -> Error {
    Error::backend(var.0.op.name(), e, var.0.at)
}
