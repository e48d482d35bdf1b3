//! The methods of [`Var`](crate::Var), one family a file.

mod binary;
mod compare;
mod custom;
mod index;
mod matmul;
mod normalise;
mod reduce;
mod segment;
mod shape;
mod unary;

pub use binary::Operand;

/// Records a composite, attributing its parts to the line that called the method.
macro_rules! composite {
    ($($body:tt)*) => {
        $crate::located(std::panic::Location::caller(), || { $($body)* })
    };
}
pub(crate) use composite;
