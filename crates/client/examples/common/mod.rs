//! What the examples share: text, a service to train on, a progress bar, curves and tables.
#![allow(dead_code, unused_imports, reason = "each example uses a part of this module")]

mod curves;
mod progress;
mod service;
mod table;
mod text;

pub use curves::Curves;
pub use progress::Progress;
pub use service::{Service, continuation, datum, logprobs, mean, start_of_text};
pub use table::Table;
pub use text::{Rng, Split, shuffle_words};
