//! Derivatives: the rules, the driver that applies them, and what is built on it.

pub(crate) mod backward;
mod driver;
pub(crate) mod gradcheck;
pub(crate) mod gradients;
pub(crate) mod higher;
pub(crate) mod vjp;
