//! The trainer as a client sees it: over HTTP.

mod checkpoints;
mod dialects;
mod listing;
mod order;
mod pretrained;
mod refusals;
mod sampling;
mod sessions;
mod support;
mod training;
