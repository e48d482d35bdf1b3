//! `cargo xtask interop PEER`: runs scenarios against software that others wrote, and prints a
//! table of checks.
//!
//! Needs Python 3.11 or newer and a package index; what is installed stays under `target/interop`.
//! Never part of `cargo test`.

mod checks;
mod client;
mod environment;
mod python;
mod server;
mod skyrl;
mod tiny_model;
mod trainer;
mod tuft;

use anyhow::{Result, bail};

/// Fails when a check does.
pub fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["python"] => python::run(&python::VERSIONS),
        ["python", versions @ ..] => python::run(versions),
        ["skyrl"] => skyrl::run(),
        ["tuft"] => tuft::run(),
        _ => bail!("interop takes skyrl, tuft or python [VERSION..]; got {arguments:?}"),
    }
}
