//! The API key, and the short-lived token that some servers exchange it for.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use tinsmith_wire::{AuthTokenRequest, AuthTokenResponse, json};

use crate::{
    CallInfo, Error, Result,
    retry::Kind,
    transport::{Failure, Http, Payload, Reply, Request},
};

const PATH: &str = "/api/v1/auth/token";
/// For an exchange while a request waits.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries to renew a token that is still good.
const RETRY: Duration = Duration::from_secs(60);

/// What a client proves itself by: nothing, a key, or a token got for the key.
pub(crate) struct Auth {
    key: Option<String>,
    token: Mutex<Option<Token>>,
}

/// A token in use.
#[derive(Clone)]
struct Token {
    jwt: String,
    /// When to get another; never, if the token does not tell how long it is good.
    renew_at: Option<Duration>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.key {
            Some(_) => "(secret)",
            None => "no key",
        })
    }
}

impl Auth {
    pub fn new(key: Option<String>) -> Self {
        Auth {
            key,
            token: Mutex::new(None),
        }
    }

    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Gets the first token; from then on it is sent in place of the key.
    pub fn exchange_first(&self, http: &Http) -> Result<()> {
        let payload = Payload::json(&AuthTokenRequest {})?;
        let mut info = CallInfo::of("auth/token");
        let reply = http.exchange(&Request::post(PATH, &payload), &mut info, Kind::Start)?;
        let answer: AuthTokenResponse =
            json::from_slice(&reply.body).map_err(|source| Error::Reply {
                call: Box::new(info),
                source: Box::new(source),
                // The body may hold a secret.
                excerpt: String::new(),
            })?;
        *self.lock() = Some(token(answer.jwt, http));
        Ok(())
    }

    /// What to send as `X-API-Key`. Renews a token that is half spent; if that fails the old one serves on.
    pub fn current(&self, http: &Http) -> Option<String> {
        let now = http.clock.now();
        let old = {
            let mut token = self.lock();
            let Some(token) = &mut *token else {
                return self.key.clone();
            };
            match token.renew_at {
                // Others go on with the old token meanwhile.
                Some(at) if now >= at => token.renew_at = Some(now + RETRY),
                _ => return Some(token.jwt.clone()),
            }
            token.jwt.clone()
        };
        self.replace(http, &old);
        self.lock().as_ref().map(|token| token.jwt.clone())
    }

    /// Gets another token than `spent`, unless someone else has by now. False if there is none to be had.
    pub fn replace(&self, http: &Http, spent: &str) -> bool {
        match &*self.lock() {
            None => return false,
            Some(token) if token.jwt != spent => return true,
            Some(_) => {}
        }
        match self.ask(http) {
            Ok(Reply {
                status: 200, body, ..
            }) => match json::from_slice::<AuthTokenResponse>(&body) {
                Ok(answer) => {
                    *self.lock() = Some(token(answer.jwt, http));
                    true
                }
                Err(_) => false,
            },
            _ => false,
        }
    }

    fn ask(&self, http: &Http) -> Result<Reply, Failure> {
        let payload = Payload {
            bytes: b"{}".to_vec(),
            format: crate::transport::Format::Json,
            is_zstd: false,
        };
        http.send_as(self.key(), &Request::post(PATH, &payload), TIMEOUT)
    }

    /// The text without the key and the token, which a server may repeat.
    pub fn redact(&self, text: &str) -> String {
        let hide = |text: String, secret: &str, name: &str| match secret.len() {
            // A shorter one is no secret, and may be part of any word.
            0..8 => text,
            _ => text.replace(secret, name),
        };
        let text = match &*self.lock() {
            Some(token) => hide(text.to_owned(), &token.jwt, "(token)"),
            None => text.to_owned(),
        };
        match &self.key {
            Some(key) => hide(text, key, "(API key)"),
            None => text,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Token>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token, to be renewed after about half its life: not all clients at once.
fn token(jwt: String, http: &Http) -> Token {
    let share = 0.45 + 0.1 * (http.clock.random() as f64 / u64::MAX as f64);
    let renew_at = lifetime(&jwt).map(|life| http.clock.now() + life.mul_f64(share));
    Token { jwt, renew_at }
}

/// How long a JWT is good, from its claims.
fn lifetime(jwt: &str) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
        iat: f64,
    }
    let claims = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    Duration::try_from_secs_f64(claims.exp - claims.iat).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jwt_tells_how_long_it_is_good() {
        // {"exp":1300,"iat":1000,"sub":"me"}, and claims without times.
        let jwt = |claims| format!("x.{}.x", URL_SAFE_NO_PAD.encode(claims));
        let full = jwt(r#"{"exp":1300,"iat":1000,"sub":"me"}"#);
        assert_eq!(lifetime(&full), Some(Duration::from_secs(300)));
        for unknown in [
            jwt("{}"),
            jwt(r#"{"exp":1,"iat":2}"#),
            "opaque".into(),
            "a.%.c".into(),
        ] {
            assert_eq!(lifetime(&unknown), None);
        }
    }
}
