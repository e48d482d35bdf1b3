//! Who may ask: whoever brings the key, or a token that was given for it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Request as HttpRequest, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use tinsmith_wire::{AuthTokenRequest, AuthTokenResponse};

use super::body::ok;
use super::{Reply, Server};
use crate::{Error, Result};

/// The key, if one is needed, and the tokens that are out.
#[derive(Debug)]
pub(crate) struct Keys {
    key: Option<String>,
    /// How long a token is good; none if none is given.
    token_life: Option<Duration>,
    /// With the time of their end since 1970.
    tokens: Mutex<HashMap<String, Duration>>,
}

impl Keys {
    pub(crate) fn new(key: Option<String>, token_life: Option<Duration>) -> Self {
        Self { key, token_life, tokens: Mutex::default() }
    }

    fn is_key(&self, given: Option<&str>) -> bool {
        self.key.is_none() || given == self.key.as_deref()
    }

    fn check(&self, given: Option<&str>) -> Result<()> {
        if self.is_key(given) {
            return Ok(());
        }
        // As every JWT begins.
        let token = given.filter(|given| self.token_life.is_some() && given.starts_with("eyJ"));
        let token = token.ok_or(Error::Unauthorized)?;
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        match tokens.get(token) {
            Some(&end) if now() < end => Ok(()),
            _ => Err(Error::TokenSpent),
        }
    }

    /// A token for the key.
    fn exchange(&self, given: Option<&str>) -> Result<String> {
        if !self.is_key(given) {
            return Err(Error::Unauthorized);
        }
        let life = self.token_life.ok_or_else(|| Error::NotFound {
            kind: "service",
            id: "auth/token".to_owned(),
            hint: "it gives tokens when it is started with the switch `pjwt_auth_enabled`"
                .to_owned(),
        })?;
        let now = now();
        let end = now + life;
        let part = |claims: serde_json::Value| URL_SAFE_NO_PAD.encode(claims.to_string());
        // Tokens are looked up, so that the last part is no signature but what makes them hard to
        // guess.
        let chance = || RandomState::new().hash_one("token").to_le_bytes();
        let jwt = format!(
            "{}.{}.{}",
            part(json!({"alg": "none", "typ": "JWT"})),
            part(json!({"iat": now.as_secs_f64(), "exp": end.as_secs_f64()})),
            URL_SAFE_NO_PAD.encode([chance(), chance()].concat()),
        );
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, end| *end > now);
        tokens.insert(jwt.clone(), end);
        Ok(jwt)
    }
}

fn now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

fn given(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-api-key")?.to_str().ok()
}

pub(super) async fn authenticate(
    State(server): State<Server>,
    request: HttpRequest,
    next: Next,
) -> Reply {
    server.keys.check(given(request.headers()))?;
    Ok(next.run(request).await)
}

pub(super) async fn token(State(server): State<Server>, request: HttpRequest) -> Reply {
    let jwt = server.keys.exchange(given(request.headers()))?;
    server.read::<AuthTokenRequest>(request).await?;
    ok(&AuthTokenResponse { jwt })
}
