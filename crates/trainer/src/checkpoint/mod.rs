//! Checkpoints: what they are called, what they hold, where they lie.
//!
//! `{state_dir}/{run}/{kind}/{name}.safetensors` holds the adapter under its PEFT names, the
//! optimizer's moments as `{name}.exp_avg` and `{name}.exp_avg_sq`, and what the adapter belongs to
//! in the file's metadata. `{name}.json` beside it holds what may change: the user's notes, the
//! time of expiry, who may read it.

mod codec;
mod notes;
mod store;

use std::fmt;
use std::str::FromStr;

pub(crate) use codec::{Checkpoint, Info};
pub(crate) use notes::{Notes, Visibility};
pub(crate) use store::{Saved, Store, missing};

use crate::{Error, Result};

/// What a checkpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// To train on from.
    Training,
    /// To sample from.
    Sampler,
}

impl Kind {
    /// Its part of a path.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Training => "weights",
            Self::Sampler => "sampler_weights",
        }
    }
}

/// A checkpoint's name: `tinker://{run}/{weights|sampler_weights}/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    pub(crate) run: String,
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

impl Reference {
    /// A checkpoint of `run`; an error when `name` is not a plain name.
    pub(crate) fn new(run: &str, kind: Kind, name: &str) -> Result<Self> {
        check_name(name)?;
        Ok(Self { run: run.to_owned(), kind, name: name.to_owned() })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tinker://{}/{}/{}", self.run, self.kind.folder(), self.name)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(path: &str) -> Result<Self> {
        let parts: Vec<&str> =
            path.strip_prefix("tinker://").unwrap_or_default().split('/').collect();
        let kind = |folder: &str| {
            [Kind::Training, Kind::Sampler].into_iter().find(|k| k.folder() == folder)
        };
        match parts[..] {
            [run, folder, name] if is_plain(&run_folder(run)) && kind(folder).is_some() => {
                Self::new(run, kind(folder).unwrap_or(Kind::Training), name)
            }
            _ => Err(Error::field(
                "path",
                format!(
                    "`{path}` is not a checkpoint; one is written tinker://RUN/weights/NAME or tinker://RUN/sampler_weights/NAME"
                ),
            )),
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    match is_plain(name) {
        true => Ok(()),
        false => Err(Error::field(
            "path",
            format!(
                "`{name}` is not a checkpoint name; use 1 to 255 letters, digits, `-`, `_` and `.`, not beginning with a dot"
            ),
        )),
    }
}

/// The folder of a run: model ids have colons, which some file systems do not take.
fn run_folder(run: &str) -> String {
    run.replace(':', "-")
}

/// Whether `name` can be a file's name and nothing else: no separators, no `..`, not hidden.
fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=255).contains(&name.len()) && !name.starts_with('.') && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a b", "é", &"x".repeat(256)]
        {
            assert!(Reference::new("run", Kind::Training, name).is_err(), "{name:?}");
        }
        for path in [
            "tinker://../weights/x",
            "tinker://run/weights/..",
            "tinker://run/other/x",
            "/etc/passwd",
            "tinker://run/x",
        ] {
            assert!(path.parse::<Reference>().is_err(), "{path:?}");
        }
        let path = "tinker://s:train:0/sampler_weights/v1.2";
        assert_eq!(path.parse::<Reference>().unwrap().to_string(), path);
    }
}
