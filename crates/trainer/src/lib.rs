//! A local trainer that speaks the Tinker training protocol: a small transformer with LoRA, trained
//! on this machine.
//!
//! ```
//! let trainer = tinsmith_trainer::Trainer::spawn()?; // on a free port of 127.0.0.1, until dropped
//! println!("point a client at {} and ask for the base model `tiny-qwen3`", trainer.url());
//! # Ok::<_, tinsmith_trainer::Error>(())
//! ```
//!
//! The same as a program: `cargo run --release -p tinsmith-trainer -- --port 8000`.
//!
//! * The model is a Qwen3 or Llama decoder with frozen weights and a trained LoRA adapter
//!   ([`model`]); its gradients come from `tinsmith-grad`. The built-in models read bytes and have
//!   random weights; others are loaded from Hugging Face folders ([`Builder::model`]).
//! * Training requests of a model run in the order of their `seq_id`, from 1. One that arrives
//!   early waits; a resend is answered with the first answer and runs once; another body under a
//!   used id is a conflict (409). An id whose request was refused (4xx) may be sent again,
//!   corrected, or is stepped over by a later request.
//! * A bad request is refused at once, with `{"detail": ...}` naming the datum and the field. If a
//!   forward_backward fails later, the optim_step after it fails too, and changes nothing: no step
//!   is taken along part of a batch.
//! * It speaks both dialects: a pass is taken as JSON or protobuf by its `Content-Type`, results
//!   are given as `Accept` asks. A result of more than 256 KiB is announced first to those who
//!   allow that.
//! * Same seed, same requests: the same weights, bit for bit ([`Trainer::weights_digest`]).
//! * Checkpoints are safetensors files, each written wholly or not at all, and live as long as they
//!   are given. Listings show the models of this trainer, unloaded ones too, and not those of the
//!   one before.

mod bases;
mod batch;
mod checkpoint;
mod engine;
mod error;
mod files;
mod futures;
mod hub;
mod loss;
pub mod model;
mod optim;
mod outcome;
mod pass;
mod queue;
mod random;
mod server;
mod stats;
mod timestamp;
pub mod tokenizer;
mod trainer;
mod vocabulary;
mod worker;

pub use error::{Error, Result};
pub use stats::{Counts, ModelStats};
pub use trainer::{Builder, Trainer};
