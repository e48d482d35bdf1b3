//! What the end-to-end tests share: a clock that stands still, a proxy that does harm, and a small
//! model to train; and the tests of reliability, which also run for long as `cargo xtask soak`,
//! `kills` and `crowd`.

mod clock;
mod course;
pub mod crowd;
mod faults;
pub mod guide;
#[cfg(unix)]
pub mod kills;
mod proxy;
mod setup;
pub mod soak;
mod state;

pub use clock::{FastClock, StillClock};
pub use faults::{Fault, Tally, Weather, faults};
pub use proxy::{Action, Proxy, Reply, Request, listener};
pub use setup::{BASE_MODEL, adam, connect, data, datum, train, train_in_json, unnamed, weights};
pub use state::{Saved, saved};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
