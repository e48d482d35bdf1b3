use std::fmt;

use candle_core::DType;

use crate::calculus::backward::Backward;
use crate::error::{Error, Result};
use crate::exec;
use crate::graph::dims::unravel;
use crate::graph::op::Op;
use crate::graph::var::{Inputs, Var};
use crate::graph::walk::Graph;

/// Checks the derivative of `f` at `inputs` against central differences in f64, with the default
/// [`Gradcheck`].
///
/// `f` may return any shape; it is called many times. A wrong derivative is [`Error::Gradcheck`],
/// which names the input, the index, and both values. Inputs should not lie on a kink of `f`, where
/// no difference quotient is right.
///
/// ```
/// use tinsmith_grad::{Device, Gradcheck, Var, gradcheck};
///
/// let logprobs = Var::from_vec(vec![-1.5f64, -0.2, -3.0], &[3], &Device::Cpu);
/// let report = gradcheck(|x| x[0].exp().square().sum(), &[logprobs.clone()])?;
/// assert!(report.max_error < 1e-8);
///
/// // A detached part of the loss is seen as what it is: a derivative that is not there. Unless it is meant.
/// let detached = |x: &[Var]| (&x[0] * x[0].detach()).sum();
/// assert!(gradcheck(detached, &[logprobs.clone()]).is_err());
/// let check = Gradcheck { hold_detached: true, ..Gradcheck::default() };
/// assert_eq!(check.run(detached, &[logprobs])?.compared, 3);
/// # anyhow::Ok(())
/// ```
///
/// A loss of your own is a function of its differentiable inputs; what is constant in it is
/// captured.
///
/// ```
/// use tinsmith_grad::{Device, Ragged, Var, gradcheck};
///
/// /// The mean over sequences of the log-probability of each.
/// fn my_loss(logprobs: &Ragged) -> Var {
///     -logprobs.sum_per_seq().mean()
/// }
///
/// let logprobs = Var::from_vec(vec![-1.5f32, -0.2, -3.0], &[3], &Device::Cpu);
/// let report = gradcheck(|x| my_loss(&Ragged::new(x[0].clone(), &[2, 1])), &[logprobs])?;
/// assert_eq!(report.compared, 3);
/// # anyhow::Ok(())
/// ```
pub fn gradcheck(f: impl Fn(&[Var]) -> Var, inputs: &[Var]) -> Result<GradcheckReport> {
    Gradcheck::default().run(f, inputs)
}

/// The parameters of a gradient check. `Gradcheck::default()` is what
/// [`gradcheck`](crate::gradcheck()) uses.
#[derive(Debug, Clone)]
pub struct Gradcheck {
    /// Half the distance of the two evaluations, relative to max(1, |x|). Default 1e-6.
    pub step: f64,
    /// The greatest allowed |analytic - numeric| / max(1, |analytic|, |numeric|). Default 1e-6.
    pub tolerance: f64,
    /// An input of up to this many elements is checked element by element; a larger one along
    /// random directions, a failing one of which is then traced to an element. Default 64.
    pub exhaustive_up_to: usize,
    /// How many random directions a larger input is checked along. Default 4.
    pub directions: usize,
    /// Of the random numbers: the directions, and the weights that make one number of an output
    /// that is not. Default 0.
    pub seed: u64,
    /// Whether what [`Var::detach`] cuts off is held at its value while the inputs move, which is
    /// what a derivative that takes it for a constant must be compared with. `f` is then called
    /// once. Default false.
    pub hold_detached: bool,
}

impl Default for Gradcheck {
    fn default() -> Self {
        Gradcheck {
            step: 1e-6,
            tolerance: 1e-6,
            exhaustive_up_to: 64,
            directions: 4,
            seed: 0,
            hold_detached: false,
        }
    }
}

/// What a gradient check that passed has seen.
#[derive(Debug, Clone, PartialEq)]
pub struct GradcheckReport {
    /// How many derivatives were compared: elements, and directions of large inputs.
    pub compared: usize,
    /// The greatest error among them, as [`Gradcheck::tolerance`] measures it.
    pub max_error: f64,
}

impl fmt::Display for GradcheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} derivatives agree, the worst to {:.1e}", self.compared, self.max_error)
    }
}

impl Gradcheck {
    /// Checks `f` at `inputs`, which are converted to f64 leaves.
    pub fn run(&self, f: impl Fn(&[Var]) -> Var, inputs: &[Var]) -> Result<GradcheckReport> {
        let points = inputs
            .iter()
            .map(|x| x.to_dtype(DType::F64).to_vec::<f64>())
            .collect::<Result<Vec<_>>>()?;
        let leaves = |points: &[Vec<f64>]| -> Vec<Var> {
            points
                .iter()
                .zip(inputs)
                .map(|(p, x)| Var::from_vec(p.clone(), x.shape(), x.device()))
                .collect()
        };

        let mut random = SplitMix(self.seed);
        let vars = leaves(&points);
        let output = f(&vars);
        let weights: Vec<f64> = match output.elem_count() {
            1 => vec![1.0],
            n => (0..n).map(|_| 0.5 + random.unit()).collect(),
        };
        let weighted = |output: &Var| {
            let weights = Var::from_vec(weights.clone(), output.shape(), output.device());
            (output.to_dtype(DType::F64) * weights).sum()
        };
        let wrt: Vec<&Var> = vars.iter().collect();
        let gradients = Backward::new(&weighted(&output)).allow_unused().run(&wrt)?;
        let held = match self.hold_detached {
            true => Some(Held::new(&output, &vars)?),
            false => None,
        };
        let value = |points: &[Vec<f64>]| {
            let leaves = leaves(points);
            let output = match &held {
                Some(held) => held.at(&leaves),
                None => f(&leaves),
            };
            as_recorded(&weighted(&output))
        };

        let mut report = GradcheckReport { compared: 0, max_error: 0.0 };
        for (input, x) in inputs.iter().enumerate() {
            let analytic = Var::new(gradients[input].clone()).to_vec::<f64>()?;
            let along = |direction: &[f64]| -> Result<(f64, f64)> {
                let scale = points[input]
                    .iter()
                    .zip(direction)
                    .filter(|(_, d)| **d != 0.0)
                    .map(|(p, _)| p.abs());
                let step = self.step * scale.fold(1.0, f64::max);
                let mut moved = points.clone();
                let mut at = |sign: f64| {
                    for ((m, p), d) in moved[input].iter_mut().zip(&points[input]).zip(direction) {
                        *m = p + sign * step * d;
                    }
                    value(&moved)
                };
                let numeric = (at(1.0)? - at(-1.0)?) / (2.0 * step);
                Ok((analytic.iter().zip(direction).map(|(a, d)| a * d).sum(), numeric))
            };
            let describe =
                |index: Option<usize>, (analytic, numeric): (f64, f64)| Error::Gradcheck {
                    op: output.0.op.name(),
                    input,
                    index: index.map(|index| unravel(index, x.shape())),
                    analytic,
                    numeric,
                    at: output.0.at,
                };

            let each_element = |report: &mut GradcheckReport| {
                for index in 0..analytic.len() {
                    let mut direction = vec![0.0; analytic.len()];
                    direction[index] = 1.0;
                    let pair = along(&direction)?;
                    if !report.admit(pair, self.tolerance) {
                        return Err(describe(Some(index), pair));
                    }
                }
                Ok(())
            };

            if analytic.len() <= self.exhaustive_up_to {
                each_element(&mut report)?;
                continue;
            }
            for _ in 0..self.directions {
                let direction: Vec<f64> =
                    analytic.iter().map(|_| if random.unit() < 0.5 { -1.0 } else { 1.0 }).collect();
                let pair = along(&direction)?;
                if report.admit(pair, self.tolerance) {
                    continue;
                }
                each_element(&mut report)?;
                return Err(describe(None, pair));
            }
        }
        Ok(report)
    }
}

/// The value of a scalar by the graph that the user recorded: what the rewriting of loops might get
/// wrong would otherwise be wrong on both sides, and pass.
fn as_recorded(root: &Var) -> Result<f64> {
    exec::no_error(&[root])?;
    let values = exec::run(&Graph::reaching([root]), &[root])?;
    Ok(exec::number(&values[0]).unwrap_or(f64::NAN))
}

/// A graph whose detached parts are constants, to be evaluated at other leaves.
struct Held<'a> {
    graph: Graph<'a>,
    /// Where the leaves stand in the graph; none for one that it does not reach.
    leaves: Vec<Option<usize>>,
    /// The detached nodes and their values.
    constants: Vec<(usize, Var)>,
}

impl<'a> Held<'a> {
    fn new(output: &'a Var, leaves: &[Var]) -> Result<Self> {
        let graph = Graph::reaching([output]);
        let is_detached = |&at: &usize| matches!(graph.nodes[at].0.op, Op::Detach);
        let detached: Vec<usize> = (0..graph.len()).filter(is_detached).collect();
        let vars: Vec<&Var> = detached.iter().map(|&at| graph.nodes[at]).collect();
        let values = exec::run(&Graph::reaching(vars.iter().copied()), &vars)?;
        let values = values.into_iter().map(Var::new);
        Ok(Held {
            leaves: leaves.iter().map(|leaf| graph.position(leaf)).collect(),
            constants: detached.iter().copied().zip(values).collect(),
            graph,
        })
    }

    /// The output at these leaves.
    fn at(&self, leaves: &[Var]) -> Var {
        let mut again: Vec<Option<Var>> = vec![None; self.graph.len()];
        let moved = self.leaves.iter().zip(leaves);
        for (at, leaf) in moved.filter_map(|(at, leaf)| Some(((*at)?, leaf))) {
            again[at] = Some(leaf.clone());
        }
        for (at, value) in &self.constants {
            again[*at] = Some(value.clone());
        }
        for (at, node) in self.graph.nodes.iter().enumerate() {
            if again[at].is_none() {
                let inputs = self.graph.inputs(at);
                let inputs: Inputs = inputs.filter_map(|input| again[input].clone()).collect();
                again[at] = Some(node.on(inputs, node.shape()));
            }
        }
        let output = again.pop().flatten();
        output.expect("the output is the last node of its graph")
    }
}

impl GradcheckReport {
    fn admit(&mut self, (analytic, numeric): (f64, f64), tolerance: f64) -> bool {
        let error = (analytic - numeric).abs() / 1f64.max(analytic.abs()).max(numeric.abs());
        let agrees = error <= tolerance; // false for NaN
        if agrees {
            self.compared += 1;
            self.max_error = self.max_error.max(error);
        }
        agrees
    }
}

/// SplitMix64 (Steele et al., 2014): enough for directions, and the same everywhere.
struct SplitMix(u64);

impl SplitMix {
    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as f64 / 2f64.powi(64)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn point() -> Vec<Var> {
        vec![Var::from_vec(vec![0.5f64, -1.25, 2.0], &[3], &Device::Cpu)]
    }

    fn held() -> Gradcheck {
        Gradcheck { hold_detached: true, ..Gradcheck::default() }
    }

    /// `sg(x²)·sin x` as it is, and with a second part whose whole derivative is cut off.
    #[test]
    fn what_is_detached_is_a_constant_when_it_is_held() {
        let some = |x: &[Var]| (x[0].square().detach() * x[0].sin()).sum();
        assert_eq!(held().run(some, &point()).unwrap().compared, 3);
        assert!(gradcheck(some, &point()).is_err());
        let all = |x: &[Var]| x[0].exp().detach().sum() + 0.0 * x[0].sum();
        held().run(all, &point()).unwrap();
        assert!(gradcheck(all, &point()).is_err());
    }

    /// The straight-through estimator: rounded forward, differentiated as if it were not.
    #[test]
    fn a_derivative_that_is_wrong_apart_from_it_is_found() {
        let through = |x: &[Var]| (&x[0] + (x[0].round() - &x[0]).detach()).square().sum();
        held().run(through, &point()).unwrap();
        let kinked = |x: &[Var]| (x[0].detach() + x[0].round()).sum();
        // A rounding has a derivative of 0 in truth as well; a jump within the step has not.
        let at_a_jump = vec![Var::from_vec(vec![0.5f64], &[1], &Device::Cpu)];
        assert!(held().run(kinked, &at_a_jump).is_err());
    }

    #[test]
    fn a_number_is_compared_as_it_is() {
        let error = gradcheck(|x| (&x[0] * x[0].detach()).sum(), &point()).unwrap_err();
        let words = "the derivative by input 0 at [0] is 0.5 analytically and 1 numerically";
        assert!(error.to_string().ends_with(words), "{error}");
    }
}
