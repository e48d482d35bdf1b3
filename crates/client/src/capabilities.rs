//! What a server supports.

use serde::Serialize;
use tinsmith_wire::{ClientConfig, SupportedModel};

use crate::{
    Dialect, Error, RequestOrder, Result,
    protocol::{
        endpoints::{ALL_CHECKPOINTS, CAPABILITIES, HEALTH, SESSIONS, TRAINING_RUNS},
        session::Session,
    },
};

/// What a server supports, as far as harmless questions can tell.
///
/// ```
/// use tinsmith_client::{Dialect, ServiceClient, Support};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// let found = service.capabilities()?;
/// assert_eq!((found.dialect, found.training_runs), (Dialect::Protobuf, Support::Yes));
/// assert_eq!(found.client_config.unwrap().fwdbwd_max_chunk_len, 1024);
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// What is spoken with it.
    pub dialect: Dialect,
    /// By what it orders a model's requests.
    pub request_order: RequestOrder,
    /// Its limits and switches; absent when it has no `client/config`.
    pub client_config: Option<ClientConfig>,
    /// The models on offer.
    pub models: Vec<SupportedModel>,
    /// Whether it says that it is well.
    pub health: Support,
    /// Whether it lists training runs.
    pub training_runs: Support,
    /// Whether it lists all of a user's checkpoints.
    pub checkpoints: Support,
    /// Whether it lists sessions.
    pub sessions: Support,
}

/// Whether a server does something.
///
/// ```
/// use tinsmith_client::{ServiceClient, Support};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// if service.capabilities()?.checkpoints == Support::Yes {
///     assert!(service.rest().all_checkpoints()?.is_empty());
/// }
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Support {
    /// It does.
    Yes,
    /// It does not know of it.
    No,
    /// It knows of it, and refuses or fails.
    Refused,
}

pub(crate) fn probe(session: &Session) -> Result<Capabilities> {
    let api = &session.api;
    let models = match CAPABILITIES.get(api, "") {
        Ok(answer) => answer.supported_models,
        Err(Error::Status { .. } | Error::Reply { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let first = "limit=1&offset=0";
    Ok(Capabilities {
        dialect: session.flavour.dialect,
        request_order: session.flavour.order(),
        client_config: session.flavour.config.clone(),
        models,
        health: support(HEALTH.get(api, ""))?,
        training_runs: support(TRAINING_RUNS.get(api, first))?,
        checkpoints: support(ALL_CHECKPOINTS.get(api, first))?,
        sessions: support(SESSIONS.get(api, ""))?,
    })
}

fn support<T>(answer: Result<T>) -> Result<Support> {
    match answer {
        Ok(_) => Ok(Support::Yes),
        Err(Error::Status { status: 404 | 405 | 501, .. }) => Ok(Support::No),
        Err(Error::Status { .. } | Error::Reply { .. }) => Ok(Support::Refused),
        Err(error) => Err(error),
    }
}
