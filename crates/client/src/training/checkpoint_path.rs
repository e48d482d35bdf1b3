//! Where a checkpoint is.

use std::{fmt, str::FromStr};

use crate::Error;

/// The path of a checkpoint, `tinker://{run}/{kind}/{name}`, where SkyRL-tx leaves out the kind of
/// sampler weights.
///
/// ```
/// use tinsmith_client::CheckpointPath;
/// let path: CheckpointPath = "tinker://s:train:0/weights/halfway".parse()?;
/// assert_eq!((path.run.as_str(), path.checkpoint_id.as_str()), ("s:train:0", "weights/halfway"));
/// assert_eq!(path.to_string(), "tinker://s:train:0/weights/halfway");
/// assert!("weights/halfway".parse::<CheckpointPath>().is_err());
/// # Ok::<(), tinsmith_client::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CheckpointPath {
    /// The training run, which is the model's id.
    pub run: String,
    /// The rest: what the server lists as the checkpoint's id.
    pub checkpoint_id: String,
}

impl FromStr for CheckpointPath {
    type Err = Error;

    /// # Errors
    /// [`Error::Config`] for anything else.
    fn from_str(path: &str) -> Result<Self, Error> {
        let parts = path
            .strip_prefix("tinker://")
            .and_then(|rest| rest.split_once('/'))
            .filter(|(run, id)| !run.is_empty() && id.split('/').all(|part| !part.is_empty()));
        match parts {
            Some((run, id)) => {
                Ok(CheckpointPath { run: run.to_owned(), checkpoint_id: id.to_owned() })
            }
            None => Err(Error::Config {
                what: "checkpoint",
                reason: format!("{path:?} is not a path such as tinker://run/weights/name"),
            }),
        }
    }
}

impl fmt::Display for CheckpointPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tinker://{}/{}", self.run, self.checkpoint_id)
    }
}
