use std::fmt;

use candle_core::DType;

use crate::backward::Backward;
use crate::dims::unravel;
use crate::error::{Error, Result};
use crate::var::Var;

/// Checks the derivative of `f` at `inputs` against central differences in f64, with the default [`Gradcheck`].
///
/// `f` may return any shape; it is called many times. A wrong derivative is [`Error::Gradcheck`], which names the input,
/// the index, and both values. Inputs should not lie on a kink of `f`, where no difference quotient is right.
///
/// ```
/// use tinsmith_grad::{Device, Var, gradcheck};
///
/// let logprobs = Var::from_vec(vec![-1.5f64, -0.2, -3.0], &[3], &Device::Cpu);
/// let report = gradcheck(|x| x[0].exp().square().sum(), &[logprobs.clone()])?;
/// assert!(report.max_error < 1e-8);
///
/// // A detached part of the loss is seen as what it is: a derivative that is not there.
/// assert!(gradcheck(|x| (&x[0] * x[0].detach()).sum(), &[logprobs]).is_err());
/// # anyhow::Ok(())
/// ```
///
/// A loss of your own is a function of its differentiable inputs; what is constant in it is captured.
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

/// The parameters of a gradient check. `Gradcheck::default()` is what [`gradcheck`](crate::gradcheck()) uses.
#[derive(Debug, Clone)]
pub struct Gradcheck {
    /// Half the distance of the two evaluations, relative to max(1, |x|). Default 1e-6.
    pub step: f64,
    /// The greatest allowed |analytic - numeric| / max(1, |analytic|, |numeric|). Default 1e-6.
    pub tolerance: f64,
    /// An input of up to this many elements is checked element by element; a larger one along random directions, a
    /// failing one of which is then traced to an element. Default 64.
    pub exhaustive_up_to: usize,
    /// How many random directions a larger input is checked along. Default 4.
    pub directions: usize,
    /// Of the random numbers: the directions, and the weights that make one number of an output that is not. Default 0.
    pub seed: u64,
}

impl Default for Gradcheck {
    fn default() -> Self {
        Gradcheck {
            step: 1e-6,
            tolerance: 1e-6,
            exhaustive_up_to: 64,
            directions: 4,
            seed: 0,
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
        write!(
            f,
            "{} derivatives agree, the worst to {:.1e}",
            self.compared, self.max_error
        )
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
        let weights: Vec<f64> = (0..output.elem_count())
            .map(|_| 0.5 + random.unit())
            .collect();
        let weighted = |output: &Var| {
            let weights = Var::from_vec(weights.clone(), output.shape(), output.device());
            (output.to_dtype(DType::F64) * weights).sum()
        };
        let wrt: Vec<&Var> = vars.iter().collect();
        let gradients = Backward::new(&weighted(&output)).allow_unused().run(&wrt)?;
        let value = |points: &[Vec<f64>]| weighted(&f(&leaves(points))).item();

        let mut report = GradcheckReport {
            compared: 0,
            max_error: 0.0,
        };
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
                Ok((
                    analytic.iter().zip(direction).map(|(a, d)| a * d).sum(),
                    numeric,
                ))
            };
            let element = |index: usize| {
                let mut direction = vec![0.0; analytic.len()];
                direction[index] = 1.0;
                along(&direction)
            };
            let describe = |index: usize, (a, n): (f64, f64)| {
                let index = unravel(index, x.shape());
                Error::Gradcheck(format!(
                    "{} at {}: the derivative by input {input} at {index:?} is {a} analytically and {n} numerically",
                    output.0.op.name(),
                    output.0.at,
                ))
            };

            if analytic.len() <= self.exhaustive_up_to {
                for index in 0..analytic.len() {
                    let pair = element(index)?;
                    if !report.admit(pair, self.tolerance) {
                        return Err(describe(index, pair));
                    }
                }
                continue;
            }
            for _ in 0..self.directions {
                let direction: Vec<f64> = analytic
                    .iter()
                    .map(|_| if random.unit() < 0.5 { -1.0 } else { 1.0 })
                    .collect();
                let pair = along(&direction)?;
                if report.admit(pair, self.tolerance) {
                    continue;
                }
                for index in 0..analytic.len() {
                    let pair = element(index)?;
                    if !report.admit(pair, self.tolerance) {
                        return Err(describe(index, pair));
                    }
                }
                let (a, n) = pair;
                return Err(Error::Gradcheck(format!(
                    "the derivative by input {input} along a random direction is {a} analytically and {n} numerically, \
                     though each element agrees; the function may be rough at this step"
                )));
            }
        }
        Ok(report)
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
