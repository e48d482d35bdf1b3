//! Comparisons of integers with a plain number are those of the real numbers, whatever the dtype
//! can hold.

use proptest::prelude::*;
use tinsmith_grad::{DType, Device, Ragged, Tensor, Var};

type Compare =
    (fn(&Var, &Var) -> Var, fn(&Ragged, f64) -> Ragged, fn(&Rational, &Rational) -> bool);

/// A number as (whole part, whether there is a fraction above it): exact for every i64 and every
/// f64.
type Rational = Option<(i128, bool)>;

const ALL: &[Compare] = &[
    (|a, b| a.eq(b), |a, b| a.eq(b), |a, b| a.is_some() && a == b),
    (|a, b| a.ne(b), |a, b| a.ne(b), |a, b| a.is_none() || b.is_none() || a != b),
    (|a, b| a.lt(b), |a, b| a.lt(b), |a, b| a.is_some() && b.is_some() && a < b),
    (|a, b| a.le(b), |a, b| a.le(b), |a, b| a.is_some() && b.is_some() && a <= b),
    (|a, b| a.gt(b), |a, b| a.gt(b), |a, b| a.is_some() && b.is_some() && a > b),
    (|a, b| a.ge(b), |a, b| a.ge(b), |a, b| a.is_some() && b.is_some() && a >= b),
];

fn exact(c: f64) -> Rational {
    let whole = c.floor().clamp(-1e30, 1e30) as i128;
    (!c.is_nan()).then_some((whole, c.is_finite() && c != c.floor()))
}

/// Integers of one dtype, as a tensor and exactly.
fn integers(dtype: DType, bits: &[i64]) -> (Tensor, Vec<Rational>) {
    let n = bits.len();
    let (tensor, values): (_, Vec<i128>) = match dtype {
        DType::U8 => {
            let x: Vec<u8> = bits.iter().map(|&b| b as u8).collect();
            (Tensor::from_vec(x.clone(), n, &Device::Cpu), x.iter().map(|&x| x.into()).collect())
        }
        DType::U32 => {
            let x: Vec<u32> = bits.iter().map(|&b| b as u32).collect();
            (Tensor::from_vec(x.clone(), n, &Device::Cpu), x.iter().map(|&x| x.into()).collect())
        }
        _ => {
            let x = bits.to_vec();
            (Tensor::from_vec(x.clone(), n, &Device::Cpu), x.iter().map(|&x| x.into()).collect())
        }
    };
    (tensor.unwrap(), values.into_iter().map(|x| Some((x, false))).collect())
}

fn integer() -> impl Strategy<Value = i64> {
    prop_oneof![
        -3i64..300,
        any::<i64>(),
        prop::sample::select(vec![
            i64::MIN,
            i64::MAX,
            1 << 53,
            (1 << 53) + 1,
            (1 << 32) - 1,
            255,
            -1
        ]),
    ]
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        (-6i32..600).prop_map(|n| f64::from(n) / 2.0),
        any::<f64>(),
        any::<i64>().prop_map(|n| n as f64),
        prop::sample::select(vec![
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -0.0,
            -100.0,
            0.5,
            -0.5,
            1e-300,
            255.5,
            256.0,
            4294967295.0,
            4294967295.5,
            4294967296.0,
            9223372036854775807.0,
            -9223372036854775808.0,
            -9223372036854777856.0,
            9007199254740992.0,
            9007199254740994.0,
            1e300,
            -1e300,
        ]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn integers_compare_with_any_number_as_real_numbers(
        bits in prop::collection::vec(integer(), 1..5),
        c in number(),
        dtype in prop::sample::select(vec![DType::U8, DType::U32, DType::I64]),
    ) {
        let (tensor, values) = integers(dtype, &bits);
        let (x, number, c_exact) = (Var::new(tensor), Var::scalar(c), exact(c));
        for (i, (compare, compare_rows, holds)) in ALL.iter().enumerate() {
            let right: Vec<u8> = values.iter().map(|x| holds(x, &c_exact).into()).collect();
            let left: Vec<u8> = values.iter().map(|x| holds(&c_exact, x).into()).collect();
            prop_assert_eq!(compare(&x, &number).to_vec::<u8>().unwrap(), right.clone(), "{} of {:?} and {}", i, values, c);
            prop_assert_eq!(compare(&number, &x).to_vec::<u8>().unwrap(), left, "{} of {} and {:?}", i, c, values);
            let rows = Ragged::new(x.clone(), &[bits.len() - 1, 1]);
            prop_assert_eq!(compare_rows(&rows, c).values().to_vec::<u8>().unwrap(), right);
        }
    }
}

#[test]
fn a_mask_is_compared_with_a_half() {
    let mask = Var::from_vec(vec![0u8, 1], &[2], &Device::Cpu);
    assert_eq!(mask.gt(0.5).to_vec::<u8>().unwrap(), [0, 1]);
    assert_eq!(mask.lt(0.5).to_vec::<u8>().unwrap(), [1, 0]);
    let ids = Var::from_vec(vec![0u32, 7], &[2], &Device::Cpu);
    assert_eq!(ids.ne(-100.0).to_vec::<u8>().unwrap(), [1, 1]);
}
