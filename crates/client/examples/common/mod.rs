//! What the examples share: text, a service to train on, a progress bar, curves and tables.
#![allow(dead_code, reason = "each example uses a part of this module")]

mod curves;
mod progress;
mod table;
mod text;

pub use curves::Curves;
pub use progress::Progress;
pub use table::Table;
pub use text::{Rng, Split};
