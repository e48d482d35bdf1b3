//! A loss of the user's own, in two passes.

pub(crate) mod batch;
pub(crate) mod check;
pub(crate) mod loss;
pub(crate) mod precomputed;
pub(crate) mod record;
pub(crate) mod server_side;
pub(crate) mod two_passes;
