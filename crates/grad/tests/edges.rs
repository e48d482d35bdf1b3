//! Values and derivatives at the ends of the range of floats, and where a formula as written would
//! be 0/0 or 0 · inf.

use tinsmith_grad::{DType, Device, Executor, Ragged, Var, grad, with_executor};

fn vector(data: &[f64]) -> Var {
    Var::from_vec(data.to_vec(), &[data.len()], &Device::Cpu)
}

fn vector32(data: &[f32]) -> Var {
    Var::from_vec(data.to_vec(), &[data.len()], &Device::Cpu)
}

fn on_both(test: impl Fn()) {
    for executor in [Executor::Fused { threads: 1 }, Executor::Reference] {
        with_executor(executor, &test);
    }
}

fn slope(y: &Var, x: &Var) -> Vec<f64> {
    let g = grad(&y.sum(), &[x]).unwrap().remove(0);
    g.to_dtype(DType::F64).to_vec().unwrap()
}

fn near(found: f64, expected: f64, precision: f64) -> bool {
    found == expected || (found - expected).abs() <= precision * expected.abs()
}

/// Right to the last digits where the function itself is flat: e^x, s(x) s(-x) and 1 / cosh² x.
#[test]
fn slopes_keep_their_precision_in_the_tails() {
    type Case = (fn(&Var) -> Var, fn(f64) -> f64);
    let cases: [Case; 3] = [
        (|x| x.expm1(), f64::exp),
        (|x| x.sigmoid(), |x| 1.0 / (2.0 + x.exp() + (-x).exp())),
        (|x| x.tanh(), |x| x.cosh().powi(-2)),
    ];
    let points = [-40.0, -20.0, -9.0, -1.0, -1e-3, 0.0, 0.3, 2.0, 12.0, 20.0, 40.0];
    on_both(|| {
        for (i, (of_var, expected)) in cases.iter().enumerate() {
            let x = vector(&points);
            let narrow = vector32(&points.map(|x| x as f32));
            for (&at, (wide, narrow)) in points
                .iter()
                .zip(slope(&of_var(&x), &x).iter().zip(slope(&of_var(&narrow), &narrow)))
            {
                assert!(
                    near(*wide, expected(at), 1e-14),
                    "case {i} at {at}: {wide:e}, not {:e}",
                    expected(at)
                );
                let rounded = expected(f64::from(at as f32));
                assert!(
                    near(narrow, rounded, 2e-6) || rounded < 1e-34,
                    "case {i} at {at}: {narrow:e}, not {rounded:e}"
                );
            }
            // And the second derivative at 0 of an even slope, the third one too.
            let zero = vector(&[0.0]);
            let first = grad(&of_var(&zero).sum(), &[&zero]).unwrap().remove(0);
            let second = grad(&first.sum(), &[&zero]).unwrap().remove(0);
            let third = slope(&second, &zero)[0];
            assert!(near(third, [1.0, -0.125, -2.0][i], 1e-14), "case {i}: {third}");
        }
    });
}

#[test]
fn a_norm_neither_overflows_nor_vanishes() {
    on_both(|| {
        for scale in [1e-320, 1e-300, 1e-170, 1e-30, 1.0, 1e154, 1e200, 1e307] {
            let x = vector(&[3.0 * scale, -4.0 * scale]);
            assert!(near(x.norm().item().unwrap(), 5.0 * scale, 1e-3), "{scale:e}");
            let slope = slope(&x.norm(), &x);
            assert!(
                near(slope[0], 0.6, 1e-3) && near(slope[1], -0.8, 1e-3),
                "{scale:e}: {slope:?}"
            );
        }
        for scale in [1e-38f32, 3e-30, 1.0, 1e20, 5e37] {
            let x = vector32(&[3.0 * scale, -4.0 * scale]);
            assert!(near(x.norm().item().unwrap(), f64::from(5.0 * scale), 1e-6), "{scale:e}");
            let slope = slope(&x.norm(), &x);
            assert!(
                near(slope[0], 0.6, 1e-6) && near(slope[1], -0.8, 1e-6),
                "{scale:e}: {slope:?}"
            );
        }
        let x = vector(&[0.0, 0.0]);
        assert_eq!((x.norm().item().unwrap(), slope(&x.norm(), &x)), (0.0, vec![0.0, 0.0]));
        assert_eq!(vector(&[]).norm().item().unwrap(), 0.0);
        assert_eq!(vector(&[1.0, f64::NEG_INFINITY]).norm().item().unwrap(), f64::INFINITY);
        assert!(vector(&[1.0, f64::NAN]).norm().item().unwrap().is_nan());
    });
}

#[test]
fn equal_numbers_do_not_deviate() {
    on_both(|| {
        for n in 2..17 {
            for i in (1..100).step_by(7) {
                let value = f64::from(i) / 100.0 + 1e3 * f64::from(i % 7);
                for x in [vector(&vec![value; n]), vector32(&vec![value as f32; n])] {
                    for correction in [0.0, 1.0] {
                        let std = x.std_dims(&[0], correction);
                        assert_eq!(
                            std.to_dtype(DType::F64).item().unwrap(),
                            0.0,
                            "{n} times {value}"
                        );
                        assert_eq!(slope(&std, &x), vec![0.0; n], "{n} times {value}");
                        assert_eq!(
                            x.var_dims(&[0], correction).to_dtype(DType::F64).item().unwrap(),
                            0.0
                        );
                    }
                }
            }
        }
        assert!(vector(&[]).std_dims(&[0], 0.0).item().unwrap().is_nan());
    });
}

/// Rows of -inf only, as a mask leaves them, which the loss does not use.
#[test]
fn a_masked_row_that_is_not_used_has_no_gradient() {
    let inf = f64::INFINITY;
    on_both(|| {
        let x = Var::from_vec(vec![0.0, 0.0, -inf, -inf, -inf, 1.0], &[3, 2], &Device::Cpu);
        let used = Var::from_vec(vec![1u8, 0, 1], &[3], &Device::Cpu);
        let lse = x.logsumexp(-1);
        assert_eq!(lse.to_vec::<f64>().unwrap(), [2f64.ln(), -inf, 1.0]);
        let expected = [0.5, 0.5, 0.0, 0.0, 0.0, 1.0];
        assert_eq!(slope(&used.select(&lse, 0.0), &x), expected);

        let flat = x.reshape(&[6]);
        let by_seq = Ragged::new(flat, &[2, 2, 2]).logsumexp_per_seq();
        assert_eq!(slope(&used.select(&by_seq, 0.0), &x), expected);
        let log_softmax = x.log_softmax(-1);
        let chosen = used.reshape(&[3, 1]).select(&log_softmax, 0.0).narrow(1, 1, 1);
        assert_eq!(slope(&chosen, &x), [-0.5, 0.5, 0.0, 0.0, 0.0, 0.0]);

        let softmax = x.softmax(-1);
        let by_seq = Ragged::new(x.reshape(&[6]), &[2, 2, 2]).softmax_per_seq();
        for softmax in [softmax, by_seq.values().reshape(&[3, 2])] {
            assert!(softmax.narrow(0, 1, 1).sum().item().unwrap().is_nan());
            let chosen = used.reshape(&[3, 1]).select(&softmax, 0.0).narrow(1, 1, 1);
            assert_eq!(slope(&chosen, &x), [-0.25, 0.25, 0.0, 0.0, 0.0, 0.0]);
        }
    });
}

/// PyTorch 2.15: `torch.pow(torch.tensor(0.), p)` for p of 2, 0 and -1 has gradients 0, 0 and -inf
/// by p.
#[test]
fn the_exponent_of_a_base_of_0() {
    on_both(|| {
        let (base, exponent) = (vector(&[0.0, 0.0, 0.0, 2.0]), vector(&[2.0, 0.0, -1.0, 3.0]));
        let found = slope(&base.pow(&exponent), &exponent);
        assert_eq!(found[..3], [0.0, 0.0, f64::NEG_INFINITY]);
        assert!(near(found[3], 8.0 * 2f64.ln(), 1e-15));
    });
}

#[test]
fn a_bound_that_is_nan_gives_nan() {
    on_both(|| {
        let x = vector(&[1.0, 2.0]);
        for clamped in [
            x.clamp(f64::NAN, 3.0),
            x.clamp(0.0, f64::NAN),
            x.clamp_min(f64::NAN),
            x.clamp_max(f64::NAN),
        ] {
            assert!(clamped.to_vec::<f64>().unwrap().iter().all(|x| x.is_nan()));
        }
    });
}

/// Each step of a loop narrows the same weight out again. One piece a step would be one layer of
/// the whole a step.
#[test]
fn pieces_taken_again_and_again_are_summed_as_pieces() {
    const N: usize = 20_000;
    let weights = Var::from_vec(vec![1f64; N], &[N], &Device::Cpu);
    let mut total = Var::scalar(0.0);
    for i in 0..N {
        total = total + (weights.narrow(0, 0, 1) * (i % 2) as f64).sum().tanh();
    }
    let slope = slope(&total, &weights);
    assert!(near(slope[0], N as f64 / 2.0 * 1f64.cosh().powi(-2), 1e-9), "{}", slope[0]);
    assert!(slope[1..].iter().all(|&g| g == 0.0));

    // Equal, overlapping and nested pieces, in two dimensions.
    let x = Var::from_vec((0..12).map(f64::from).collect(), &[3, 4], &Device::Cpu);
    let pieces: [(isize, usize, usize); 8] =
        [(0, 0, 2), (0, 0, 2), (0, 0, 1), (0, 1, 2), (1, 1, 2), (1, 1, 2), (1, 3, 1), (0, 0, 3)];
    let mut expected = vec![0.0; 12];
    let mut loss = Var::scalar(0.0);
    for (k, &(dim, start, len)) in pieces.iter().enumerate() {
        loss = loss + x.narrow(dim, start, len).sum() * (k + 1) as f64;
        for (at, slope) in expected.iter_mut().enumerate() {
            let place = if dim == 0 { at / 4 } else { at % 4 };
            *slope += if (start..start + len).contains(&place) { (k + 1) as f64 } else { 0.0 };
        }
    }
    assert_eq!(self::slope(&loss, &x), expected);
}
