//! Accuracy against `f64`, the ends, and that place, length and instruction set do not matter.

use super::*;
use crate::graph::op::Number;
use crate::graph::table::{binary_ops, compare_ops, unary_ops};
use std::f32::consts::FRAC_PI_2;

const INF: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;
/// The smallest positive `f32`.
const TINY: f32 = 1.0e-45;

macro_rules! without_parameters {
    ($($(#[$doc:meta])* $Op:ident = $method:ident($x:ident $(, $($p:ident),+)?) $columns:tt)*) => {
        fn all_unary() -> Vec<UnaryOp> {
            [$(without_parameters!(@one $Op $($($p)+)?)),*].concat()
        }
    };
    (@one $Op:ident) => { vec![UnaryOp::$Op] };
    (@one $Op:ident $($p:ident)+) => { vec![] };
}
unary_ops!(without_parameters);

macro_rules! all_binary {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $args:tt $columns:tt)*) => {
        const BINARY: &[BinaryOp] = &[$(BinaryOp::$Op),*];
    };
}
binary_ops!(all_binary);

macro_rules! all_compare {
    ($($(#[$doc:meta])* $Op:ident = $method:ident $columns:tt)*) => {
        const COMPARE: &[CompareOp] = &[$(CompareOp::$Op),*];
    };
}
compare_ops!(all_compare);

/// The function in `f64`, written independently of the kernels.
fn truth(op: UnaryOp, x: f64) -> f64 {
    match op {
        UnaryOp::Neg => -x,
        UnaryOp::Abs => x.abs(),
        UnaryOp::Sign => f64::from(u8::from(x > 0.0)) - f64::from(u8::from(x < 0.0)),
        UnaryOp::Floor => x.floor(),
        UnaryOp::Ceil => x.ceil(),
        UnaryOp::Round => x.round_ties_even(),
        UnaryOp::Square => x * x,
        UnaryOp::Recip => x.recip(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Rsqrt => x.sqrt().recip(),
        UnaryOp::Exp => x.exp(),
        UnaryOp::Expm1 => x.exp_m1(),
        UnaryOp::Log => x.ln(),
        UnaryOp::Log1p => x.ln_1p(),
        UnaryOp::Sin => x.sin(),
        UnaryOp::Cos => x.cos(),
        UnaryOp::Tanh => x.tanh(),
        UnaryOp::Sigmoid => (1.0 + (-x).exp()).recip(),
        UnaryOp::LogSigmoid => -softplus(-x),
        UnaryOp::Erf => libm::erf(x),
        UnaryOp::Powf { exponent } => x.powf(exponent.get()),
        UnaryOp::LeakyRelu { slope } => x.max(0.0) + slope.get() * x.min(0.0),
        UnaryOp::Clamp { lo, hi } => x.max(lo.get()).min(hi.get()),
    }
}

fn softplus(x: f64) -> f64 {
    if x > 40.0 { x } else { x.exp().ln_1p() }
}

/// The worst error over all inputs and instruction sets, in ulp, as measured.
fn worst(op: UnaryOp) -> f64 {
    match op {
        UnaryOp::Rsqrt => 1.50,
        UnaryOp::Exp => 0.98,
        UnaryOp::Expm1 => 1.46,
        UnaryOp::Log => 0.81,
        UnaryOp::Log1p => 1.53,
        UnaryOp::Sin | UnaryOp::Cos => 1.59,
        UnaryOp::Tanh => 1.21,
        UnaryOp::Sigmoid => 1.71,
        UnaryOp::LogSigmoid => 1.83,
        UnaryOp::Erf => 1.19,
        UnaryOp::Powf { .. } => 0.51,
        UnaryOp::Neg
        | UnaryOp::Abs
        | UnaryOp::Sign
        | UnaryOp::Floor
        | UnaryOp::Ceil
        | UnaryOp::Round
        | UnaryOp::Square
        | UnaryOp::Recip
        | UnaryOp::Sqrt
        | UnaryOp::LeakyRelu { .. }
        | UnaryOp::Clamp { .. } => 0.5,
    }
}

/// The error in units of the last place that an `f32` near `truth` has; infinite if only one of the
/// two is NaN.
fn ulps(got: f32, truth: f64) -> f64 {
    if got.is_nan() != truth.is_nan() {
        return f64::INFINITY;
    }
    if got.is_nan() {
        return 0.0;
    }
    // Infinity counts as the first number beyond the largest, and so does everything above it.
    let beyond = 2f64.powi(128);
    let exponent = (truth.abs().to_bits() >> 52) as i32 - 1023;
    let ulp = 2f64.powi(exponent.clamp(-126, 127) - 23);
    (f64::from(got).clamp(-beyond, beyond) - truth.clamp(-beyond, beyond)).abs() / ulp
}

/// Zeros, ends, the neighbourhood of every power of two and of every point where a kernel changes
/// its formula, and a stride through all bit patterns.
fn inputs() -> Vec<f32> {
    #[rustfmt::skip]
    let switches = [
        1.0 / 3.0, 2.0 / 3.0, 4.0 / 3.0, 0.625, 0.925, 4.0, 9.01, 10.0, 17.33, 20.0, 30.0, 87.34,
        88.73, 89.0, 103.98, 104.0, 1.0e8,
    ];
    let powers = (0..=255u32).map(|exponent| f32::from_bits(exponent << 23));
    let quadrants = (1..128u16).map(|quadrant| f32::from(quadrant) * FRAC_PI_2);
    let centres = powers.chain(switches).chain(quadrants);
    let near = |x: f32| (-8..=8).map(move |offset| x.to_bits().saturating_add_signed(offset));
    let stride = (0..u32::MAX / 2).step_by(40_503);
    centres.flat_map(near).chain(stride).map(f32::from_bits).flat_map(|x| [x, -x]).collect()
}

/// An operand of a test.
#[derive(Clone, Copy, Debug)]
enum Of<'a> {
    Block(&'a [f32]),
    Number(f32),
}

use Of::{Block, Number as One};

/// As many chunks as `len` elements need, the last one filled up with anything.
fn chunks(of: Of, len: usize) -> Vec<Chunk<f32>> {
    match of {
        Block(x) => x
            .chunks(CHUNK)
            .map(|x| std::array::from_fn(|i| x.get(i).copied().unwrap_or(0.7)))
            .collect(),
        One(x) => vec![[x; CHUNK]; len.div_ceil(CHUNK).max(1)],
    }
}

/// What `f` computes of `operands`, which it is given as a kernel takes them.
fn run<const N: usize>(
    operands: [Of; N],
    len: usize,
    f: impl FnOnce([Arg<f32>; N], &mut [Chunk<f32>]),
) -> Vec<f32> {
    let blocks = operands.map(|of| chunks(of, len));
    let mut args = [Arg::Block(&[]); N];
    for ((arg, block), of) in args.iter_mut().zip(&blocks).zip(operands) {
        *arg = match of {
            Block(_) => Arg::Block(block),
            One(_) => Arg::Number(&block[0]),
        };
    }
    let mut out = vec![[-7.0; CHUNK]; len.div_ceil(CHUNK)];
    f(args, &mut out);
    out.as_flattened()[..len].to_vec()
}

fn unary(kernels: Kernels, op: UnaryOp, x: &[f32]) -> Vec<f32> {
    run([Block(x)], x.len(), |[x], out| kernels.unary(op, x, out))
}

fn binary(kernels: Kernels, op: BinaryOp, a: Of, b: Of, len: usize) -> Vec<f32> {
    run([a, b], len, |[a, b], out| kernels.binary(op, a, b, out))
}

fn compare(kernels: Kernels, op: CompareOp, a: Of, b: Of, len: usize) -> Vec<f32> {
    run([a, b], len, |[a, b], out| kernels.compare(op, a, b, out))
}

fn select(kernels: Kernels, mask: Of, a: Of, b: Of, len: usize) -> Vec<f32> {
    run([mask, a, b], len, |[mask, a, b], out| kernels.select(mask, a, b, out))
}

fn either_nan(a: f32, b: f32) -> bool {
    a.is_nan() || b.is_nan()
}

/// Bits to compare, with one NaN for all.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { NAN } else { *x }.to_bits()).collect()
}

#[test]
fn unary_kernels_keep_their_error_bounds() {
    let x = inputs();
    for kernels in Kernels::all() {
        for op in all_unary() {
            let bound = worst(op);
            for (x, got) in x.iter().zip(unary(kernels, op, &x)) {
                let want = truth(op, f64::from(*x));
                let error = ulps(got, want);
                assert!(
                    error <= bound,
                    "{kernels:?} {op:?}({x:e}) = {got:e}, not {want:e}: {error} ulp"
                );
            }
        }
    }
}

#[test]
fn ends_are_those_of_c99_and_pytorch() {
    use UnaryOp::*;
    #[rustfmt::skip]
    let table = [
        (Exp, -INF, 0.0), (Exp, -104.0, 0.0), (Exp, -103.0, TINY), (Exp, -0.0, 1.0), (Exp, 88.8, INF), (Exp, INF, INF),
        (Expm1, -INF, -1.0), (Expm1, -0.0, -0.0), (Expm1, 0.0, 0.0), (Expm1, -TINY, -TINY), (Expm1, 88.8, INF), (Expm1, INF, INF),
        (Log, -INF, NAN), (Log, -1.0, NAN), (Log, -TINY, NAN), (Log, -0.0, -INF), (Log, 0.0, -INF), (Log, 1.0, 0.0), (Log, INF, INF),
        (Log1p, -INF, NAN), (Log1p, -1.5, NAN), (Log1p, -1.0, -INF), (Log1p, -0.0, -0.0), (Log1p, TINY, TINY), (Log1p, INF, INF),
        (Sin, -INF, NAN), (Sin, -0.0, -0.0), (Sin, -TINY, -TINY), (Sin, INF, NAN),
        (Cos, -INF, NAN), (Cos, -0.0, 1.0), (Cos, INF, NAN),
        (Tanh, -INF, -1.0), (Tanh, -0.0, -0.0), (Tanh, 0.0, 0.0), (Tanh, -TINY, -TINY), (Tanh, INF, 1.0),
        (Sigmoid, -INF, 0.0), (Sigmoid, -103.0, TINY), (Sigmoid, -0.0, 0.5), (Sigmoid, 17.5, 1.0), (Sigmoid, INF, 1.0),
        (LogSigmoid, -INF, -INF), (LogSigmoid, f32::MIN, f32::MIN), (LogSigmoid, INF, 0.0),
        (Erf, -INF, -1.0), (Erf, -0.0, -0.0), (Erf, 4.0, 1.0), (Erf, INF, 1.0),
        (Sqrt, -INF, NAN), (Sqrt, -1.0, NAN), (Sqrt, -0.0, -0.0), (Sqrt, INF, INF),
        (Rsqrt, -1.0, NAN), (Rsqrt, -0.0, -INF), (Rsqrt, 0.0, INF), (Rsqrt, INF, 0.0),
        (Recip, -INF, -0.0), (Recip, -0.0, -INF), (Recip, 0.0, INF), (Recip, INF, 0.0),
        (Sign, -INF, -1.0), (Sign, -0.0, 0.0), (Sign, 0.0, 0.0), (Sign, NAN, 0.0), (Sign, TINY, 1.0),
        (Round, 0.5, 0.0), (Round, 1.5, 2.0), (Round, 2.5, 2.0), (Round, -0.5, -0.0), (Round, -INF, -INF),
    ];
    for kernels in Kernels::all() {
        for (op, x, want) in table {
            // Long enough for vectors of any width and a tail.
            assert_eq!(
                bits(&unary(kernels, op, &[x; 33])),
                bits(&[want; 33]),
                "{kernels:?} {op:?}({x:e})"
            );
        }
        for op in all_unary() {
            let nan = unary(kernels, op, &[NAN; 33]);
            assert!(op == Sign || nan.iter().all(|y| y.is_nan()), "{kernels:?} {op:?}(NaN)");
        }
    }
}

#[test]
fn pow_is_nearly_correctly_rounded() {
    let all: Vec<f32> = inputs().into_iter().step_by(7).collect();
    #[rustfmt::skip]
    let exponents = [
        0.5, -0.5, 1.0 / 3.0, 1.0, -1.0, 2.0, 3.0, -3.0, 7.0, 40.0, 127.0, -149.0, 1.0e-3, 1.0e4,
        -1.0e7, 16_777_215.0, 3.0e38,
    ];
    let bases = [0.3, 0.999_999_94, 1.000_000_1, 1.7, 10.0, -2.0, TINY, f32::MAX];
    for kernels in Kernels::all() {
        for y in exponents {
            let by_number = binary(kernels, BinaryOp::Pow, Block(&all), One(y), all.len());
            for (x, got) in all.iter().zip(by_number) {
                let want = f64::from(*x).powf(f64::from(y));
                assert!(ulps(got, want) <= 0.51, "{kernels:?} {x:e}^{y:e} = {got:e}, not {want:e}");
            }
        }
        for x in bases {
            let by_block = binary(kernels, BinaryOp::Pow, One(x), Block(&all), all.len());
            for (y, got) in all.iter().zip(by_block) {
                let want = f64::from(x).powf(f64::from(*y));
                assert!(ulps(got, want) <= 0.51, "{kernels:?} {x:e}^{y:e} = {got:e}, not {want:e}");
            }
        }
    }
}

#[test]
fn pow_has_the_special_cases_of_c99() {
    #[rustfmt::skip]
    let table = [
        // x, y, x^y
        (NAN, 0.0, 1.0), (NAN, -0.0, 1.0), (INF, 0.0, 1.0), (-0.0, 0.0, 1.0), (0.0, 0.0, 1.0), (-5.0, 0.0, 1.0),
        (1.0, NAN, 1.0), (1.0, INF, 1.0), (1.0, -INF, 1.0), (-1.0, INF, 1.0), (-1.0, -INF, 1.0), (-1.0, NAN, NAN),
        (NAN, 1.0, NAN), (2.0, NAN, NAN), (0.0, NAN, NAN), (NAN, NAN, NAN), (NAN, INF, NAN),
        (0.0, 3.0, 0.0), (-0.0, 3.0, -0.0), (-0.0, 4.0, 0.0), (-0.0, 0.5, 0.0), (0.0, INF, 0.0), (-0.0, INF, 0.0),
        (0.0, -3.0, INF), (-0.0, -3.0, -INF), (-0.0, -4.0, INF), (-0.0, -0.5, INF), (0.0, -INF, INF), (-0.0, -INF, INF),
        (0.5, INF, 0.0), (0.5, -INF, INF), (-0.5, INF, 0.0), (-0.5, -INF, INF), (2.0, INF, INF), (2.0, -INF, 0.0), (-2.0, INF, INF),
        (INF, 2.0, INF), (INF, -2.0, 0.0), (INF, INF, INF), (INF, -INF, 0.0),
        (-INF, 3.0, -INF), (-INF, 2.0, INF), (-INF, 0.5, INF), (-INF, -3.0, -0.0), (-INF, -2.0, 0.0), (-INF, -0.5, 0.0), (-INF, INF, INF),
        (-2.0, 3.0, -8.0), (-2.0, 4.0, 16.0), (-2.0, -1.0, -0.5), (-2.0, 0.5, NAN), (-2.0, 2.000_000_2, NAN), (-TINY, 0.5, NAN),
        // The last odd f32, the first that can only be even, and the parity between 2^22 and 2^24.
        (-1.0, 16_777_215.0, -1.0), (-1.0, 16_777_216.0, 1.0), (-1.0, 8_388_609.0, -1.0), (-1.0, 4_194_304.5, NAN), (-1.0, f32::MAX, 1.0),
        (2.0, 128.0, INF), (2.0, 127.0, 1.701_411_8e38), (2.0, -149.0, TINY), (2.0, -150.0, 0.0), (-2.0, 129.0, -INF), (-2.0, -151.0, -0.0),
        (TINY, 1.0, TINY), (TINY, -1.0, INF), (9.0, 0.5, 3.0),
    ];
    for kernels in Kernels::all() {
        for (x, y, want) in table {
            let (xs, ys) = ([x; 17], [y; 17]);
            for (a, b) in [(Block(&xs), Block(&ys)), (Block(&xs), One(y)), (One(x), Block(&ys))] {
                assert_eq!(
                    bits(&binary(kernels, BinaryOp::Pow, a, b, 17)),
                    bits(&[want; 17]),
                    "{kernels:?} {x}^{y}"
                );
            }
        }
    }
}

#[test]
fn place_and_length_do_not_matter() {
    let x: Vec<f32> = inputs().into_iter().step_by(997).take(101).collect();
    let y: Vec<f32> = x.iter().rev().copied().collect();
    for kernels in Kernels::all() {
        for op in all_unary() {
            let whole = bits(&unary(kernels, op, &x));
            for start in [1, 5, 17, 50, 90] {
                for end in (start..start + 11).chain([x.len()]) {
                    assert_eq!(
                        bits(&unary(kernels, op, &x[start..end])),
                        whole[start..end],
                        "{kernels:?} {op:?} {start}..{end}"
                    );
                }
            }
        }
        for &op in BINARY {
            let whole = bits(&binary(kernels, op, Block(&x), Block(&y), x.len()));
            for (i, want) in whole.iter().enumerate() {
                let one = [
                    (Block(&x[i..=i]), Block(&y[i..=i])),
                    (Block(&x[i..=i]), One(y[i])),
                    (One(x[i]), Block(&y[i..=i])),
                ]
                .map(|(a, b)| bits(&binary(kernels, op, a, b, 1))[0]);
                assert_eq!(one, [*want; 3], "{kernels:?} {op:?} element {i}");
            }
        }
    }
}

/// An argument beyond the range of normal results sends its whole chunk another way.
#[test]
fn neighbours_do_not_matter_to_an_exponential() {
    let x: Vec<f32> = (0..87).map(|i| i as f32 * 2.01 - 87.0).collect();
    for kernels in Kernels::all() {
        let near = unary(kernels, UnaryOp::Exp, &x);
        for other in [NAN, -INF, INF, -95.0, 88.5] {
            let far = unary(kernels, UnaryOp::Exp, &[&x[..], &[other]].concat());
            assert_eq!(bits(&near), bits(&far[..x.len()]), "{kernels:?} {other}");
        }
    }
}

#[test]
fn arithmetic_equals_the_plain_operators() {
    #[rustfmt::skip]
    let special = [0.0, -0.0, 1.0, -1.0, 2.5, -1.0e-40, TINY, f32::MAX, INF, -INF, NAN];
    let (a, b): (Vec<f32>, Vec<f32>) =
        special.iter().flat_map(|a| special.map(|b| (*a, b))).unzip();
    type Plain = fn(f32, f32) -> f32;
    let arithmetic: [(BinaryOp, Plain); 6] = [
        (BinaryOp::Add, |a, b| a + b),
        (BinaryOp::Sub, |a, b| a - b),
        (BinaryOp::Mul, |a, b| a * b),
        (BinaryOp::Div, |a, b| a / b),
        (BinaryOp::Minimum, |a, b| if either_nan(a, b) { NAN } else { a.min(b) }),
        (BinaryOp::Maximum, |a, b| if either_nan(a, b) { NAN } else { a.max(b) }),
    ];
    let comparisons: [(CompareOp, Plain); 6] = [
        (CompareOp::Eq, |a, b| f32::from(u8::from(a == b))),
        (CompareOp::Ne, |a, b| f32::from(u8::from(a != b))),
        (CompareOp::Lt, |a, b| f32::from(u8::from(a < b))),
        (CompareOp::Le, |a, b| f32::from(u8::from(a <= b))),
        (CompareOp::Gt, |a, b| f32::from(u8::from(a > b))),
        (CompareOp::Ge, |a, b| f32::from(u8::from(a >= b))),
    ];
    for kernels in Kernels::all() {
        let arithmetic = arithmetic.map(|(op, plain)| {
            (format!("{op:?}"), binary(kernels, op, Block(&a), Block(&b), a.len()), plain)
        });
        let comparisons = comparisons.map(|(op, plain)| {
            (format!("{op:?}"), compare(kernels, op, Block(&a), Block(&b), a.len()), plain)
        });
        for (op, got, plain) in arithmetic.into_iter().chain(comparisons) {
            for ((a, b), got) in a.iter().zip(&b).zip(got) {
                let want = plain(*a, *b);
                // Which zero is the smaller one is nobody's business.
                assert!(
                    got == want || (got.is_nan() && want.is_nan()),
                    "{kernels:?} {op}({a}, {b}) = {got}, not {want}"
                );
            }
        }

        let (lo, hi) = (Number::new(-1.0), Number::new(2.0));
        let out = unary(kernels, UnaryOp::Clamp { lo, hi }, &a);
        for (a, out) in a.iter().zip(&out) {
            assert!(
                *out == a.clamp(-1.0, 2.0) || (a.is_nan() && out.is_nan()),
                "{kernels:?} clamp({a}) = {out}"
            );
        }
    }
}

#[test]
fn select_takes_the_chosen_side_only() {
    let mask = [1.0, 0.0, -0.0, NAN, 1.0];
    let (a, b) = ([1.0, 2.0, NAN, 4.0, 5.0], [NAN, -2.0, -3.0, INF, -5.0]);
    for kernels in Kernels::all() {
        let select = |a, b| select(kernels, Block(&mask), a, b, 5);
        assert_eq!(select(Block(&a), Block(&b)), [1.0, -2.0, -3.0, 4.0, 5.0]);
        assert_eq!(select(Block(&a), One(0.0)), [1.0, 0.0, 0.0, 4.0, 5.0]);
        assert_eq!(select(One(9.0), Block(&b)), [9.0, -2.0, -3.0, 9.0, 9.0]);
        assert_eq!(select(One(9.0), One(8.0)), [9.0, 8.0, 8.0, 9.0, 9.0]);
    }
}

#[test]
fn reductions_have_one_order_on_every_instruction_set() {
    let a: Vec<f32> = (0..700u16).map(|i| (f32::from(i) * 0.618).fract() * 1.0e3 - 400.0).collect();
    for len in 0..a.len() {
        let a = &a[..len];
        // Integers after scaling would be exact in f64; these are within its rounding of the plain
        // loop.
        let sum: f64 = a.iter().map(|&x| f64::from(x)).sum();
        let reference = Kernels { arch: Arch::Scalar };
        for kernels in Kernels::all() {
            assert!((kernels.reduce(ReduceOp::Sum, a) - sum).abs() <= 1.0e-9, "{kernels:?} {len}");
            assert_eq!(
                kernels.reduce(ReduceOp::Sum, a).to_bits(),
                reference.reduce(ReduceOp::Sum, a).to_bits(),
                "{kernels:?} {len}"
            );
            assert_eq!(
                kernels.reduce(ReduceOp::Max, a),
                f64::from(a.iter().copied().fold(-INF, f32::max)),
                "{kernels:?} {len}"
            );
            assert_eq!(
                kernels.reduce(ReduceOp::Min, a),
                f64::from(a.iter().copied().fold(INF, f32::min)),
                "{kernels:?} {len}"
            );
        }
    }
}

#[test]
fn extremes_keep_nan_wherever_it_is() {
    for kernels in Kernels::all() {
        for place in 0..300 {
            let mut x = [1.0f32; 300];
            x[place] = NAN;
            assert!(
                [ReduceOp::Max, ReduceOp::Min]
                    .into_iter()
                    .all(|op| kernels.reduce(op, &x).is_nan()),
                "{kernels:?} {place}"
            );
        }
    }
}

#[test]
fn f64_uses_the_standard_library() {
    let kernels = Kernels::get();
    let x = [-3.7, -0.25, 0.1, 1.0, 2.5, 25.0, 1.0e9];
    let block = [std::array::from_fn(|i| x[i % x.len()])];
    let mut out = [[0.0; CHUNK]];
    for op in all_unary() {
        kernels.unary(op, Arg::Block(&block), &mut out);
        for (&x, out) in x.iter().zip(out[0]) {
            let want = truth(op, x);
            let near = (out - want).abs() <= 1.0e-15 * want.abs();
            assert!(
                out == want || near || (out.is_nan() && want.is_nan()),
                "{op:?}({x}) = {out}, not {want}"
            );
        }
    }
    kernels.binary(BinaryOp::Pow, Arg::Number(&[1.5; CHUNK]), Arg::Block(&block), &mut out);
    assert_eq!(out[0][..7], x.map(|x| 1.5f64.powf(x)));
    assert_eq!(kernels.reduce(ReduceOp::Sum, &x), x.iter().sum::<f64>());
    assert_eq!(kernels.reduce(ReduceOp::Max, &x), 1.0e9);
}

#[test]
fn a_choice_is_a_comparison_and_a_selection() {
    let values = [0.0, -0.0, 1.0, -1.0, 2.5, INF, -INF, NAN];
    let (a, b): (Vec<f32>, Vec<f32>) = values.iter().flat_map(|a| values.map(|b| (*a, b))).unzip();
    let n = a.len();
    let x: Vec<f32> = (0..n).map(|i| i as f32 - 30.0).collect();
    let y: Vec<f32> = x.iter().map(|x| -x - 1.0).collect();
    let filled = |of: Of| match of {
        Block(block) => block.to_vec(),
        One(number) => vec![number; n],
    };
    for kernels in Kernels::all() {
        let choose = |op, then, compared: [Of; 2], values: [Of; 2]| {
            let operands = [compared[0], compared[1], values[0], values[1]];
            run(operands, n, |[a, b, x, y], out| {
                kernels.choose(op, then, [a, b], [x, y], out);
            })
        };
        for &op in COMPARE {
            for compared in [
                [Block(&a), Block(&b)],
                [Block(&a), One(1.0)],
                [One(1.0), Block(&b)],
                [One(1.0), One(-2.0)],
            ] {
                let mask = compare(kernels, op, compared[0], compared[1], n);
                for values in [
                    [Block(&x), Block(&y)],
                    [Block(&x), One(7.0)],
                    [One(7.0), Block(&y)],
                    [One(7.0), One(8.0)],
                ] {
                    let [x, y] = values;
                    let want = |x: &[f32]| select(kernels, Block(&mask), Block(x), y, n);
                    let case = format!("{kernels:?} {op:?} {compared:?} {values:?}");
                    let got = choose(op, Then::Nothing, compared, values);
                    assert_eq!(bits(&got), bits(&want(&filled(x))), "{case}");
                    let got = choose(op, Then::Neg, compared, values);
                    let negated = filled(x).iter().map(|x| -x).collect::<Vec<_>>();
                    assert_eq!(bits(&got), bits(&want(&negated)), "{case}");
                    let got = choose(op, Then::Minimum(Number::new(3.0)), compared, values);
                    let limited = filled(x).iter().map(|x| x.min(3.0)).collect::<Vec<_>>();
                    assert_eq!(bits(&got), bits(&want(&limited)), "{case}");
                    let got = choose(op, Then::Maximum(Number::new(3.0)), compared, values);
                    let limited = filled(x).iter().map(|x| x.max(3.0)).collect::<Vec<_>>();
                    assert_eq!(bits(&got), bits(&want(&limited)), "{case}");
                }
            }
        }
    }
}

#[test]
fn a_dot_product_has_the_bits_of_the_sum_of_the_products() {
    let x = &inputs()[..1000];
    for kernels in Kernels::all() {
        for len in [0, 1, 15, 16, 17, 128, 300, 512, 999] {
            let a: Vec<f32> = x[..len].iter().map(|x| x % 10.0).collect();
            let b: Vec<f32> = a.iter().rev().copied().collect();
            for (b, got) in
                [(Block(&b), kernels.dot(&a, &b)), (One(0.3), kernels.scaled_sum(&a, 0.3))]
            {
                let products = binary(kernels, BinaryOp::Mul, Block(&a), b, len);
                let want = kernels.reduce(ReduceOp::Sum, &products);
                assert_eq!(got.to_bits(), want.to_bits(), "{kernels:?} {len} {b:?}");
            }
        }
    }
}
