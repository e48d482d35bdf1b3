//! Keys that a program prints.
#![cfg(unix)]

mod support;

use std::{path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use support::{Fake, TestClock, ok, status};
use tinsmith_client::{Error, ServiceClient, ServiceClientBuilder};

/// A client whose key is in a file.
fn builder(fake: &Fake, file: &Path) -> ServiceClientBuilder {
    ServiceClient::builder().base_url(&fake.url).key_command(format!("cat '{}'", file.display()))
}

/// The keys under which `call` came.
fn keys(fake: &Fake, call: &str) -> Vec<String> {
    let requests = fake.requests(call);
    requests.iter().map(|request| request.headers["x-api-key"].clone()).collect()
}

#[test]
fn a_refused_key_is_asked_for_again_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "tml-first-key\n").unwrap();
    let fake = Fake::start();
    let service = builder(&fake, &file).connect().unwrap();
    let refused = || status(401, json!({"detail": "tml-second-key has expired"}));

    std::fs::write(&file, "tml-second-key\n").unwrap();
    fake.script("healthz", [refused()]);
    service.health().unwrap();
    assert_eq!(keys(&fake, "healthz"), ["tml-first-key", "tml-second-key"]);

    fake.script("healthz", [refused()]);
    let error = service.health().unwrap_err().to_string();
    assert!(
        error
            .ends_with("401: (API key) has expired; the command for it printed the same key again"),
        "{error}"
    );
    std::fs::remove_file(&file).unwrap();
    fake.script("healthz", [refused()]);
    let error = service.health().unwrap_err().to_string();
    assert!(
        error.contains("401: (API key) has expired; the command for the API key, `cat ")
            && error.contains("ended with exit status: 1: cat: "),
        "{error}"
    );
    assert_eq!(keys(&fake, "healthz").len(), 4);
}

#[test]
fn a_jwt_is_renewed_at_half_its_life() {
    let jwt = |n: u32| {
        let claims = json!({"iat": 1000, "exp": 1200, "n": n}).to_string();
        format!("eyJ.{}.x", URL_SAFE_NO_PAD.encode(claims))
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, jwt(1)).unwrap();
    let (fake, clock) = (Fake::start(), TestClock::default());
    let service = builder(&fake, &file).clock(clock.clone()).connect().unwrap();
    std::fs::write(&file, jwt(2)).unwrap();
    for seconds in [89, 2] {
        clock.0.lock().unwrap().push(Duration::from_secs(seconds));
        service.health().unwrap();
    }
    assert_eq!(keys(&fake, "healthz"), [jwt(1), jwt(2)]);
}

#[test]
fn a_server_may_prefer_the_command_to_a_key() {
    let preferred =
        json!({"credential_default_source": "credential_cmd", "pjwt_auth_enabled": true});
    for (config, session_key) in [(preferred, "token"), (json!({}), "tml-set-by-hand")] {
        let fake = Fake::start();
        fake.script("config", [ok(config)]);
        fake.script("token", [ok(json!({"jwt": "token"}))]);
        let builder = fake.builder().api_key("tml-set-by-hand");
        builder.key_command("echo tml-printed").connect().unwrap();
        assert_eq!(keys(&fake, "config"), ["tml-set-by-hand"]);
        assert_eq!(keys(&fake, "create_session"), [session_key]);
        for key in keys(&fake, "token") {
            assert_eq!(key, "tml-printed");
        }
    }
}

#[test]
fn a_command_without_a_key_is_told_before_anything_is_sent() {
    let fake = Fake::start();
    let dir = tempfile::tempdir().unwrap();
    let error = builder(&fake, &dir.path().join("none")).connect();
    assert!(matches!(error, Err(Error::KeyCommand { .. })));
    assert!(fake.requests("config").is_empty());
    // A printed key is as secret as any other.
    let builder = ServiceClient::builder().base_url("http://10.0.0.1:8000");
    let error = builder.key_command("echo tml-key").connect().unwrap_err();
    assert!(error.to_string().contains("unencrypted"), "{error}");
}
