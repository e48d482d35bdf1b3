//! Clients pointed at the wrong thing, or with the wrong key: they say what they met, in its own
//! words.

mod support;

use std::{io::Write, net::TcpListener, thread, time::Duration};

use serde_json::json;
use support::{Fake, Reply, TestClock, datum, ok, raw, status};
use tinsmith_client::{
    Dialect, Error, LoraConfig, LossFn, RetryConfig, ServiceClient, ServiceClientBuilder,
};

/// What connecting says to a server that answers everything so, and the server's address.
fn connecting(reply: &Reply) -> (Error, String) {
    let fake = Fake::start();
    for call in ["config", "create_session"] {
        fake.script(call, vec![reply.clone(); 100]);
    }
    (connect(fake.builder()), fake.url)
}

/// The error, which comes in time.
fn connect(builder: ServiceClientBuilder) -> Error {
    let clock = TestClock::default();
    let error = builder.clock(clock.clone()).connect().unwrap_err();
    let waited: Duration = clock.slept().iter().sum();
    // What may pass is tried again until the deadline, what will not is not.
    let limit = match error.is_timeout() {
        true => RetryConfig::default().start_timeout,
        false => Duration::ZERO,
    };
    assert!(waited <= limit, "{waited:?}: {error}");
    error
}

const PAGE: &str = "<html>\n<style>b { color: red }</style><body>It works!</body></html>";

#[test]
fn a_web_server_without_the_paths() {
    let (error, url) = connecting(&raw(404, PAGE));
    assert_eq!(
        error.to_string(),
        format!(
            "create_session, sending to {url}/api/v1/create_session, 1 attempt, last status 404: the server answered 404: \
             a web page: It works!; no trainer is there: the base URL is what comes before /api/v1"
        )
    );
}

#[test]
fn a_web_server_that_only_has_pages() {
    let (error, _) = connecting(&raw(501, "<p>Unsupported method</p>"));
    assert!(
        error.to_string().ends_with(
            "501: a web page: Unsupported method; no trainer is there: the base URL is what comes before /api/v1"
        ),
        "{error}"
    );
}

#[test]
fn a_web_server_that_shows_a_page_for_everything() {
    let page = raw(200, PAGE).header("Content-Type", "text/html");
    let (error, url) = connecting(&page);
    let text = error.to_string();
    let begin = format!(
        "client/config, sending to {url}/api/v1/client/config, 1 attempt, last status 200: cannot read"
    );
    assert!(text.starts_with(&begin), "{text}");
    assert!(text.ends_with("the answer begins \"a web page: It works!\""), "{text}");
}

#[test]
fn another_json_service() {
    let (error, _) = connecting(&ok(json!({"hello": "world"})));
    let text = error.to_string();
    assert!(text.contains("session_id") && text.contains("hello"), "{text}");
}

#[test]
fn a_proxy_that_fails_with_a_page_of_its_own() {
    for (status, reason) in
        [(502, "Bad Gateway"), (503, "Service Unavailable"), (504, "Gateway Timeout")]
    {
        let (error, url) = connecting(&raw(status, &format!("<h1>{reason}</h1>")));
        assert!(error.is_timeout(), "{error}");
        let text = error.to_string();
        let begin = format!("client/config, sending to {url}/api/v1/client/config, ");
        assert!(text.starts_with(&begin), "{text}");
        let end = format!(
            "last status {status}: not done within 20s; last: {status}: a web page: {reason}"
        );
        assert!(text.ends_with(&end), "{text}");
    }
}

#[test]
fn a_trainer_that_fails_only_once_the_session_is_to_begin() {
    let fake = Fake::start();
    let failure = status(500, json!({"detail": "the database is gone"}));
    fake.script("create_session", vec![failure; 100]);
    let error = connect(fake.builder());
    let end = "last status 500: not done within 20s; last: 500: the database is gone";
    assert!(error.to_string().ends_with(end), "{error}");
}

#[test]
fn a_server_that_takes_connections_and_says_nothing() {
    let fake = Fake::start();
    fake.script("config", [Reply::Silence]);
    let retry = RetryConfig::default().start_timeout(Duration::from_millis(20));
    let clock = TestClock::default();
    let builder = fake.builder().retry(retry).clock(clock.clone());
    let error = builder.connect().unwrap_err();
    assert!(
        error.to_string().ends_with("1 attempt: not done within 20ms; last: timed out"),
        "{error}"
    );
    assert!(clock.slept().is_empty());
}

#[test]
fn a_server_that_hangs_up() {
    let (error, _) = connecting(&Reply::Close);
    let text = error.to_string();
    assert!(text.contains("not done within 20s; last: the connection broke: "), "{text}");
}

#[test]
fn a_server_of_another_protocol() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"SSH-2.0-OpenSSH_9.6\r\n");
        }
    });
    let error = connect(ServiceClient::builder().base_url(url));
    let text = error.to_string();
    assert!(text.contains("not done within 20s; last: the connection broke: "), "{text}");
}

#[test]
fn a_redirect() {
    let elsewhere = raw(307, "").header("Location", "https://login.example/");
    let (error, _) = connecting(&elsewhere);
    assert!(
        error.to_string().ends_with(
            "307: a redirect to https://login.example/, which is not followed: set the base URL to the server itself"
        ),
        "{error}"
    );
}

#[test]
fn a_wrong_key() {
    let refusal = status(401, json!({"detail": "unknown key tml-very-secret"}));
    let (error, url) = connecting(&refusal);
    assert_eq!(
        error.to_string(),
        format!(
            "client/config, sending to {url}/api/v1/client/config, 1 attempt, last status 401: the server answered 401: \
             unknown key (API key)"
        )
    );
    assert!(!error.is_retryable());
}

#[test]
fn a_key_that_expires_meanwhile() {
    let (fake, clock) = (Fake::start(), TestClock::default());
    let service = fake.builder().clock(clock.clone()).connect().unwrap();
    let training = service.create_lora_training_client("tiny", &LoraConfig::rank(4)).unwrap();
    let pass = || training.forward_backward(&[datum(2)], LossFn::CrossEntropy, None);
    let accepted = pass().unwrap();
    let expired = || status(401, json!({"detail": "the key has expired"}));
    let is_told = |error: Error| {
        let text = error.to_string();
        assert!(text.ends_with("401: the key has expired"), "{text}");
    };
    fake.script("retrieve_future", [expired()]);
    is_told(accepted.result().unwrap_err());
    fake.script("forward_backward", [expired()]);
    is_told(pass().unwrap_err());
    assert_eq!(fake.requests("forward_backward").len(), 2);
    assert!(clock.slept().is_empty());
}

#[test]
fn a_token_whose_key_has_expired() {
    let (fake, clock) = (Fake::start(), TestClock::default());
    fake.script("config", [ok(json!({"pjwt_auth_enabled": true}))]);
    fake.script(
        "token",
        [
            ok(json!({"jwt": "token-1-of-the-key"})),
            status(401, json!({"detail": "tml-very-secret has expired"})),
        ],
    );
    let service = fake.builder().clock(clock.clone()).connect().unwrap();
    let spent = status(401, json!({"detail": "token-1-of-the-key is spent"}))
        .header("WWW-Authenticate", "Bearer error=\"invalid_token\"");
    fake.script("healthz", [spent]);
    let error = service.health().unwrap_err().to_string();
    assert!(
        error.ends_with(
            "401: (token) is spent; no new token for the key: 401: (API key) has expired"
        ),
        "{error}"
    );
    assert!(clock.slept().is_empty());
}

/// The error of a first pass that the server refuses so, at once.
fn first_pass(dialect: Dialect, refusal: Reply) -> Error {
    let (fake, clock) = (Fake::start(), TestClock::default());
    let builder = fake.builder().dialect(dialect).clock(clock.clone());
    let training = builder
        .connect()
        .unwrap()
        .create_lora_training_client("tiny", &LoraConfig::rank(4))
        .unwrap();
    fake.script("forward_backward", [refusal]);
    let error = training.forward_backward(&[datum(2)], LossFn::CrossEntropy, None).unwrap_err();
    assert_eq!(fake.requests("forward_backward").len(), 1);
    assert!(clock.slept().is_empty());
    error
}

#[test]
fn the_wrong_dialect() {
    let json = "the request was in the protobuf dialect, so if this server speaks JSON set ServiceClientBuilder::dialect";
    let protobuf = "the request was in the JSON dialect, so if this server speaks protobuf set ServiceClientBuilder::dialect";
    for (dialect, code, words, hint) in [
        (Dialect::Protobuf, 415, "send application/json", json),
        (Dialect::Protobuf, 422, "body is not a dictionary", json),
        (Dialect::Protobuf, 400, "Invalid JSON", json),
        (Dialect::Json, 415, "send application/x-protobuf", protobuf),
        (Dialect::Json, 404, "Not Found", protobuf),
    ] {
        let error = first_pass(dialect, status(code, json!({"detail": words})));
        let end = format!("the server answered {code}: {words}; {hint}");
        assert!(error.to_string().ends_with(&end), "{error}");
        assert!(matches!(error, Error::WrongDialect { spoken, .. } if spoken == dialect));
    }
}

#[test]
fn findings_of_a_validator() {
    let finding = json!({"detail": [{"loc": ["body", "sdk_version"], "msg": "field required"}]});
    let (error, _) = connecting(&status(422, finding));
    assert!(error.to_string().ends_with("422: body.sdk_version: field required"), "{error}");
    let (long, _) = connecting(&raw(418, &"x".repeat(100_000)));
    assert!(long.to_string().len() < 600);
    let (silent, _) = connecting(&raw(403, ""));
    assert!(silent.to_string().ends_with("403: (no message)"));
}

#[test]
fn a_client_without_a_session_knows_no_better_server_either() {
    let fake = Fake::start();
    let clock = TestClock::default();
    let rest = fake.builder().clock(clock.clone()).rest().unwrap();
    let failure = || vec![raw(502, "<h1>Bad Gateway</h1>"); 100];
    fake.script("sessions", failure());
    let told = |limit: u64| {
        let error = rest.sessions().unwrap_err().to_string();
        let url = format!("{}/api/v1/sessions", fake.url);
        assert!(error.starts_with(&format!("sessions, sending to {url}, ")), "{error}");
        let end = format!("not done within {limit}s; last: 502: a web page: Bad Gateway");
        assert!(error.ends_with(&end), "{error}");
    };
    told(20);
    assert!(clock.slept().iter().sum::<Duration>() <= Duration::from_secs(20));
    // One that has answered before may fail for a while.
    rest.server_capabilities().unwrap();
    told(300);
}
