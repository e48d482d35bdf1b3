//! A model in training: its requests in order, its weights saved and loaded.

pub(crate) mod arguments;
pub(crate) mod checkpoint;
pub(crate) mod checkpoint_path;
pub(crate) mod client;
pub(crate) mod combine;
pub(crate) mod history;
pub(crate) mod lr_schedule;
pub(crate) mod model;
pub(crate) mod optim;
pub(crate) mod preflight;
mod saved_sampler;
pub(crate) mod sequencer;
pub(crate) mod shared_arrays;
