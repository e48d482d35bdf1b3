//! What the training services agree on: sessions, requests whose results come later, and how
//! servers differ.

pub(crate) mod background;
pub(crate) mod chunking;
pub(crate) mod endpoints;
pub(crate) mod fireworks;
pub(crate) mod flavour;
pub(crate) mod future;
pub(crate) mod heartbeat;
pub(crate) mod poll;
pub(crate) mod session;
