//! Shapes of arguments. Broadcasting would make another loss of `[n, 1]` where `[n]` is meant,
//! without an error, so each loss states the shapes that it takes.

use tinsmith_grad::{Error, Ragged, Var, here};

/// Replaces each batch by itself, or by the error that it has not the shape `[tokens]`.
macro_rules! tokens {
    ($op:expr; $($x:ident),+) => {
        $(let $x = &$crate::inputs::per_token($op, stringify!($x), $x);)+
    };
}
pub(crate) use tokens;

/// Replaces each batch by itself, or by the error that the first has not the shape `[tokens, K]`,
/// or another not the first's.
macro_rules! slots {
    ($op:expr; $first:ident $(, $x:ident)*) => {
        let $first = &$crate::inputs::per_slot($op, stringify!($first), $first);
        $(let $x = &$crate::inputs::like($op, stringify!($x), $x, $first);)*
    };
}
pub(crate) use slots;

/// Replaces each batch but the first by itself, or by the error that its rows have not the shape of
/// the first's.
macro_rules! alike {
    ($op:expr; $first:ident, $($x:ident),+) => {
        $(let $x = &$crate::inputs::like($op, stringify!($x), $x, $first);)+
    };
}
pub(crate) use alike;

/// `x`, which is `[tokens]`.
#[track_caller]
pub(crate) fn per_token(op: &'static str, name: &str, x: &Ragged) -> Ragged {
    checked(op, name, x, x.values().rank() == 1, "one number a token, [tokens]")
}

/// `x`, which is `[tokens, K]`.
#[track_caller]
pub(crate) fn per_slot(op: &'static str, name: &str, x: &Ragged) -> Ragged {
    checked(op, name, x, x.values().rank() == 2, "K numbers a token, [tokens, K]")
}

/// `x`, whose rows have the shape of `first`'s. Lengths are left to the op that joins the two.
#[track_caller]
pub(crate) fn like(op: &'static str, name: &str, x: &Ragged, first: &Ragged) -> Ragged {
    let trailing = |x: &Ragged| x.values().shape().get(1..).map(<[usize]>::to_vec);
    let fits = first.values().error().is_some() || trailing(x) == trailing(first);
    checked(op, name, x, fits, "of the same shape as the first argument")
}

#[track_caller]
fn checked(op: &'static str, name: &str, x: &Ragged, fits: bool, want: &str) -> Ragged {
    match fits || x.values().error().is_some() {
        true => x.clone(),
        false => refused(x, misshapen(op, name, x.values(), want)),
    }
}

/// `x`, which is `[n]`.
#[track_caller]
pub(crate) fn per_seq(op: &'static str, name: &str, x: &Var, n: usize) -> Var {
    match x.error().is_some() || x.shape() == [n] {
        true => x.clone(),
        false => misshapen(op, name, x, &format!("one number a sequence, [{n}]")).into(),
    }
}

/// `x`, which is one number.
#[track_caller]
pub(crate) fn scalar(op: &'static str, name: &str, x: &Var) -> Var {
    match x.error().is_some() || x.rank() == 0 {
        true => x.clone(),
        false => misshapen(op, name, x, "one number, []").into(),
    }
}

#[track_caller]
fn misshapen(op: &'static str, name: &str, x: &Var, want: &str) -> Error {
    let shapes = vec![x.shape().to_vec()];
    Error::Shape { op, shapes, why: format!("of `{name}` is to be {want}"), at: here() }
}

/// A batch like `x` that carries `error`.
#[track_caller]
pub(crate) fn refused(x: &Ragged, error: Error) -> Ragged {
    x.map(|_| Var::from(error))
}

/// The error that an option is out of its range.
#[track_caller]
pub(crate) fn out_of_range(op: &'static str, why: String) -> Error {
    Error::Argument { op, why, at: here() }
}

/// Replaces a batch by itself, or by the error that an option is negative, infinite or NaN. Options
/// are fields of a configuration, or arguments.
macro_rules! coefficients {
    ($op:expr, $x:ident; $($config:ident.$name:ident),+) => {
        let named = [$((stringify!($name), $config.$name)),+];
        let $x = &$crate::inputs::scaled_by($op, $x, &named);
    };
    ($op:expr, $x:ident; $name:ident) => {
        let $x = &$crate::inputs::scaled_by($op, $x, &[(stringify!($name), $name)]);
    };
}
pub(crate) use coefficients;

/// `x`, or the error that one of the `coefficients` is negative, infinite or NaN.
#[track_caller]
pub(crate) fn scaled_by(op: &'static str, x: &Ragged, coefficients: &[(&str, f64)]) -> Ragged {
    let bad = coefficients.iter().find(|(_, c)| !(*c >= 0.0 && c.is_finite()));
    match bad {
        None => x.clone(),
        Some((name, c)) => refused(
            x,
            out_of_range(op, format!("`{name}` is {c}; it must be 0 or more, and finite")),
        ),
    }
}

/// `x`, or the error that the option is not above 0 and finite.
#[track_caller]
pub(crate) fn positive_finite(op: &'static str, name: &str, x: f64) -> Result<f64, Error> {
    match x > 0.0 && x.is_finite() {
        true => Ok(x),
        false => Err(out_of_range(op, format!("`{name}` is {x}; it must be above 0 and finite"))),
    }
}

/// `x`, or the error that the option is not above 0, as NaN is not.
#[track_caller]
pub(crate) fn positive(op: &'static str, name: &str, x: f64) -> Result<f64, Error> {
    match x > 0.0 {
        true => Ok(x),
        false => Err(out_of_range(op, format!("`{name}` is {x}; it must be above 0"))),
    }
}
