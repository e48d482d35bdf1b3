//! The source line, and the op, that what is being recorded is attributed to.

use std::cell::Cell;
use std::panic::Location;

use crate::error::Loc;

thread_local! {
    static ATTRIBUTED: Cell<Option<Caller>> = const { Cell::new(None) };
}

/// What is being recorded, seen from the user's source.
#[derive(Clone, Copy)]
struct Caller {
    at: Loc,
    /// The op whose derivative it is.
    derivative_of: Option<&'static str>,
}

/// Runs `record`, attributing every op that it records to the source line `at`.
///
/// A loss function that is made of several ops uses this, so that an error names the line of its
/// caller rather than a line inside of it. Where such functions nest, the outermost line wins.
///
/// ```
/// use std::panic::Location;
/// use tinsmith_grad::{Device, DType, Var, located};
///
/// #[track_caller]
/// fn mean_squared_error(x: &Var, y: &Var) -> Var {
///     located(Location::caller(), || (x - y).square().mean())
/// }
///
/// let x = Var::zeros(&[2], DType::F32, &Device::Cpu);
/// let y = Var::zeros(&[3], DType::F32, &Device::Cpu);
/// let line = line!() + 1;
/// let error = mean_squared_error(&x, &y).item().unwrap_err();
/// assert!(error.to_string().contains(&format!(":{line}:")));
/// ```
pub fn located<R>(at: Loc, record: impl FnOnce() -> R) -> R {
    let caller = ATTRIBUTED.get().unwrap_or(Caller { at, derivative_of: None });
    with(caller, record)
}

/// As [`located`], but `at` wins over an enclosing line.
pub(crate) fn attribute<R>(at: Loc, record: impl FnOnce() -> R) -> R {
    let derivative_of = derivative_of();
    with(Caller { at, derivative_of }, record)
}

/// What `record` records is part of the derivative of op `of`, which was recorded at `at`.
pub(crate) fn derivative<R>(of: &'static str, at: Loc, record: impl FnOnce() -> R) -> R {
    let derivative_of = Some(of);
    with(Caller { at, derivative_of }, record)
}

/// The op whose derivative is being recorded.
pub(crate) fn derivative_of() -> Option<&'static str> {
    ATTRIBUTED.get().and_then(|caller| caller.derivative_of)
}

fn with<R>(caller: Caller, record: impl FnOnce() -> R) -> R {
    struct Restore(Option<Caller>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ATTRIBUTED.set(self.0);
        }
    }
    let _restore = Restore(ATTRIBUTED.replace(Some(caller)));
    record()
}

/// The line to blame for what is being recorded: that of [`located`], or else the caller's.
///
/// For functions outside of this crate that refuse their arguments with an [`Error`](crate::Error)
/// of their own.
///
/// ```
/// use std::panic::Location;
/// use tinsmith_grad::{DType, Device, Error, Var, here, located};
///
/// #[track_caller]
/// fn halves(x: &Var) -> Var {
///     located(Location::caller(), || match x.elem_count() % 2 {
///         0 => x.reshape(&[2, x.elem_count() / 2]),
///         _ => Var::from(Error::Argument { op: "halves", why: "odd".into(), at: here() }),
///     })
/// }
///
/// let line = line!() + 1;
/// let odd = halves(&Var::zeros(&[3], DType::F32, &Device::Cpu));
/// assert!(odd.error().unwrap().to_string().contains(&format!(":{line}:")));
/// ```
#[track_caller]
pub fn here() -> Loc {
    ATTRIBUTED.get().map_or(Location::caller(), |caller| caller.at)
}
