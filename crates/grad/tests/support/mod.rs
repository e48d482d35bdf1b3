//! Random graphs, tensors to feed them, and the device that tests run on.

use proptest::prelude::*;
use tinsmith_grad::{DType, Device, Ragged, Var};

/// Where the tests of ops run: the device that `TINSMITH_TEST_DEVICE` names, `cpu`, `cuda:0` or `metal:0`; the CPU by
/// default.
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

/// A graph as data: leaves of some shapes, and steps that each take two earlier values. A step that does not fit the
/// shapes it meets is passed over, so that every value of this type is a graph.
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
    (shapes, any::<u64>(), steps).prop_map(|(shapes, seed, steps)| Program {
        shapes,
        seed,
        steps,
    })
}

impl Program {
    pub fn leaves(&self) -> Vec<Var> {
        self.shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| leaf(self.seed ^ i as u64, shape))
            .collect()
    }

    /// A scalar in which every value of the program takes part, some of them often.
    pub fn record(&self, leaves: &[Var], ops: &[fn(&Var, &Var, usize) -> Var]) -> Var {
        let values = self.values(leaves, ops);
        let parts = values
            .iter()
            .map(|v| v.sum() / (1.0 + v.elem_count() as f64));
        parts.reduce(|a, b| a + b).expect("a program has a leaf")
    }

    /// Runs the steps that `ops` knows over `leaves`: those, and what was made of them.
    pub fn values(&self, leaves: &[Var], ops: &[fn(&Var, &Var, usize) -> Var]) -> Vec<Var> {
        let mut pool = leaves.to_vec();
        for &(op, a, b) in &self.steps {
            let (x, y) = (
                &pool[a as usize % pool.len()],
                &pool[b as usize % pool.len()],
            );
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

fn dim(x: &Var, n: usize) -> isize {
    n as isize % x.rank().max(1) as isize
}

fn rows(count: usize, n: usize, size: usize, device: &Device) -> Var {
    let index: Vec<i64> = (0..count)
        .map(|i| ((i * 7 + n) % size.max(1)) as i64)
        .collect();
    Var::from_vec(index, &[count], device)
}

/// A division of x's rows into sequences, an empty one among them.
fn ragged(x: &Var, n: usize) -> Ragged {
    let rows = x.shape().first().copied().unwrap_or(0);
    let first = n % (rows + 1);
    Ragged::new(x.clone(), &[first, 0, rows - first])
}

/// Ops without kinks, their results bounded so that difference quotients stay exact.
pub const SMOOTH: &[fn(&Var, &Var, usize) -> Var] = &[
    |x, y, _| (x + y) * 0.5,
    |x, y, _| x - y * 0.3,
    |x, y, _| (x * y).tanh(),
    |x, y, _| x / (y.square() + 1.0),
    |x, y, _| (x.square() + 0.5).pow(y.tanh()),
    |x, _, _| -x.sin(),
    |x, _, _| x.cos(),
    |x, _, _| x.tanh().exp(),
    |x, _, _| x.tanh().expm1(),
    |x, _, _| (x.square() + 0.1).log(),
    |x, _, _| x.square().log1p(),
    |x, _, _| (x.square() + 0.1).sqrt(),
    |x, _, _| (x.square() + 0.1).rsqrt(),
    |x, _, _| (x.square() + 1.0).recip(),
    |x, _, _| (x.square() + 1.0).powf(-1.5),
    |x, _, _| x.sigmoid(),
    |x, _, _| x.log_sigmoid(),
    |x, _, _| x.erf(),
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
    |x, _, n| {
        x.narrow(
            dim(x, n),
            0,
            x.shape().get(dim(x, n) as usize).map_or(0, |s| s / 2),
        )
    },
    |x, _, n| x.pad(dim(x, n), 1, n % 2),
    |x, _, n| x.flip(&[dim(x, n)]),
    |x, _, n| x.roll(n as isize % 5 - 2, dim(x, n)),
    |x, _, n| {
        x.slice_step(
            dim(x, n),
            0,
            x.shape().get(dim(x, n) as usize).copied().unwrap_or(0),
            2,
        )
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
        [r, c] if r * c > 0 && y.shape() == [*r, *c] => x
            .scatter_add(&rows(r * c, n, *c, x.device()).reshape(&[*r, *c]), y, 1)
            .tanh(),
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

/// Ops with kinks, and ops without a gradient.
#[allow(dead_code)] // not every test binary uses them
pub const KINKED: &[fn(&Var, &Var, usize) -> Var] = &[
    |x, _, _| x.abs(),
    |x, _, _| x.sign() * x,
    |x, _, _| x.relu(),
    |x, _, _| x.clamp(-0.5, 0.7),
    |x, y, _| x.maximum(y),
    |x, y, _| x.minimum(y),
    |x, _, _| x.floor() + x,
    |x, _, _| x.ceil() * x,
    |x, _, _| (x * 2.0).round() * x,
    |x, y, _| x.gt(y).select(x, y * 0.5),
    |x, y, _| x.le(y).to_dtype(x.dtype()) * y,
    |x, y, _| x.eq(y).select(0.25, x),
    |x, y, _| x.ne(y).select(y, x),
    |x, _, _| x.lt(0.0).select(-x, 0.0),
    |x, _, _| x.ge(0.0).to_dtype(x.dtype()),
    |x, _, _| x.detach() * x,
    |x, _, n| x.max_dims(&[dim(x, n)]),
    |x, _, n| x.min_keepdim(&[dim(x, n)]),
    |x, _, _| x.max() + x.min(),
    |x, _, n| x.std_keepdim(&[dim(x, n)], 0.0),
    |x, _, _| x.norm() * 0.1,
    |x, _, n| {
        let r = ragged(x, n);
        r.expand(&r.max_per_seq()).values() - x
    },
    |x, _, n| ragged(x, n).logsumexp_per_seq().exp().tanh(),
    |x, _, n| Ragged::from_seqs(&ragged(x, n).seqs()[2..]).values() * 0.5,
];
