//! Looking at a graph: what it depends on, where a value belongs, how it prints.

pub(crate) mod dump;
pub(crate) mod non_finite;
pub(crate) mod place;
pub(crate) mod reach;
