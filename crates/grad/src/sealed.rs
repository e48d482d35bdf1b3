//! Traits that this crate alone implements, so that they can gain methods.

use crate::{Ragged, Var};

pub trait Sealed {}

macro_rules! seal {
    ($($of:ty),*) => {
        $(impl Sealed for $of {})*
    };
}
seal!(u8, u32, i64, f32, f64, Var, &Var, Ragged, &Ragged);
