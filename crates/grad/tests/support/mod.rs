//! Random graphs, tensors to feed them, and the device that tests run on.

use proptest::prelude::*;
use tinsmith_grad::{DType, Device, Ragged, Var, grad};

use table::{binary_ops, compare_ops, reduce_ops, unary_ops};

#[allow(clippy::duplicate_mod, reason = "the crate and its tests expand one table")]
#[path = "../../src/graph/table.rs"]
mod table;

/// Where the tests of ops run: the device that `TINSMITH_TEST_DEVICE` names, `cpu`, `cuda:0` or
/// `metal:0`; the CPU by default.
pub fn device() -> Device {
    let name = std::env::var("TINSMITH_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    let (kind, number) = name.split_once(':').unwrap_or((&name, "0"));
    let number = number.parse().expect("a device's number");
    match kind {
        "cpu" => Device::Cpu,
        "cuda" => Device::new_cuda(number).expect("a CUDA device, and the feature `cuda`"),
        "metal" => Device::new_metal(number).expect("a Metal device"),
        _ => panic!("TINSMITH_TEST_DEVICE={name} is none of cpu, cuda:N, metal:N"),
    }
}

/// Distinct, unremarkable numbers in (-1.5, 1.5), the same for the same seed.
pub fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..count).map(|_| next() * 3.0 - 1.5).collect()
}

pub fn leaf(seed: u64, shape: &[usize]) -> Var {
    Var::from_vec(numbers(seed, shape.iter().product()), shape, &device())
}

/// A graph as data: leaves of some shapes, and steps that each take two earlier values. A step that
/// does not fit the shapes it meets is passed over, so that every value of this type is a graph.
#[derive(Debug, Clone)]
pub struct Program {
    pub shapes: Vec<Vec<usize>>,
    pub seed: u64,
    pub steps: Vec<(u8, u8, u8)>,
}

pub fn programs() -> impl Strategy<Value = Program> {
    let size = prop_oneof![6 => 1usize..4, 1 => Just(0usize)];
    let shapes = prop::collection::vec(prop::collection::vec(size, 0..4), 1..4);
    let steps = prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 1..16);
    (shapes, any::<u64>(), steps).prop_map(|(shapes, seed, steps)| Program { shapes, seed, steps })
}

impl Program {
    pub fn leaves(&self) -> Vec<Var> {
        self.shapes.iter().enumerate().map(|(i, shape)| leaf(self.seed ^ i as u64, shape)).collect()
    }

    /// A scalar in which every value of the program takes part, some of them often.
    pub fn record(&self, leaves: &[Var], ops: &[Step]) -> Var {
        let values = self.values(leaves, ops);
        let parts = values.iter().map(|v| v.sum() / (1.0 + v.elem_count() as f64));
        parts.reduce(|a, b| a + b).expect("a program has a leaf")
    }

    /// The program without the steps that rounding may decide: a comparison of `tanh(tanh(x))` with
    /// `tanh(x)`, both near 0, has one answer in exact numbers and either in f32.
    #[allow(dead_code, reason = "not every test binary uses it")]
    pub fn decided(&self, ops: &[Step]) -> Program {
        let (mut steps, mut pool) = (Vec::new(), self.leaves());
        for &(op, a, b) in &self.steps {
            let (i, j) = (a as usize % pool.len(), b as usize % pool.len());
            let (step, n) = (ops[op as usize % ops.len()], a as usize ^ b as usize);
            if is_decided(step, &pool[i], (i != j).then_some(&pool[j]), n) {
                steps.push((op, a, b));
                let one = Program { steps: vec![(op, a, b)], ..self.clone() };
                pool = one.values(&pool, ops);
            }
        }
        Program { steps, ..self.clone() }
    }

    /// Runs the steps that `ops` knows over `leaves`: those, and what was made of them.
    pub fn values(&self, leaves: &[Var], ops: &[Step]) -> Vec<Var> {
        let mut pool = leaves.to_vec();
        for &(op, a, b) in &self.steps {
            let (x, y) = (&pool[a as usize % pool.len()], &pool[b as usize % pool.len()]);
            let made = ops[op as usize % ops.len()](x, y, a as usize ^ b as usize);
            let is_finite = |v: &Var| {
                let values = v.to_dtype(DType::F64).to_vec::<f64>();
                values.is_ok_and(|values| values.iter().all(|x| x.is_finite()))
            };
            if made.elem_count() < 500 && is_finite(&made) {
                pool.push(made);
            }
        }
        pool
    }
}

/// Whether a step's value and slopes stay about what they are when the numbers that it takes move
/// by about 1e-4, which is more than rounding in f32 moves them: each in its own direction, and so
/// that what is nearly equal becomes equal.
fn is_decided(step: Step, x: &Var, y: Option<&Var>, n: usize) -> bool {
    type Move = fn(f64, f64) -> f64;
    let moves: [Move; 4] = [
        |v, _| v,
        |v, by| v + 1e-4 * by,
        |v, by| v - 1e-4 * by,
        |v, _| (v * 8192.0).round() / 8192.0,
    ];
    let moved = |v: &Var, seed: u64, to: Move| -> Option<Var> {
        let values = v.to_dtype(DType::F64).to_vec::<f64>().ok()?;
        let by = numbers(seed, values.len());
        let moved: Vec<f64> = values.iter().zip(by).map(|(&v, by)| to(v, by)).collect();
        Some(Var::from_vec(moved, v.shape(), v.device()))
    };
    let after = |to: Move| -> Option<Vec<f64>> {
        let x = moved(x, 1, to)?;
        let y = y.map_or_else(|| Some(x.clone()), |y| moved(y, 2, to))?;
        let made = step(&x, &y, n).to_dtype(DType::F64);
        let mut found = made.to_vec::<f64>().ok()?;
        // Without a path to a leaf there is no slope.
        for slopes in grad(&made.sum(), &[&x, &y]).unwrap_or_default() {
            found.extend(slopes.to_vec::<f64>().ok()?);
        }
        Some(found)
    };
    // What does not fit the shapes is passed over by whoever runs the program.
    let Some(stays) = after(moves[0]) else { return true };
    moves[1..].iter().all(|&to| {
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-2 * (1.0 + a.abs());
        after(to)
            .is_some_and(|found| found.len() == stays.len() && stays.iter().zip(&found).all(near))
    })
}

fn dim(x: &Var, n: usize) -> isize {
    n as isize % x.rank().max(1) as isize
}

fn rows(count: usize, n: usize, size: usize, device: &Device) -> Var {
    let index: Vec<i64> = (0..count).map(|i| ((i * 7 + n) % size.max(1)) as i64).collect();
    Var::from_vec(index, &[count], device)
}

/// A division of x's rows into sequences, an empty one among them.
fn ragged(x: &Var, n: usize) -> Ragged {
    let rows = x.shape().first().copied().unwrap_or(0);
    let first = n % (rows + 1);
    Ragged::new(x.clone(), &[first, 0, rows - first])
}

/// A step of a program: two earlier values and a number to choose a dimension or the like by.
pub type Step = fn(&Var, &Var, usize) -> Var;

/// Steps without kinks, their results bounded so that difference quotients stay exact.
#[allow(dead_code, reason = "not every test binary uses them")]
pub fn smooth() -> Vec<Step> {
    let mut steps = SMOOTH_COMPOSITES.to_vec();
    elementwise(&mut steps, &mut Vec::new());
    steps
}

/// Those, steps with kinks, and steps without a gradient.
#[allow(dead_code, reason = "not every test binary uses them")]
pub fn all_steps() -> Vec<Step> {
    let (mut smooth, mut kinked) = (SMOOTH_COMPOSITES.to_vec(), KINKED_COMPOSITES.to_vec());
    elementwise(&mut smooth, &mut kinked);
    [smooth, kinked].concat()
}

/// Every row of the tables of ops.
fn elementwise(smooth: &mut Vec<Step>, kinked: &mut Vec<Step>) {
    unary_steps(smooth, kinked);
    binary_steps(smooth, kinked);
    compare_steps(kinked);
    reduce_steps(kinked);
}

/// `x` brought smoothly into a range.
fn squashed(x: &Var, low: f64, high: f64) -> Var {
    (x.tanh() + 1.0) * (0.5 * (high - low)) + low
}

macro_rules! unary_steps {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $args:tt {
        example: $parameters:tt $of:tt => $is:tt, candle: $tensor:expr,
        f32: $how32:ident($f32:expr), f64: $how64:ident($f64:expr), agree: $agree:ident,
        check: $kind:ident($low:literal..$high:literal) [$($arguments:tt),*],
    })*) => {
        fn unary_steps(smooth: &mut Vec<Step>, kinked: &mut Vec<Step>) {
            $($(unary_steps!(@$kind smooth kinked $method $low $high $arguments);)*)*
        }
    };
    (@smooth $smooth:ident $kinked:ident $method:ident $low:literal $high:literal ($($argument:literal),*)) => {
        $smooth.push(|x, _, _| squashed(x, $low, $high).$method($($argument),*).tanh());
    };
    (@kinked $smooth:ident $kinked:ident $method:ident $low:literal $high:literal ($($argument:literal),*)) => {
        $kinked.push(|x, _, _| x.$method($($argument),*) + x);
    };
}
unary_ops!(unary_steps);

macro_rules! binary_steps {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $args:tt {
        form: $form:tt, candle: $tensor:expr, each: $f32:expr, $f64:expr, agree: $agree:ident,
        check: $kind:ident($low_a:literal..$high_a:literal, $low_b:literal..$high_b:literal),
    })*) => {
        fn binary_steps(smooth: &mut Vec<Step>, kinked: &mut Vec<Step>) {
            use std::ops::{Add, Div, Mul, Sub};
            $(binary_steps!(@$kind smooth kinked $method $low_a $high_a $low_b $high_b);)*
        }
    };
    (@smooth $smooth:ident $kinked:ident $method:ident $low_a:literal $high_a:literal $low_b:literal $high_b:literal) => {
        $smooth.push(|x, y, _| squashed(x, $low_a, $high_a).$method(squashed(y, $low_b, $high_b)).tanh());
    };
    (@kinked $smooth:ident $kinked:ident $method:ident $low_a:literal $high_a:literal $low_b:literal $high_b:literal) => {
        $kinked.push(|x, y, _| x.$method(y));
    };
}
binary_ops!(binary_steps);

macro_rules! compare_steps {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $columns:tt)*) => {
        fn compare_steps(kinked: &mut Vec<Step>) {
            $(kinked.push(|x, y, _| x.$method(y).select(x, y * 0.5));)*
        }
    };
}
compare_ops!(compare_steps);

macro_rules! reduce_steps {
    ($($(#[$doc:meta])* $Op:ident = $all:ident, $dims:ident, $keepdim:ident, $per_seq:ident $columns:tt)*) => {
        fn reduce_steps(kinked: &mut Vec<Step>) {
            $(
                kinked.push(|x, _, _| x.$all().tanh());
                kinked.push(|x, _, n| x.$dims(&[dim(x, n)]).tanh());
                kinked.push(|x, _, n| x.$keepdim(&[dim(x, n)]).tanh());
                kinked.push(|x, _, n| ragged(x, n).$per_seq().clamp(-9.0, 9.0));
            )*
        }
    };
}
reduce_ops!(reduce_steps);

/// Beyond the table: composites, and ops of shapes, indices and products.
const SMOOTH_COMPOSITES: &[Step] = &[
    |x, y, _| x / (y.square() + 1.0),
    |x, y, _| (x.square() + 0.5).pow(y.tanh()),
    |x, _, _| -x.sin(),
    |x, _, _| (-x.square() - 0.1).log1mexp(),
    |x, _, _| x.silu().tanh(),
    |x, _, _| x.gelu_erf().tanh(),
    |x, _, _| x.gelu().tanh(),
    |x, _, _| (x.square() + 0.1).softplus(),
    |x, _, n| x.mean_dims(&[dim(x, n)]),
    |x, _, n| x.mean_keepdim(&[dim(x, n)]),
    |x, _, _| x.sum().tanh(),
    |x, _, n| x.cumsum(dim(x, n)).tanh(),
    |x, _, n| x.var_keepdim(&[dim(x, n)], 0.0),
    |x, _, n| (x.logsumexp(dim(x, n))).tanh(),
    |x, _, n| x.softmax(dim(x, n)),
    |x, _, n| x.log_softmax(dim(x, n)).tanh(),
    |x, _, n| x.transpose(0, dim(x, n)),
    |x, _, _| x.permute(&(0..x.rank()).rev().collect::<Vec<_>>()),
    |x, _, _| x.reshape(&[x.elem_count()]),
    |x, _, _| x.reshape(&[1, x.elem_count()]),
    |x, _, n| x.unsqueeze(dim(x, n)),
    |x, y, _| x.broadcast_to(y.shape()),
    |x, _, n| x.narrow(dim(x, n), 1, 1),
    |x, _, n| x.narrow(dim(x, n), 0, x.shape().get(dim(x, n) as usize).map_or(0, |s| s / 2)),
    |x, _, n| x.pad(dim(x, n), 1, n % 2),
    |x, _, n| x.flip(&[dim(x, n)]),
    |x, _, n| x.roll(n as isize % 5 - 2, dim(x, n)),
    |x, _, n| {
        x.slice_step(dim(x, n), 0, x.shape().get(dim(x, n) as usize).copied().unwrap_or(0), 2)
    },
    |x, y, n| Var::cat(&[x.clone(), y.clone(), x.clone()], dim(x, n)),
    |x, y, n| Var::stack(&[x.clone(), y.clone()], dim(x, n)),
    |x, y, _| x.matmul(y).tanh(),
    |x, y, _| x.matmul(&y.t()).tanh(),
    |x, y, _| x.dot(y).tanh(),
    |x, _, n| match x.shape().get(dim(x, n) as usize) {
        Some(&size) if size > 0 => x.index_select(&rows(4, n, size, x.device()), dim(x, n)),
        _ => x.clone(),
    },
    |x, _, n| match x.shape() {
        [r, c] if r * c > 0 => x.gather(&rows(*r, n, *c, x.device()).reshape(&[*r, 1]), 1),
        _ => x.clone(),
    },
    |x, y, n| match x.shape() {
        [r, c] if r * c > 0 && y.shape() == [*r, *c] => {
            x.scatter_add(&rows(r * c, n, *c, x.device()).reshape(&[*r, *c]), y, 1).tanh()
        }
        _ => x.clone(),
    },
    |x, y, n| match x.shape().first() {
        Some(&size) if size > 0 && x.shape() == y.shape() => {
            x.index_add(&rows(size, n, size, x.device()), y, 0).tanh()
        }
        _ => x.clone(),
    },
    |x, _, n| ragged(x, n).sum_per_seq().tanh(),
    |x, _, n| {
        let r = ragged(x, n);
        r.expand(&r.sum_per_seq()).values().tanh()
    },
    |x, _, n| ragged(x, n).softmax_per_seq().values().clone(),
];

/// Beyond the table.
const KINKED_COMPOSITES: &[Step] = &[
    |x, _, _| x.relu(),
    |x, _, _| x.floor() + x,
    |x, _, _| (x * 2.0).round() * x,
    |x, y, _| x.le(y).to_dtype(x.dtype()) * y,
    |x, y, _| x.eq(y).select(0.25, x),
    |x, _, _| x.lt(0.0).select(-x, 0.0),
    |x, _, _| x.ge(0.0).to_dtype(x.dtype()),
    |x, _, _| x.detach() * x,
    |x, _, n| x.std_keepdim(&[dim(x, n)], 0.0),
    |x, _, _| x.norm() * 0.1,
    |x, _, n| {
        let r = ragged(x, n);
        r.expand(&r.max_per_seq()).values() - x
    },
    |x, _, n| ragged(x, n).logsumexp_per_seq().exp().tanh(),
    |x, _, n| Ragged::from_seqs(&ragged(x, n).seqs()[2..]).values() * 0.5,
];
