//! The decoder: configuration, frozen weights, LoRA, the forward pass and sampling from it.

mod choose;
mod config;
mod decode;
mod forward;
mod layout;
mod lora;
mod pretrained;
mod rope;
#[cfg(test)]
pub(crate) mod tests;
mod weights;

pub use choose::Choice;
pub use config::{Architecture, ModelConfig, PRESETS, RopeScaling};
pub use decode::{Continuation, Generate, Generated};
pub(crate) use forward::logprobs;
pub(crate) use layout::Layout;
pub(crate) use lora::Lora;
pub use lora::{ALPHA, Adapter, LoraConfig};
pub use weights::Model;
