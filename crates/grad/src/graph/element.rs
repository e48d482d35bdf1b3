use std::sync::Arc;

use candle_core::WithDType;

use crate::sealed::{Sealed, seal};

/// Numbers that a [`Var`](crate::Var) can hold: `f32` and `f64` to compute with, `u32` and `i64` as
/// indices, `u8` as masks.
pub trait Element: WithDType + Sealed {
    /// The numbers to compute with, told apart.
    #[doc(hidden)]
    fn floats(_: &mut [Self]) -> Option<Floats<'_>> {
        None
    }

    /// The same for memory that is shared.
    #[doc(hidden)]
    fn shared(_: &Arc<[Self]>) -> Option<SharedFloats> {
        None
    }
}

#[derive(Debug)]
pub enum Floats<'a> {
    F32(&'a mut [f32]),
    F64(&'a mut [f64]),
}

#[derive(Debug)]
pub enum SharedFloats {
    F32(Arc<[f32]>),
    F64(Arc<[f64]>),
}

impl Element for f32 {
    fn shared(numbers: &Arc<[f32]>) -> Option<SharedFloats> {
        Some(SharedFloats::F32(numbers.clone()))
    }

    fn floats(numbers: &mut [f32]) -> Option<Floats<'_>> {
        Some(Floats::F32(numbers))
    }
}

impl Element for f64 {
    fn shared(numbers: &Arc<[f64]>) -> Option<SharedFloats> {
        Some(SharedFloats::F64(numbers.clone()))
    }

    fn floats(numbers: &mut [f64]) -> Option<Floats<'_>> {
        Some(Floats::F64(numbers))
    }
}

seal!(u8, u32, i64, f32, f64);
impl Element for u8 {}
impl Element for u32 {}
impl Element for i64 {}
