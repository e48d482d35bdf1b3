use candle_core::WithDType;

/// Numbers that a [`Var`](crate::Var) can hold: `f32` and `f64` to compute with, `u32` and `i64` as indices, `u8` as masks.
pub trait Element: WithDType {
    /// The numbers to compute with, told apart.
    #[doc(hidden)]
    fn floats(_: &mut [Self]) -> Option<Floats<'_>> {
        None
    }
}

pub enum Floats<'a> {
    F32(&'a mut [f32]),
    F64(&'a mut [f64]),
}

impl Element for f32 {
    fn floats(numbers: &mut [f32]) -> Option<Floats<'_>> {
        Some(Floats::F32(numbers))
    }
}

impl Element for f64 {
    fn floats(numbers: &mut [f64]) -> Option<Floats<'_>> {
        Some(Floats::F64(numbers))
    }
}

impl Element for u8 {}
impl Element for u32 {}
impl Element for i64 {}
