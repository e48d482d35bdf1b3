//! What is recorded: nodes, the primitives they hold, and walks over them.

pub(crate) mod caller;
pub(crate) mod custom;
pub(crate) mod differentiable;
pub(crate) mod dims;
pub(crate) mod element;
pub(crate) mod op;
pub(crate) mod segments;
pub(crate) mod table;
pub(crate) mod var;
pub(crate) mod walk;
