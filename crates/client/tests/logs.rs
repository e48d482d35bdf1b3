//! No log of any dependency shows a secret, with every level on.

mod support;

use std::sync::Mutex;

use log::{LevelFilter, Log, Metadata, Record};
use serde_json::json;
use support::{Fake, datum, ok};
use tinsmith_client::{AdamParams, LossFn};

static LINES: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

struct Everything;

impl Log for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = (record.target().to_owned(), record.args().to_string());
        LINES.lock().unwrap().push(line);
    }

    fn flush(&self) {}
}

/// The bytes of a dump, whose rows show 16 each: in hex, then as text.
fn dumped(lines: &[(String, String)]) -> String {
    let of_row = |row: &str| row.split_whitespace().last().unwrap_or_default().to_owned();
    lines
        .iter()
        .filter(|(target, _)| target == "ureq_proto::util")
        .map(|(_, row)| of_row(row))
        .collect()
}

#[test]
fn keys_and_headers_of_gateways_are_in_no_log() {
    log::set_logger(&Everything).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let fake = Fake::start();
    fake.script("config", [ok(json!({"pjwt_auth_enabled": true}))]);
    let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9.q8Yw-zX_kLmNoPrS01tUvWxYz23";
    fake.script("token", [ok(json!({ "jwt": token }))]);
    let secrets = ["tml-0123456789-key", "gateway-9876543210-secret", "Bearer-abcdefgh-token"];
    let builder = fake.builder().api_key(secrets[0]).header("CF-Access-Client-Secret", secrets[1]);
    let service = builder.header("Authorization", secrets[2]).connect().unwrap();
    let training = service.create_lora_training_client("tiny", &Default::default()).unwrap();
    training.forward_backward(&[datum(3)], LossFn::CrossEntropy, None).unwrap().result().unwrap();
    training.optim_step(&AdamParams::default()).unwrap().result().unwrap();

    for request in fake.requests("optim_step") {
        assert_eq!(request.headers["x-api-key"], token);
        assert_eq!(request.headers["cf-access-client-secret"], secrets[1]);
        assert_eq!(request.headers["authorization"], secrets[2]);
    }
    let lines = LINES.lock().unwrap();
    let dump = dumped(&lines);
    // The dump is really put together.
    assert!(dump.contains("/api/v1/optim_step") && dump.contains("x-idempotency-key"), "{dump}");
    let all: String = lines.iter().map(|(_, text)| text.as_str()).collect();
    for secret in secrets.into_iter().chain([token]) {
        assert!(!all.contains(secret), "{secret}");
        assert!(!dump.contains(secret), "{secret}");
        // Rows may begin anywhere in it.
        assert!(
            !dump.contains(&secret[..8]) && !dump.contains(&secret[secret.len() - 8..]),
            "{secret}"
        );
    }
}
