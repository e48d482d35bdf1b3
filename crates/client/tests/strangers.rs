//! Clients pointed at the wrong thing, or with the wrong key: they say what they met, in its own words.

mod support;

use std::time::Duration;

use serde_json::json;
use support::{Fake, Reply, TestClock, datum, ok, raw, status};
use tinsmith_client::{Error, LoraConfig, LossFn};

/// What connecting says to a server that answers everything so.
fn connecting(reply: &Reply) -> Error {
    let fake = Fake::start();
    for call in ["config", "create_session"] {
        fake.script(call, vec![reply.clone(); 100]);
    }
    let clock = TestClock::default();
    let error = fake.builder().clock(clock.clone()).connect().unwrap_err();
    // An answer is final; a failure that may pass is tried for as long as any request.
    let limit = if error.is_timeout() { 300 } else { 0 };
    let waited: Duration = clock.slept().iter().sum();
    assert!(waited <= Duration::from_secs(limit), "{waited:?}");
    error
}

const PAGE: &str = "<html>\n<body>It works!</body></html>";

#[test]
fn a_web_server_without_the_paths() {
    let error = connecting(&raw(404, PAGE));
    assert_eq!(
        error.to_string(),
        "create_session, sending, 1 attempt, last status 404: the server answered 404: <html> <body>It works!</body></html>"
    );
}

#[test]
fn a_web_server_that_shows_a_page_for_everything() {
    let error = connecting(&raw(200, PAGE).header("Content-Type", "text/html"));
    let text = error.to_string();
    assert!(
        text.starts_with("client/config, sending, 1 attempt, last status 200: cannot read"),
        "{text}"
    );
    assert!(
        text.ends_with("the answer begins \"<html> <body>It works!</body></html>\""),
        "{text}"
    );
}

#[test]
fn another_json_service() {
    let error = connecting(&ok(json!({"hello": "world"})));
    let text = error.to_string();
    assert!(
        text.contains("session_id") && text.contains("hello"),
        "{text}"
    );
}

#[test]
fn a_proxy_that_fails_with_a_page_of_its_own() {
    let error = connecting(&raw(502, "<h1>Bad Gateway</h1>"));
    assert!(error.is_timeout(), "{error}");
    assert!(
        error
            .to_string()
            .ends_with("last: 502: <h1>Bad Gateway</h1>"),
        "{error}"
    );
}

#[test]
fn a_redirect() {
    let elsewhere = raw(307, "").header("Location", "https://login.example/");
    let error = connecting(&elsewhere);
    assert!(
        error.to_string().ends_with(
            "307: a redirect to https://login.example/, which is not followed: set the base URL to the server itself"
        ),
        "{error}"
    );
}

#[test]
fn a_wrong_key() {
    let error = connecting(&status(
        401,
        json!({"detail": "unknown key tml-very-secret"}),
    ));
    assert!(
        error.to_string().ends_with("401: unknown key (API key)"),
        "{error}"
    );
    assert!(!error.is_retryable());
}

#[test]
fn a_key_that_expires_meanwhile() {
    let fake = Fake::start();
    let training = fake
        .service()
        .create_lora_training_client("tiny", &LoraConfig::rank(4))
        .unwrap();
    let expired = || status(401, json!({"detail": "the key has expired"}));
    fake.script("forward_backward", [expired()]);
    let error = training
        .forward_backward(&[datum(2)], LossFn::CrossEntropy, None)
        .unwrap_err();
    assert!(
        error.to_string().ends_with("401: the key has expired"),
        "{error}"
    );
    assert_eq!(fake.requests("forward_backward").len(), 1);
}

#[test]
fn findings_of_a_validator() {
    let finding = json!({"detail": [{"loc": ["body", "sdk_version"], "msg": "field required"}]});
    let error = connecting(&status(422, finding));
    assert!(
        error
            .to_string()
            .ends_with("422: body.sdk_version: field required"),
        "{error}"
    );
    assert!(
        connecting(&raw(404, &"x".repeat(100_000)))
            .to_string()
            .len()
            < 600
    );
    assert!(
        connecting(&raw(403, ""))
            .to_string()
            .ends_with("403: (no message)")
    );
}
