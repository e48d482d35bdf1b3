//! What the end-to-end tests share: a clock that stands still, a proxy that does harm, and a small
//! model to train.

mod clock;
pub mod guide;
mod proxy;
mod setup;

pub use clock::StillClock;
pub use proxy::{Action, Proxy, Reply, Request, listener};
pub use setup::{BASE_MODEL, adam, connect, data, datum, train, train_in_json, unnamed, weights};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
