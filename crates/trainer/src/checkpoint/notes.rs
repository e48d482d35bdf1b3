//! What is noted of a checkpoint beside its weights.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tinsmith_wire::UserMetadata;

use crate::{Error, Result};

/// The notes of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Notes {
    /// The user's own.
    pub(crate) user_metadata: Option<UserMetadata>,
    /// When it is to be deleted, in seconds since 1970; never when absent.
    expires_at: Option<u64>,
    #[serde(default)]
    pub(crate) visibility: Visibility,
}

/// Who may read a checkpoint. This trainer has one user, so that it is only told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Visibility {
    #[default]
    Private,
    Public,
}

/// Shortest and longest life that can be asked for, in seconds: an hour and ten years.
const TTL: std::ops::RangeInclusive<u64> = 3600..=10 * 365 * 86_400;

impl Notes {
    /// Notes on a checkpoint that lives for `ttl_seconds` from now.
    pub(crate) fn new(
        user_metadata: Option<UserMetadata>,
        ttl_seconds: Option<u64>,
    ) -> Result<Self> {
        Ok(Self {
            user_metadata,
            expires_at: expiry(ttl_seconds)?,
            visibility: Visibility::default(),
        })
    }

    /// The same, with another life.
    pub(crate) fn living(self, ttl_seconds: Option<u64>) -> Result<Self> {
        Ok(Self { expires_at: expiry(ttl_seconds)?, ..self })
    }

    /// The same, for other readers.
    pub(crate) fn visible(self, visibility: Visibility) -> Self {
        Self { visibility, ..self }
    }

    /// When it is to be deleted.
    pub(crate) fn expires(&self) -> Option<SystemTime> {
        self.expires_at.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds))
    }

    pub(super) fn have_expired(&self) -> bool {
        self.expires_at.is_some_and(|at| at <= now())
    }
}

fn expiry(ttl_seconds: Option<u64>) -> Result<Option<u64>> {
    match ttl_seconds {
        Some(ttl) if !TTL.contains(&ttl) => Err(Error::field(
            "ttl_seconds",
            format!("{ttl} is not between {} (an hour) and {} (ten years)", TTL.start(), TTL.end()),
        )),
        ttl => Ok(ttl.map(|ttl| now() + ttl)),
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_an_hour_to_ten_years_and_ends() {
        assert!(Notes::new(None, Some(3599)).is_err());
        assert!(Notes::new(None, Some(315_360_001)).is_err());
        let living = Notes::new(None, Some(3600)).unwrap();
        assert!(!living.have_expired());
        let left = living.expires().unwrap().duration_since(SystemTime::now()).unwrap();
        assert!((3590..=3600).contains(&left.as_secs()), "{left:?}");
        let over: Notes = serde_json::from_str(r#"{"expires_at": 1000000000}"#).unwrap();
        assert!(over.have_expired());
        assert!(!Notes::default().have_expired());
    }
}
