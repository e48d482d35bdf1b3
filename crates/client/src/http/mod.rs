//! HTTP to one server, with no word of training in it: a connection, the credential that is sent on
//! it, and calls with their retries.

pub(crate) mod address;
pub(crate) mod api;
pub(crate) mod auth;
pub(crate) mod buffer_pool;
pub(crate) mod connection;
mod download;
mod error_body;
pub(crate) mod key_command;
mod masked;
pub(crate) mod message;
mod no_proxy;
mod phase;
pub(crate) mod proxy;
pub(crate) mod retry;
pub(crate) mod route;
pub(crate) mod semaphore;
pub(crate) mod tls;
