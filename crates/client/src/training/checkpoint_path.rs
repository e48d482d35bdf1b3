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
        let parts = path.strip_prefix("tinker://").and_then(|rest| rest.split_once('/')).filter(
            |(run, id)| {
                // A server or a proxy may take `..` for a way out.
                let is_name = |part: &str| !matches!(part, "" | "." | "..");
                is_name(run) && id.split('/').all(is_name)
            },
        );
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

impl CheckpointPath {
    /// Where it is below a server's list of runs.
    pub(crate) fn below_runs(&self) -> String {
        let id = self.checkpoint_id.split('/').map(escaped).collect::<Vec<_>>().join("/");
        format!("{}/checkpoints/{id}", escaped(&self.run))
    }
}

/// One segment of a path, with all but letters, digits and `-._~:` as `%XX`.
pub(crate) fn escaped(segment: &str) -> String {
    let write = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' | b':' => (byte as char).to_string(),
        byte if byte.is_ascii_alphanumeric() => (byte as char).to_string(),
        byte => format!("%{byte:02X}"),
    };
    segment.bytes().map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_has_an_address_below_its_run() {
        let of = |path: &str| path.parse::<CheckpointPath>().unwrap().below_runs();
        assert_eq!(of("tinker://s:train:0/weights/a-1"), "s:train:0/checkpoints/weights/a-1");
        assert_eq!(of("tinker://model_1/a?b"), "model_1/checkpoints/a%3Fb");
    }

    #[test]
    fn what_leads_elsewhere_is_no_path() {
        for path in [
            "weights/a",
            "tinker://",
            "tinker://a",
            "tinker://a/",
            "tinker:///a",
            "tinker://a//b",
            "tinker://../a",
            "tinker://a/weights/../../x",
            "tinker://a/./b",
        ] {
            assert!(path.parse::<CheckpointPath>().is_err(), "{path}");
        }
    }
}
