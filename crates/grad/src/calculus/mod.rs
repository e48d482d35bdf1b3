//! Derivatives: the rules, the driver that applies them, and what is built on it.

pub(crate) mod backward;
pub(crate) mod gradcheck;
pub(crate) mod higher;
pub(crate) mod vjp;
