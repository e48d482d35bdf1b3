//! What can be said to a server, and how it takes what it is sent.

use serde::Serialize;

/// How JSON and protobuf divide the work on the wire.
///
/// A server that answers `client/config` is taken to speak protobuf, one that does not know it (404
/// or 405) JSON.
///
/// ```
/// use tinsmith_client::{Dialect, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// let connect = || ServiceClient::builder().base_url(trainer.url());
/// assert_eq!(connect().connect()?.dialect(), Dialect::Protobuf);
/// assert_eq!(connect().dialect(Dialect::Json).connect()?.dialect(), Dialect::Json); // the local trainer speaks both
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Dialect {
    /// JSON bodies and results: Tinker SDK 0.1 to 0.18, Fireworks, SkyRL-tx.
    Json,
    /// Protobuf for the requests and results of training passes and for samples, JSON for the rest:
    /// Tinker SDK 0.25 and later, TuFT, the local trainer.
    Protobuf,
}

/// By what a server puts a model's requests in order.
///
/// ```
/// use tinsmith_client::{RequestOrder, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// let builder = ServiceClient::builder().base_url(trainer.url());
/// let service = builder.request_order(RequestOrder::ByArrival).connect()?; // now nothing uncertain is sent twice
/// assert_eq!(service.request_order(), RequestOrder::ByArrival);
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestOrder {
    /// By their sequence ids. It knows a repetition when it sees one, and the requests of one batch
    /// may come in any order.
    BySequence,
    /// As they arrive; what comes twice is done twice. SkyRL-tx.
    ByArrival,
}
