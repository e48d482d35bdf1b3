/// Sealed traits can gain methods without breaking anyone.
pub trait Sealed {}

macro_rules! seal {
    ($($of:ty),*) => {
        $(impl crate::sealed::Sealed for $of {})*
    };
}
pub(crate) use seal;
