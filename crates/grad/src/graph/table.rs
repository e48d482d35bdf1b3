//! The elementwise ops and the reductions, each stated once.
//!
//! A table hands its rows to a macro that the caller names, which takes the columns that it needs:
//! the enums of [`op`](super::op), the methods of [`Var`](crate::Var), the candle form of the
//! reference executor, the loops of [`math`](crate::exec::math) and the tests are all made from
//! here. Derivatives are in [`vjp`](crate::calculus::vjp), one page of calculus, whose match the
//! compiler holds to these rows.
//!
//! | column | what it is |
//! |---|---|
//! | head | documentation, variant, and the method with its operand and parameters, which are f64 |
//! | `example` | parameters, operand and result: the method's doc test |
//! | `candle` | the op on candle tensors, for every device |
//! | `f32`, `f64` | the op on a block of elements in instruction set `S`: a function of `each` element, or of a `block` of them |
//! | `agree` | how closely the executors agree: in `Bits`, or as two approximations of one `Function` |
//! | `check` | `smooth` or `kinked`, the range in which derivatives are checked, and the parameters that are tried |

/// Functions of one operand.
macro_rules! unary_ops {
    ($then:ident) => {
        $then! {
            /// -x. Gradient -g.
            Neg = neg(x) {
                example: () [2.0] => [-2.0],
                candle: x.neg(),
                f32: each(arith::neg), f64: each(arith::neg),
                agree: Bits, check: smooth(-1.5..1.5) [()],
            }
            /// e^x. Gradient g e^x.
            Exp = exp(x) {
                example: () [0.0] => [1.0],
                candle: x.exp(),
                f32: block(exp::exp::<S>), f64: each(f64::exp),
                agree: Function, check: smooth(-1.5..1.5) [()],
            }
            /// e^x - 1, exact for small x. Gradient g e^x.
            Expm1 = expm1(x) {
                example: () [1e-20] => [1e-20],
                candle: expm1(x),
                f32: each(exp::expm1::<S>), f64: each(f64::exp_m1),
                agree: Function, check: smooth(-1.5..1.5) [()],
            }
            /// ln x: NaN below 0, -inf at 0. Gradient g / x.
            Log = log(x) {
                example: () [1.0] => [0.0],
                candle: x.log(),
                f32: each(log::log::<S>), f64: each(f64::ln),
                agree: Function, check: smooth(0.5..2.75) [()],
            }
            /// ln(1 + x), exact for small x. Gradient g / (1 + x).
            Log1p = log1p(x) {
                example: () [1e-20] => [1e-20],
                candle: log1p(x),
                f32: each(log::log1p::<S>), f64: each(f64::ln_1p),
                agree: Function, check: smooth(-0.5..2.0) [()],
            }
            /// The square root. Gradient g / (2 sqrt x), inf at 0; see [`norm`](Var::norm) and
            /// [`std_dims`](Var::std_dims) for forms that are safe there.
            Sqrt = sqrt(x) {
                example: () [9.0] => [3.0],
                candle: x.sqrt(),
                f32: each(f32::sqrt), f64: each(f64::sqrt),
                agree: Bits, check: smooth(0.5..2.75) [()],
            }
            /// 1 / sqrt x. Gradient -g / (2 x sqrt x).
            Rsqrt = rsqrt(x) {
                example: () [4.0] => [0.5],
                candle: x.sqrt()?.recip(),
                f32: each(arith::rsqrt), f64: each(arith::rsqrt),
                agree: Function, check: smooth(0.5..2.75) [()],
            }
            /// |x|. Gradient g sign(x), 0 at 0.
            Abs = abs(x) {
                example: () [-2.0] => [2.0],
                candle: x.abs(),
                f32: each(f32::abs), f64: each(f64::abs),
                agree: Bits, check: kinked(-1.5..1.5) [()],
            }
            /// -1, 0 or 1. Gradient 0.
            Sign = sign(x) {
                example: () [-2.0] => [-1.0],
                candle: x.sign(),
                f32: each(arith::sign), f64: each(arith::sign),
                agree: Bits, check: kinked(-1.5..1.5) [()],
            }
            /// tanh x. Gradient g (1 - tanh² x).
            Tanh = tanh(x) {
                example: () [0.0] => [0.0],
                candle: x.tanh(),
                f32: each(hyper::tanh::<S>), f64: each(f64::tanh),
                agree: Function, check: smooth(-1.5..1.5) [()],
            }
            /// 1 / (1 + e^-x), without overflow. Gradient g s(x) s(-x).
            Sigmoid = sigmoid(x) {
                example: () [0.0] => [0.5],
                candle: sigmoid(x),
                f32: each(hyper::sigmoid::<S>), f64: each(|x: f64| 1.0 / (1.0 + (-x).exp())),
                agree: Function, check: smooth(-1.5..1.5) [()],
            }
            /// ln sigmoid(x) = min(x, 0) - ln(1 + e^-|x|), exact at both ends. Gradient g
            /// sigmoid(-x).
            LogSigmoid = log_sigmoid(x) {
                example: () [-1000.0] => [-1000.0],
                candle: x.minimum(&x.zeros_like()?)? - log1p(&x.abs()?.neg()?.exp()?)?,
                f32: each(hyper::log_sigmoid::<S>),
                f64: each(|x: f64| x.min(0.0) - (-x.abs()).exp().ln_1p()),
                agree: Function, check: smooth(-1.5..1.5) [()],
            }
            /// The error function. Gradient g 2/√π e^-x².
            Erf = erf(x) {
                example: () [0.0] => [0.0],
                candle: x.erf(),
                f32: each(erf::erf::<S>), f64: each(libm::erf),
                agree: Function, check: smooth(-1.5..1.5) [()],
            }
            /// sin x, in radians. Gradient g cos x.
            Sin = sin(x) {
                example: () [0.0] => [0.0],
                candle: x.sin(),
                f32: block(trig::sin::<S>), f64: each(f64::sin),
                agree: Function, check: smooth(-1.5..1.5) [()],
            }
            /// cos x, in radians. Gradient -g sin x.
            Cos = cos(x) {
                example: () [0.0] => [1.0],
                candle: x.cos(),
                f32: block(trig::cos::<S>), f64: each(f64::cos),
                agree: Function, check: smooth(-1.5..1.5) [()],
            }
            /// x². Gradient 2 g x.
            Square = square(x) {
                example: () [-3.0] => [9.0],
                candle: x.sqr(),
                f32: each(arith::square), f64: each(arith::square),
                agree: Bits, check: smooth(-1.5..1.5) [()],
            }
            /// 1 / x. Gradient -g / x².
            Recip = recip(x) {
                example: () [4.0] => [0.25],
                candle: x.recip(),
                f32: each(f32::recip), f64: each(f64::recip),
                agree: Bits, check: smooth(0.5..2.75) [()],
            }
            /// The greatest integer not above x. Gradient 0.
            Floor = floor(x) {
                example: () [-1.5] => [-2.0],
                candle: x.floor(),
                f32: each(f32::floor), f64: each(f64::floor),
                agree: Bits, check: kinked(-1.5..1.5) [()],
            }
            /// The least integer not below x. Gradient 0.
            Ceil = ceil(x) {
                example: () [-1.5] => [-1.0],
                candle: x.ceil(),
                f32: each(f32::ceil), f64: each(f64::ceil),
                agree: Bits, check: kinked(-1.5..1.5) [()],
            }
            /// The nearest integer, halves to the even one. Gradient 0.
            Round = round(x) {
                example: () [2.5] => [2.0],
                candle: round_ties_even(x),
                f32: each(f32::round_ties_even), f64: each(f64::round_ties_even),
                agree: Bits, check: kinked(-1.5..1.5) [()],
            }
            /// x to a constant power. Gradient g p x^(p-1); 0 for p = 0, also at x = 0.
            Powf = powf(x, exponent) {
                example: (1.5) [4.0] => [8.0],
                candle: x.powf(exponent),
                f32: each(|x| pow::pow::<S>(x, exponent)),
                f64: each(|x: f64| x.powf(exponent)),
                agree: Function, check: smooth(0.5..2.75) [(1.7), (3.0), (-1.0), (0.0)],
            }
            /// x where x > 0, else x times `slope` (Maas et al., 2013). Gradient g, or g times
            /// `slope` for x <= 0.
            LeakyRelu = leaky_relu(x, slope) {
                example: (0.1) [-2.0, 3.0] => [-0.2, 3.0],
                candle: choose(&x.gt(0.0)?, x, &(x * slope)?),
                f32: each(|x| arith::leaky_relu(x, slope)),
                f64: each(|x| arith::leaky_relu(x, slope)),
                agree: Bits, check: kinked(-1.5..1.5) [(0.1)],
            }
            /// x limited to `lo..=hi`; an infinite bound is none, a bound that is NaN gives NaN.
            /// NaN stays NaN. Gradient g strictly between the bounds, 0 at and beyond them, as
            /// PyTorch since 2.14.
            Clamp = clamp(x, lo, hi) {
                example: (0.8, 1.2) [0.5, 1.1, 1.5] => [0.8, 1.1, 1.2],
                candle: clamp(x, lo, hi),
                f32: each(|x| arith::clamp(x, lo, hi)), f64: each(|x| arith::clamp(x, lo, hi)),
                agree: Bits, check: kinked(-1.5..1.5) [(-0.5, 0.7)],
            }
        }
    };
}

/// Functions of two operands. `form` is the operator's trait, or the method's doc test: operands
/// and result.
macro_rules! binary_ops {
    ($then:ident) => {
        $then! {
            Add = add(a, b) {
                form: (operator Add),
                candle: a + b,
                each: arith::add, arith::add,
                agree: Bits, check: smooth(-1.5..1.5, -1.5..1.5),
            }
            Sub = sub(a, b) {
                form: (operator Sub),
                candle: a - b,
                each: arith::sub, arith::sub,
                agree: Bits, check: smooth(-1.5..1.5, -1.5..1.5),
            }
            Mul = mul(a, b) {
                form: (operator Mul),
                candle: a * b,
                each: arith::mul, arith::mul,
                agree: Bits, check: smooth(-1.5..1.5, -1.5..1.5),
            }
            Div = div(a, b) {
                form: (operator Div),
                candle: a / b,
                each: arith::div, arith::div,
                agree: Bits, check: smooth(-1.5..1.5, 0.5..2.75),
            }
            /// `self` to the power `rhs`. At 0 to the power 0 the base has gradient 0; the exponent
            /// has -inf if the base is 0 and it is negative, and none if it is not. For a constant
            /// exponent, [`powf`](Var::powf) is cheaper.
            Pow = pow(a, b) {
                form: (method [2.0] [3.0] => [8.0]),
                candle: pow(a, b),
                each: pow::pow::<S>, f64::powf,
                agree: Function, check: smooth(0.5..2.75, -1.5..1.5),
            }
            /// The greater of the two, NaN if either is. The gradient goes to the greater one, half
            /// to each on a tie.
            Maximum = maximum(a, b) {
                form: (method [1.0] [3.0] => [3.0]),
                candle: maximum(a, b),
                each: arith::maximum, arith::maximum,
                agree: Bits, check: kinked(-1.5..1.5, -1.5..1.5),
            }
            /// The smaller of the two, NaN if either is. The gradient goes to the smaller one, half
            /// to each on a tie.
            Minimum = minimum(a, b) {
                form: (method [5.0] [3.0] => [3.0]),
                candle: minimum(a, b),
                each: arith::minimum, arith::minimum,
                agree: Bits, check: kinked(-1.5..1.5, -1.5..1.5),
            }
        }
    };
}

/// Comparisons, whose results are masks.
macro_rules! compare_ops {
    ($then:ident) => {
        $then! {
            /// 1 where `self == rhs`.
            Eq = eq { sign: ==, example: [5, 0, 7] 5.0 => [1, 0, 0] }
            /// 1 where `self != rhs`.
            Ne = ne { sign: !=, example: [5, 0, 7] 5.0 => [0, 1, 1] }
            /// 1 where `self < rhs`.
            Lt = lt { sign: <, example: [5, 0, 7] 5.0 => [0, 1, 0] }
            /// 1 where `self <= rhs`.
            Le = le { sign: <=, example: [5, 0, 7] 5.0 => [1, 1, 0] }
            /// 1 where `self > rhs`.
            Gt = gt { sign: >, example: [5, 0, 7] 5.0 => [0, 0, 1] }
            /// 1 where `self >= rhs`.
            Ge = ge { sign: >=, example: [5, 0, 7] 5.0 => [1, 0, 1] }
        }
    };
}

/// Reductions: what they start from, how two results become one, and what they are of nothing.
macro_rules! reduce_ops {
    ($then:ident) => {
        $then! {
            /// The sum
            Sum = sum, sum_dims, sum_keepdim, sum_per_seq {
                gradient: "Gradient g everywhere.",
                of_nothing: Neutral, "The sum of nothing is 0.",
                example: "10.0", "[5.0, 5.0]",
                neutral: 0.0,
                join: |a, b| a + b,
                agree: Terms,
            }
            /// The greatest value, NaN if there is one,
            Max = max, max_dims, max_keepdim, max_per_seq {
                gradient: "The gradient is shared equally among ties.",
                of_nothing: Refused, "Nothing has no maximum: an error.",
                example: "4.0", "[4.0, 3.0]",
                neutral: f64::NEG_INFINITY,
                join: |a, b| if a > b || a.is_nan() { a } else { b },
                agree: Bits,
            }
            /// The smallest value, NaN if there is one,
            Min = min, min_dims, min_keepdim, min_per_seq {
                gradient: "The gradient is shared equally among ties.",
                of_nothing: Refused, "Nothing has no minimum: an error.",
                example: "1.0", "[1.0, 2.0]",
                neutral: f64::INFINITY,
                join: |a, b| if a < b || a.is_nan() { a } else { b },
                agree: Bits,
            }
        }
    };
}

pub(crate) use {binary_ops, compare_ops, reduce_ops, unary_ops};
