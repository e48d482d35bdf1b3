//! What the training services agree on: sessions, requests whose results come later, and how
//! servers differ.

pub(crate) mod answer;
pub(crate) mod awaiting;
pub(crate) mod background;
pub(crate) mod chunking;
pub(crate) mod endpoints;
mod fireworks;
pub(crate) mod flavour;
pub(crate) mod future;
mod heartbeat;
pub(crate) mod poll;
pub(crate) mod session;
pub(crate) mod submit;
