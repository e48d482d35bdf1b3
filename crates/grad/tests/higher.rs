//! Higher derivatives against closed forms, finite differences and the identities that tie them
//! together.

mod support;

use proptest::prelude::*;
use support::{leaf, programs, smooth};
use tinsmith_grad::{
    DType, Device, Error, Result, Var, eval, grad, hessian, hvp, jacobian, jvp, vjp,
};

fn values(var: &Var) -> Vec<f64> {
    var.to_vec().unwrap()
}

fn assert_close(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= tolerance * scale, "{got:?} {want:?}");
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let total: f64 = x.iter().map(|x| x.exp()).sum();
    x.iter().map(|x| x.exp() / total).collect()
}

/// diag(s) - s sᵀ: the Jacobian of softmax and the Hessian of logsumexp.
fn softmax_jacobian(x: &[f64]) -> Vec<f64> {
    let s = softmax(x);
    let entry = |i: usize, j: usize| s[i] * (f64::from(i == j) - s[j]);
    let n = s.len();
    (0..n * n).map(|k| entry(k / n, k % n)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// x ↦ ½ xᵀ A x + b · x has the Hessian (A + Aᵀ) / 2, whatever x is.
    #[test]
    fn the_hessian_of_a_quadratic_form_is_its_symmetric_part(n in 1usize..7, seed in any::<u64>()) {
        let (a, b) = (leaf(seed, &[n, n]), leaf(seed ^ 1, &[n]));
        let (x, v) = (leaf(seed ^ 2, &[n]), leaf(seed ^ 3, &[n]));
        let loss = x.dot(&a.matmul(&x)) * 0.5 + b.dot(&x);

        let entries = values(&a);
        let symmetric: Vec<f64> = (0..n * n)
            .map(|k| (entries[k] + entries[k % n * n + k / n]) / 2.0)
            .collect();
        let direction = values(&v);
        let product: Vec<f64> = symmetric.chunks(n).map(|row| dot(row, &direction)).collect();

        assert_close(&values(&hessian(&loss, &[&x]).unwrap()[0][0]), &symmetric, 1e-13);
        assert_close(&values(&hvp(&loss, &[&x], &[&v]).unwrap()[0]), &product, 1e-13);
    }

    #[test]
    fn softmax_and_logsumexp_have_the_covariance_of_a_category(n in 1usize..7, seed in any::<u64>()) {
        let (x, v) = (leaf(seed, &[n]), leaf(seed ^ 1, &[n]));
        let (at, direction) = (values(&x), values(&v));
        let covariance = softmax_jacobian(&at);
        let along: Vec<f64> = covariance.chunks(n).map(|row| dot(row, &direction)).collect();

        assert_close(&values(&jacobian(&x.softmax(0), &[&x]).unwrap()[0]), &covariance, 1e-13);
        assert_close(&values(&jvp(&x.softmax(0), &[&x], &[&v]).unwrap()), &along, 1e-13);
        // The matrix is symmetric, so both products are the same.
        assert_close(&values(&vjp(&x.softmax(0), &[&x], &v).unwrap()[0]), &along, 1e-13);

        assert_close(&values(&hessian(&x.logsumexp(0), &[&x]).unwrap()[0][0]), &covariance, 1e-13);
        assert_close(&values(&hvp(&x.logsumexp(0), &[&x], &[&v]).unwrap()[0]), &along, 1e-13);
    }

    /// On graphs of every smooth op: as the leaves move by h v, the value changes by h jvp and the
    /// gradient by h hvp.
    #[test]
    fn products_match_central_differences(program in programs()) {
        let leaves = program.leaves();
        let wrt: Vec<&Var> = leaves.iter().collect();
        let vectors: Vec<Var> = leaves.iter().enumerate().map(|(i, x)| leaf(77 + i as u64, x.shape())).collect();
        let vectors: Vec<&Var> = vectors.iter().collect();
        let moved = |h: f64| -> Vec<Var> {
            let at = |(x, v): (&Var, &&Var)| Var::new((x + *v * h).tensor().unwrap());
            leaves.iter().zip(&vectors).map(at).collect()
        };
        let value_and_gradient = |leaves: &[Var]| -> Vec<f64> {
            let loss = program.record(leaves, &smooth());
            let mut roots = grad(&loss, &leaves.iter().collect::<Vec<_>>()).unwrap();
            roots.insert(0, loss);
            roots.iter().flat_map(values).collect()
        };
        let h = 1e-6;
        let (after, before) = (value_and_gradient(&moved(h)), value_and_gradient(&moved(-h)));
        let numeric: Vec<f64> = after.iter().zip(&before).map(|(a, b)| (a - b) / (2.0 * h)).collect();

        let loss = program.record(&leaves, &smooth());
        let mut analytic = values(&jvp(&loss, &wrt, &vectors).unwrap());
        analytic.extend(hvp(&loss, &wrt, &vectors).unwrap().iter().flat_map(values));
        assert_close(&analytic, &numeric, 1e-5);
    }

    /// u · (J v) = (Jᵀ u) · v, and u · (H v) = (H u) · v.
    #[test]
    fn products_are_adjoint(program in programs(), seed in any::<u64>()) {
        let leaves = program.leaves();
        let x = &leaves[0];
        let (u, v) = (leaf(seed, x.shape()), leaf(seed ^ 1, x.shape()));
        let loss = program.record(&leaves, &smooth());
        let slope = &grad(&loss, &[x]).unwrap()[0];

        let pushed = dot(&values(&u), &values(&jvp(&slope.tanh(), &[x], &[&v]).unwrap_or_else(|_| slope.detach() * 0.0)));
        let pulled = vjp(&slope.tanh(), &[x], &u).map_or(0.0, |g| dot(&values(&g[0]), &values(&v)));
        prop_assert!((pushed - pulled).abs() <= 1e-10 * pushed.abs().max(1.0), "{pushed} {pulled}");

        let one = dot(&values(&u), &values(&hvp(&loss, &[x], &[&v]).unwrap()[0]));
        let other = dot(&values(&v), &values(&hvp(&loss, &[x], &[&u]).unwrap()[0]));
        prop_assert!((one - other).abs() <= 1e-10 * one.abs().max(1.0), "{one} {other}");
    }
}

/// xᵀ y with x in f32 and y in f64: the Hessian is the identity off the diagonal and 0 on it.
#[test]
fn leaves_may_differ_in_shape_and_dtype() -> Result<()> {
    let x = leaf(1, &[2, 3]);
    let y = Var::new(leaf(2, &[6]).to_dtype(DType::F32).tensor()?);
    let loss = x.reshape(&[6]).dot(&y.to_dtype(DType::F64));
    let v = Var::new(leaf(3, &[2, 3]).tensor()?);
    let w = Var::from_vec(vec![0.5f32; 6], &[6], &Device::Cpu);

    let products = hvp(&loss, &[&x, &y], &[&v, &w])?;
    assert_eq!((products[0].shape(), products[0].dtype()), (&[2, 3][..], DType::F64));
    assert_eq!(values(&products[0]), [0.5; 6]);
    let expected: Vec<f32> = values(&v).iter().map(|&v| v as f32).collect();
    assert_eq!(products[1].to_vec::<f32>()?, expected);

    let blocks = hessian(&loss, &[&x, &y])?;
    assert_eq!(blocks[0][1].shape(), [2, 3, 6]);
    assert_eq!(blocks[0][0].sum().item()?, 0.0);
    assert_eq!(blocks[1][0].sum().item()?, 6.0);
    Ok(())
}

/// xᵀ H x: the vector is held constant although it is the leaf itself.
#[test]
fn a_vector_may_be_the_leaf_itself() -> Result<()> {
    let x = Var::from_vec(vec![1f64, 2.0], &[2], &Device::Cpu);
    let product = &hvp(&x.powf(3.0).sum(), &[&x], &[&x])?[0];
    assert_eq!(values(product), [6.0, 24.0]); // 6 x · x
    // And the product is a graph: its own derivative is that of 6 x².
    assert_eq!(values(&grad(&product.sum(), &[&x])?[0]), [12.0, 24.0]);
    Ok(())
}

#[test]
fn empty_and_scalar_shapes_have_derivatives_too() -> Result<()> {
    let x = Var::zeros(&[0], DType::F64, &Device::Cpu);
    let none = Var::new(x.tensor()?);
    assert_eq!(jacobian(&none.exp(), &[&none])?[0].shape(), [0, 0]);
    assert!(hvp(&leaf(1, &[2]).sum(), &[], &[])?.is_empty());
    assert_eq!(values(&jvp(&leaf(1, &[2]), &[], &[])?), [0.0, 0.0]);

    let x = Var::from_vec(vec![3f64], &[], &Device::Cpu);
    let roots = [&jacobian(&x.square(), &[&x])?[0], &hessian(&x.square(), &[&x])?[0][0]];
    for (tensor, expected) in eval(&roots)?.iter().zip([6.0, 2.0]) {
        assert_eq!((tensor.rank(), tensor.to_scalar::<f64>().unwrap()), (0, expected));
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_an_error_with_the_callers_line() {
    let (x, y) = (leaf(1, &[3]), leaf(2, &[3]));
    let loss = x.square().sum();
    let line = line!() + 1;
    let misfit = hvp(&loss, &[&x], &[&leaf(3, &[1, 3])]).unwrap_err();
    assert!(
        matches!(&misfit, Error::Shape { op: "hvp", shapes, at, .. } if *shapes == [vec![3], vec![1, 3]] && at.line() == line),
        "{misfit}"
    );

    let narrow = y.to_dtype(DType::F32);
    assert!(matches!(jvp(&x.exp(), &[&x], &[&narrow]), Err(Error::DType { op: "jvp", .. })));
    assert!(matches!(hvp(&loss, &[&x], &[]), Err(Error::Argument { op: "hvp", .. })));
    assert!(matches!(hvp(&x.square(), &[&x], &[&y]), Err(Error::NotScalar { op: "square", .. })));
    assert!(matches!(hessian(&x.square(), &[&x]), Err(Error::NotScalar { .. })));
    assert!(matches!(vjp(&x.square(), &[&x], &loss), Err(Error::Shape { .. })));
    for unused in [
        hvp(&loss, &[&x, &y], &[&y, &y]).err(),
        jvp(&x.exp(), &[&y], &[&x]).err(),
        jacobian(&x.exp(), &[&x, &y]).err(),
        hessian(&loss, &[&y]).err(),
        vjp(&x.exp(), &[&y], &x).err(),
    ] {
        assert!(matches!(unused, Some(Error::Unused { .. })), "{unused:?}");
    }
    let broken = x.reshape(&[2]);
    assert!(matches!(jacobian(&broken, &[&x]), Err(Error::Shape { op: "reshape", .. })));
    assert!(matches!(hvp(&loss, &[&x], &[&broken]), Err(Error::Shape { op: "reshape", .. })));
}
