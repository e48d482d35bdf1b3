//! What a client proves itself by: nothing, a key, or the short-lived token that some servers
//! exchange it for.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use tinsmith_wire::{AuthTokenResponse, json};

use crate::{
    Clock, Result,
    http::{
        connection::{Connection, Failure, Limits},
        error_body,
        key_command::KeyCommand,
        message::{Format, Payload, Reply, Request},
    },
};

/// Where a key is exchanged for a token.
pub(crate) const TOKEN_PATH: &str = "/api/v1/auth/token";
/// For an exchange while a request waits.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries to renew what is still good.
const RETRY: Duration = Duration::from_secs(60);

/// The key, where another comes from, and the token got for it.
pub(crate) struct Auth {
    clock: Arc<dyn Clock>,
    /// Headers for gateways, some of them secrets.
    headers: Vec<(String, String)>,
    command: Option<KeyCommand>,
    state: Mutex<State>,
    /// Held while something is renewed.
    renewal: Mutex<()>,
}

struct State {
    key: Option<Secret>,
    is_key_from_command: bool,
    token: Option<Secret>,
    /// Why there was no other token or key, when one was asked for last.
    last_error: Option<String>,
}

impl State {
    /// The token, or the key where there is none.
    fn in_use(&mut self) -> Option<&mut Secret> {
        self.token.as_mut().or(self.key.as_mut())
    }
}

/// A key or a token.
struct Secret {
    text: String,
    /// When to get another; never, if it does not tell how long it is good.
    renew_at: Option<Duration>,
}

impl Secret {
    /// A JWT is to be renewed after about half its life: not by all clients at once.
    fn new(text: String, clock: &dyn Clock) -> Self {
        let share = 0.45 + 0.1 * (clock.random() as f64 / u64::MAX as f64);
        let renew_at = lifetime(&text).map(|life| clock.now() + life.mul_f64(share));
        Secret { text, renew_at }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.has_key() {
            true => "(secret)",
            false => "no key",
        })
    }
}

impl Auth {
    /// With this key, else with what the command prints.
    pub fn new(
        key: Option<String>,
        command: Option<KeyCommand>,
        headers: Vec<(String, String)>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let auth = Auth {
            clock,
            headers,
            command,
            state: Mutex::new(State {
                key: key.map(|text| Secret { text, renew_at: None }),
                is_key_from_command: false,
                token: None,
                last_error: None,
            }),
            renewal: Mutex::new(()),
        };
        if !auth.has_key() {
            auth.prefer_command()?;
        }
        Ok(auth)
    }

    /// Takes the key from the command, if there is one.
    pub fn prefer_command(&self) -> Result<()> {
        let Some(command) = &self.command else {
            return Ok(());
        };
        if !self.lock().is_key_from_command {
            let key = Secret::new(command.run()?, &*self.clock);
            let mut state = self.lock();
            state.key = Some(key);
            state.is_key_from_command = true;
        }
        Ok(())
    }

    pub fn has_key(&self) -> bool {
        self.lock().key.is_some()
    }

    /// From now on this token is sent in place of the key.
    pub fn use_token(&self, token: String) {
        self.lock().token = Some(Secret::new(token, &*self.clock));
    }

    /// Sends one request and waits for its answer, of whatever status. With a new token or key, if
    /// the server says that the one in use is spent and another is to be had.
    pub fn send(
        &self,
        connection: &Connection,
        request: &Request<'_>,
        limits: Limits,
    ) -> Result<Reply, Failure> {
        let key = self.current(connection);
        let reply = self.send_with(key.clone(), connection, request, limits)?;
        match key {
            Some(key) if self.can_replace(&reply) && self.replace(connection, &key) => {
                let key = self.current(connection);
                self.send_with(key, connection, request, limits)
            }
            _ => Ok(reply),
        }
    }

    fn send_with(
        &self,
        key: Option<String>,
        connection: &Connection,
        request: &Request<'_>,
        limits: Limits,
    ) -> Result<Reply, Failure> {
        let key = key.map(|key| ("X-API-Key".to_owned(), key));
        let headers: Vec<_> = self.headers.iter().cloned().chain(key).collect();
        connection.send(&headers, request, limits)
    }

    /// What to send as `X-API-Key`. Renews what is half spent; if that fails the old one serves on.
    fn current(&self, connection: &Connection) -> Option<String> {
        let now = self.clock.now();
        let old = {
            let mut state = self.lock();
            let secret = state.in_use()?;
            match secret.renew_at {
                // Others go on with the old one meanwhile.
                Some(at) if now >= at => secret.renew_at = Some(now + RETRY),
                _ => return Some(secret.text.clone()),
            }
            secret.text.clone()
        };
        self.replace(connection, &old);
        self.lock().in_use().map(|secret| secret.text.clone())
    }

    /// Whether another token or key may be got for one that was answered so.
    fn can_replace(&self, reply: &Reply) -> bool {
        reply.is_token_refused || reply.status == 401 && self.lock().is_key_from_command
    }

    /// Gets another than `spent`, unless someone else has by now. False if there is none to be had.
    fn replace(&self, connection: &Connection, spent: &str) -> bool {
        let _alone = self.renewal.lock().unwrap_or_else(PoisonError::into_inner);
        let has_token = {
            let mut state = self.lock();
            match state.in_use() {
                None => return false,
                Some(secret) if secret.text != spent => return true,
                Some(_) => state.token.is_some(),
            }
        };
        match has_token {
            true => self.renew_token(connection),
            false => self.renew_key(),
        }
    }

    fn renew_token(&self, connection: &Connection) -> bool {
        self.lock().last_error = None;
        let reply = match self.ask(connection) {
            Ok(reply) if reply.status == 401 && self.renew_key() => self.ask(connection),
            first => first,
        };
        let answer: Result<AuthTokenResponse, String> = match reply {
            // The body may hold a secret.
            Ok(reply) if reply.status == 200 => {
                json::from_slice(&reply.body).map_err(|_| "an unreadable answer".to_owned())
            }
            Ok(reply) => {
                Err(format!("{}: {}", reply.status, self.redact(&error_body::words(&reply.body))))
            }
            Err(failure) => Err(failure.to_string()),
        };
        let mut state = self.lock();
        match answer {
            Ok(answer) => {
                state.token = Some(Secret::new(answer.jwt, &*self.clock));
                state.last_error = None;
                true
            }
            Err(reason) => {
                let more = state.last_error.take().map(|more| format!("; {more}"));
                let more = more.unwrap_or_default();
                state.last_error = Some(format!("no new token for the key: {reason}{more}"));
                false
            }
        }
    }

    fn renew_key(&self) -> bool {
        let Some(command) = &self.command else {
            return false;
        };
        if !self.lock().is_key_from_command {
            return false;
        }
        let printed = command.run();
        let mut state = self.lock();
        match printed {
            Ok(key) if state.key.as_ref().is_none_or(|old| old.text != key) => {
                state.key = Some(Secret::new(key, &*self.clock));
                state.last_error = None;
                true
            }
            Ok(_) => {
                state.last_error = Some("the command for it printed the same key again".to_owned());
                false
            }
            Err(error) => {
                state.last_error = Some(error.to_string());
                false
            }
        }
    }

    fn ask(&self, connection: &Connection) -> Result<Reply, Failure> {
        let payload = Payload { bytes: b"{}".to_vec(), format: Format::Json, is_zstd: false };
        let key = self.lock().key.as_ref().map(|key| key.text.clone());
        let limits = Limits { total: TIMEOUT, silence: TIMEOUT };
        let request = Request { hides_answer: true, ..Request::post(TOKEN_PATH, &payload) };
        self.send_with(key, connection, &request, limits)
    }

    /// Why there is nothing better than what was refused.
    pub fn last_error(&self) -> Option<String> {
        self.lock().last_error.clone()
    }

    /// The text without the key, the token and what gateways are sent, which a server may repeat.
    pub fn redact(&self, text: &str) -> String {
        let hide = |text: String, secret: &str, name: &str| match secret.len() {
            // A shorter one is no secret, and may be part of any word.
            8.. => text.replace(secret, name),
            _ => text,
        };
        let state = self.lock();
        let secrets = [(&state.token, "(token)"), (&state.key, "(API key)")];
        let secrets = secrets
            .into_iter()
            .filter_map(|(secret, name)| Some((secret.as_ref()?.text.as_str(), name)));
        // Of `Bearer SECRET` the server may repeat the second word only.
        let words = self.headers.iter().flat_map(|(_, value)| value.split_ascii_whitespace());
        let gateway = words.map(|word| (word, "(header)"));
        secrets
            .chain(gateway)
            .fold(text.to_owned(), |text, (secret, name)| hide(text, secret, name))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        for unknown in [jwt("{}"), jwt(r#"{"exp":1,"iat":2}"#), "opaque".into(), "a.%.c".into()] {
            assert_eq!(lifetime(&unknown), None);
        }
    }
}
