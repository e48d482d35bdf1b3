use candle_core::{Device, Tensor};

use crate::autobatch::autobatch;
use crate::calculus::driver::differentiate;
use crate::calculus::gradients::{Gradients, Values};
use crate::diagnose::non_finite;
use crate::error::{Error, Loc, Result};
use crate::exec;
use crate::graph::caller::attribute;
use crate::graph::element::{Element, Floats};
use crate::graph::var::Var;
use crate::graph::walk::Graph;

impl Var {
    /// Evaluates this scalar and its gradient with respect to each of `wrt`, in one go.
    ///
    /// Errors: an op that could not be recorded; [`Error::NotScalar`]; [`Error::Unused`] for a leaf
    /// that the root does not depend on, which is never silently zero. [`Backward`] has the
    /// options.
    ///
    /// ```
    /// # use tinsmith_grad::{Device, Error, Var};
    /// let x = Var::from_vec(vec![3f64], &[1], &Device::Cpu);
    /// let y = Var::from_vec(vec![4f64], &[1], &Device::Cpu);
    /// let loss = (&x * &y).sum();
    /// let grads = loss.backward(&[&x, &y])?;
    /// assert_eq!(grads.value(), 12.0);
    /// assert_eq!(grads[0].to_vec1::<f64>()?, [4.0]);
    /// assert!(matches!(x.sum().backward(&[&y]), Err(Error::Unused { index: 0, .. })));
    /// # anyhow::Ok(())
    /// ```
    pub fn backward(&self, wrt: &[&Var]) -> Result<Gradients> {
        Backward::new(self).run(wrt)
    }
}

/// The gradients of the scalar `root` with respect to `wrt`, as `Var`s: lazy, and differentiable in
/// turn.
///
/// Errors as [`Var::backward`].
///
/// ```
/// # use tinsmith_grad::{Device, Var, grad};
/// let x = Var::from_vec(vec![2f64], &[1], &Device::Cpu);
/// let slope = &grad(&x.powf(3.0).sum(), &[&x])?[0]; // 3 x²
/// let curvature = &grad(&slope.sum(), &[&x])?[0]; // 6 x
/// assert_eq!(curvature.to_vec::<f64>()?, [12.0]);
/// # anyhow::Ok(())
/// ```
pub fn grad(root: &Var, wrt: &[&Var]) -> Result<Vec<Var>> {
    Backward::new(root).record(wrt)
}

/// A backward pass with options; [`Var::backward`] is the one without.
///
/// ```
/// # use tinsmith_grad::{Backward, Device, Var};
/// let x = Var::from_vec(vec![1f64, 2.0], &[2], &Device::Cpu);
/// let unused = Var::from_vec(vec![0f64], &[1], &Device::Cpu);
/// let loss = x.square().sum();
/// let largest = x.max();
/// let grads = Backward::new(&loss).allow_unused().aux(&[&largest]).run(&[&x, &unused])?;
/// assert_eq!(grads[1].to_vec1::<f64>()?, [0.0]);
/// assert_eq!(grads.aux()[0].to_scalar::<f64>()?, 2.0);
/// # anyhow::Ok(())
/// ```
#[derive(Debug)]
#[must_use = "call run"]
pub struct Backward<'a> {
    root: &'a Var,
    seed: Option<&'a Var>,
    allow_unused: bool,
    check_finite: bool,
    aux: Vec<&'a Var>,
}

impl<'a> Backward<'a> {
    /// Differentiates `root`.
    pub fn new(root: &'a Var) -> Self {
        Backward { root, seed: None, allow_unused: false, check_finite: false, aux: Vec::new() }
    }

    /// The gradient of the root itself, in the root's shape and dtype; with it the root need not be
    /// a scalar. Default: 1.
    pub fn seed(mut self, seed: &'a Var) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Zeros for a leaf that the root does not depend on, in place of [`Error::Unused`].
    pub fn allow_unused(mut self) -> Self {
        self.allow_unused = true;
        self
    }

    /// [`Error::NonFinite`] if the loss or a gradient is NaN or infinite, naming the op where it
    /// began. Costs a second evaluation, and only in that case.
    pub fn check_finite(mut self) -> Self {
        self.check_finite = true;
        self
    }

    /// Evaluates these too, metrics say, sharing the work with the loss; see [`Gradients::aux`].
    pub fn aux(mut self, roots: &[&'a Var]) -> Self {
        self.aux.extend(roots);
        self
    }

    /// Evaluates.
    pub fn run(self, wrt: &[&Var]) -> Result<Gradients> {
        let (values, grads) = self.evaluate(wrt, wrt.iter().map(|_| None).collect())?;
        let grads: Vec<Tensor> = grads.into_iter().flatten().collect();
        let at = self.root.0.at;
        if self.check_finite && !(values.is_finite(at)? && non_finite::all_finite(&grads, at)?) {
            self.blame(wrt, &values, grads.clone())?;
        }
        Ok(Gradients { values, grads })
    }

    /// Evaluates, and writes the gradients, row-major, to buffers that may be used again in the
    /// next step: taking fresh memory of a few megabytes can cost more than computing what goes
    /// there. One buffer for each of `wrt`, with as many elements as it, of its dtype.
    ///
    /// Errors, beside those of [`run`](Backward::run): [`Error::Argument`] for a buffer too many or
    /// too few, or of another size; [`Error::DType`]. Then the buffers are as they were; after an
    /// error of the evaluation their content is undefined.
    ///
    /// ```
    /// # use tinsmith_grad::{Backward, Device, Var};
    /// let mut gradient = vec![0f32; 3];
    /// for step in 0..2 {
    ///     let x = Var::from_vec(vec![1f32, 2.0, step as f32], &[3], &Device::Cpu);
    ///     let loss = x.square().sum();
    ///     let values = Backward::new(&loss).run_into(&[&x], &mut [&mut gradient])?;
    ///     assert_eq!(values.value(), 5.0 + (step * step) as f64);
    ///     assert_eq!(gradient, [2.0, 4.0, 2.0 * step as f32]);
    /// }
    /// # anyhow::Ok(())
    /// ```
    pub fn run_into<T: Element>(self, wrt: &[&Var], into: &mut [&mut [T]]) -> Result<Values> {
        let at = self.root.0.at;
        check_buffers(wrt, into, at)?;
        let places = into.iter_mut().map(|buffer| T::floats(buffer)).collect();
        let (values, _) = self.evaluate(wrt, places)?;
        let is_finite = |buffer: &&mut [T]| buffer.iter().all(|x| x.to_f64().is_finite());
        if self.check_finite && !(values.is_finite(at)? && into.iter().all(is_finite)) {
            let tensor = |(leaf, buffer): (&&Var, &&mut [T])| {
                Tensor::from_slice(buffer, leaf.shape(), &Device::Cpu)
            };
            let grads = wrt.iter().zip(into.iter()).map(tensor).collect::<candle_core::Result<_>>();
            let grads = grads.map_err(|e| Error::backend("run_into", e, at))?;
            self.blame(wrt, &values, grads)?;
        }
        Ok(values)
    }

    /// The values of the root and of what else was asked for, and the gradients that have no place
    /// in `into`.
    fn evaluate(
        &self,
        wrt: &[&Var],
        mut into: Vec<Option<Floats>>,
    ) -> Result<(Values, Vec<Option<Tensor>>)> {
        let recorded: Vec<&Var> = [self.root].into_iter().chain(self.aux.iter().copied()).collect();
        exec::no_error(&recorded)?;
        let graph = Graph::reaching(recorded.iter().copied());
        let (positions, leaves) = (graph.positions(&recorded), graph.positions(wrt));
        let request = exec::Request {
            graph: &graph,
            roots: &positions,
            wrt: &leaves,
            allow_unused: self.allow_unused,
        };
        let make = || {
            let batched = autobatch(&graph, &positions, &leaves);
            let roots: Vec<&Var> = match &batched {
                Some(batched) => batched.iter().collect(),
                None => recorded.clone(),
            };
            let grads = match &batched {
                None => self.gradients(&graph, self.root, wrt)?,
                Some(_) => self.gradients(&Graph::reaching([roots[0]]), roots[0], wrt)?,
            };
            Ok(roots.into_iter().cloned().chain(grads).collect())
        };
        into.splice(0..0, recorded.iter().map(|_| None));
        let mut aux = match self.seed.is_none() && leaves.len() == wrt.len() {
            true => exec::run_kept(&request, into, make)?,
            false => {
                let made = make()?;
                let roots: Vec<&Var> = made.iter().collect();
                exec::run_into(&exec::graph_of(&roots)?, &roots, into)?
            }
        };
        let grads = aux.split_off(recorded.len());
        let mut aux: Vec<Tensor> = aux.into_iter().flatten().collect();
        let root = aux.remove(0);
        Ok((Values { root, aux }, grads))
    }

    /// The error for values that are not all finite: found in the graph as recorded, so that the
    /// culprit is one of the user's ops.
    fn blame(&self, wrt: &[&Var], values: &Values, grads: Vec<Tensor>) -> Result<()> {
        let recorded = self.record(wrt)?;
        let roots: Vec<&Var> = [self.root].into_iter().chain(&recorded).collect();
        let tensors: Vec<Tensor> = [values.root.clone()].into_iter().chain(grads).collect();
        non_finite::blame(&roots, &tensors)
    }

    /// The gradients as `Var`s, not evaluated.
    pub(crate) fn record(&self, wrt: &[&Var]) -> Result<Vec<Var>> {
        self.gradients(&Graph::reaching([self.root]), self.root, wrt)
    }

    /// The gradients of `root`, which is this pass's root or computes the same. `graph` leads to
    /// it, and maybe to more.
    fn gradients(&self, graph: &Graph, root: &Var, wrt: &[&Var]) -> Result<Vec<Var>> {
        exec::no_error(&[self.root])?;
        if let Some(error) = self.seed.and_then(|seed| seed.error()) {
            return Err(error.clone());
        }
        let found = differentiate(graph, root, &self.seed_or_one()?, wrt);
        wrt.iter()
            .zip(found)
            .enumerate()
            .map(|(index, (leaf, found))| match found {
                Some(g) => g.error().cloned().map_or(Ok(g.clone()), Err),
                None if leaf.error().is_some() => Err(leaf.error().expect("just seen").clone()),
                None if self.allow_unused => Ok(leaf.full_like(0.0)),
                None => Err(Error::Unused {
                    index,
                    label: leaf.label_text(),
                    shape: leaf.shape().to_vec(),
                    at: leaf.0.at,
                }),
            })
            .collect()
    }

    fn seed_or_one(&self) -> Result<Var> {
        let root = self.root;
        let at = root.0.at;
        match self.seed {
            Some(seed) if seed.shape() != root.shape() => Err(Error::Shape {
                op: "backward",
                shapes: vec![root.shape().to_vec(), seed.shape().to_vec()],
                why: "of root and seed differ".into(),
                at,
            }),
            Some(seed) if seed.dtype() != root.dtype() => Err(Error::DType {
                op: "backward",
                dtypes: vec![root.dtype(), seed.dtype()],
                why: "root and seed must have one dtype",
                at,
            }),
            Some(seed) => Ok(seed.clone()),
            None if root.elem_count() == 1 => Ok(attribute(at, || root.full_like(1.0))),
            None => {
                Err(Error::NotScalar { op: root.0.op.name(), shape: root.shape().to_vec(), at })
            }
        }
    }
}

fn check_buffers<T: Element>(wrt: &[&Var], into: &[&mut [T]], at: Loc) -> Result<()> {
    if wrt.len() != into.len() {
        let why = format!("{} buffers for {} gradients", into.len(), wrt.len());
        return Err(Error::Argument { op: "run_into", why, at });
    }
    for (index, (leaf, buffer)) in wrt.iter().zip(into).enumerate() {
        if leaf.elem_count() != buffer.len() {
            let why = format!(
                "buffer {index} has {} elements, and its leaf of shape {:?} has {}",
                buffer.len(),
                leaf.shape(),
                leaf.elem_count()
            );
            return Err(Error::Argument { op: "run_into", why, at });
        }
        if leaf.dtype() != T::DTYPE || !leaf.is_float() {
            return Err(Error::DType {
                op: "run_into",
                dtypes: vec![leaf.dtype(), T::DTYPE],
                why: "of a leaf and its buffer must be the same, f32 or f64",
                at,
            });
        }
    }
    Ok(())
}
