//! Sampling from a model.

pub(crate) mod client;
pub(crate) mod completions;
pub(crate) mod sample;
