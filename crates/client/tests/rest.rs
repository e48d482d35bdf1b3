//! What a server keeps, tokens in place of keys, and news while one waits.

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use support::{Fake, TestClock, ok, raw, status};
use tinsmith_client::{AdamParams, Event, FinishReason, LoraConfig, RequestOrder, Support};

#[test]
fn lists_are_read_page_by_page_and_without_a_session() {
    let fake = Fake::start();
    let run = |id: &str| json!({"training_run_id": id, "base_model": "tiny"});
    let page = |ids: &[&str], offset: u64| {
        let runs: Vec<Value> = ids.iter().map(|id| run(id)).collect();
        ok(
            json!({"training_runs": runs, "cursor": {"offset": offset, "limit": 100, "total_count": 3}}),
        )
    };
    fake.script("training_runs", [page(&["a", "b"], 0), page(&["c"], 2)]);
    let rest = fake.builder().rest().unwrap();
    let ids: Vec<String> =
        rest.training_runs().unwrap().into_iter().map(|run| run.training_run_id).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    let asked: Vec<String> = fake.requests("training_runs").into_iter().map(|r| r.path).collect();
    assert_eq!(
        asked,
        ["/api/v1/training_runs?limit=100&offset=0", "/api/v1/training_runs?limit=100&offset=2"]
    );
    assert!(fake.requests("create_session").is_empty());
}

#[test]
fn checkpoints_are_deleted_published_and_dated() {
    let fake = Fake::start();
    let rest = fake.builder().rest().unwrap();
    let path = "tinker://s:train:0/weights/a";
    for call in ["a", "publish", "publish", "ttl"] {
        fake.script(call, [raw(200, "")]);
    }
    rest.delete_checkpoint(path).unwrap();
    rest.publish_checkpoint(path).unwrap();
    rest.unpublish_checkpoint(path).unwrap();
    rest.set_checkpoint_ttl(path, Some(Duration::from_secs(7200))).unwrap();
    let at = "/api/v1/training_runs/s:train:0/checkpoints/weights/a";
    let deleted = &fake.requests("a")[0];
    assert_eq!((deleted.method.as_str(), deleted.path.as_str()), ("DELETE", at));
    let methods: Vec<String> = fake.requests("publish").into_iter().map(|r| r.method).collect();
    assert_eq!(methods, ["POST", "DELETE"]);
    let dated = &fake.requests("ttl")[0];
    assert_eq!((dated.method.as_str(), dated.body()), ("PUT", json!({"ttl_seconds": 7200})));
}

#[test]
fn an_archive_is_fetched_without_the_key() {
    let fake = Fake::start();
    let away = raw(302, "")
        .header("Location", "/elsewhere/archive.tar")
        .header("Expires", "Sat, 21 Nov 2026 12:00:00 GMT");
    fake.script("archive", [away]);
    fake.script("archive.tar", [raw(200, "weights"), raw(403, "expired")]);
    let rest = fake.builder().rest().unwrap();
    let archive = rest.archive_url("tinker://m/weights/a").unwrap();
    assert_eq!(archive.url, format!("{}/elsewhere/archive.tar", fake.url));
    assert_eq!(archive.expires.as_deref(), Some("Sat, 21 Nov 2026 12:00:00 GMT"));
    let mut file = Vec::new();
    assert_eq!(rest.download(&archive.url, &mut file).unwrap(), 7);
    assert_eq!(file, b"weights");
    assert!(!fake.requests("archive.tar")[0].headers.contains_key("x-api-key"));
    let error = rest.download(&archive.url, &mut file).unwrap_err();
    assert!(error.to_string().ends_with("403: expired"), "{error}");
}

#[test]
fn a_key_is_exchanged_for_a_token_that_is_renewed_at_half_its_life_and_when_it_is_refused() {
    let jwt = |n: u32| {
        let claims = json!({"iat": 1000, "exp": 1200, "n": n}).to_string();
        json!({"jwt": format!("x.{}.x", URL_SAFE_NO_PAD.encode(claims))})
    };
    let token = |n: u32| jwt(n)["jwt"].as_str().unwrap().to_owned();
    let fake = Fake::start();
    fake.script("config", [ok(json!({"pjwt_auth_enabled": true}))]);
    fake.script("token", [ok(jwt(1)), ok(jwt(2)), ok(jwt(3))]);
    let clock = TestClock::default();
    let service = fake.builder().clock(clock.clone()).connect().unwrap();
    let used = || fake.requests("healthz").last().unwrap().headers["x-api-key"].clone();
    service.health().unwrap();
    assert_eq!(used(), token(1));
    clock.0.lock().unwrap().push(Duration::from_secs(100));
    service.health().unwrap();
    assert_eq!(used(), token(2));
    let refused = status(401, json!({"detail": "expired"}))
        .header("WWW-Authenticate", "Bearer error=\"invalid_token\"");
    fake.script("healthz", [refused]);
    service.health().unwrap();
    assert_eq!(used(), token(3));
    for exchange in fake.requests("token") {
        assert_eq!(exchange.headers["x-api-key"], "tml-very-secret");
    }
    assert_eq!(fake.requests("create_session")[0].headers["x-api-key"], token(1));
}

#[test]
fn a_server_may_ask_for_a_date_by_its_own_clock() {
    let fake = Fake::start();
    let clock = TestClock::default();
    let service = fake.builder().clock(clock.clone()).connect().unwrap();
    let busy = status(503, json!({}))
        .header("Date", "Sat, 21 Nov 2020 12:00:00 GMT")
        .header("Retry-After", "Sat, 21 Nov 2020 12:00:07 GMT");
    fake.script("healthz", [busy]);
    service.health().unwrap();
    assert_eq!(clock.slept(), [Duration::from_secs(7)]);
}

#[test]
fn who_waits_hears_of_queues_retries_bills_and_messages() {
    let fake = Fake::start();
    let told = Arc::new(Mutex::new(Vec::new()));
    let ear = told.clone();
    fake.script(
        "create_session",
        [ok(json!({"session_id": "s", "warning_message": "closing at noon"}))],
    );
    let service = fake
        .builder()
        .progress(move |event: &Event| ear.lock().unwrap().push(event.to_string()))
        .connect()
        .unwrap();
    let training = service.create_lora_training_client("tiny", &LoraConfig::rank(4)).unwrap();
    fake.script(
        "optim_step",
        [status(503, json!({"detail": "full"})), status(402, json!({"detail": "pay"}))],
    );
    let step = training.optim_step(&AdamParams::default()).unwrap();
    let queued = json!({"type": "try_again", "queue_state": "paused_capacity", "queue_state_reason": "no room"});
    fake.script("retrieve_future", vec![ok(queued); 3]);
    step.result().unwrap();
    let told = told.lock().unwrap();
    let expected = [
        "the server says: closing at noon",
        "optim_step (seq 1), sending, 1 attempt, last status 503: 503: full; again in 0.5 s",
        "optim_step (seq 1), sending, 2 attempts, last status 402: the server waits for a bill to be paid",
        "optim_step (seq 1), waiting for the result of request r1, 1 attempt, last status 200, queue paused_capacity (no room)",
    ];
    assert_eq!(told[..], expected);
    let traffic = service.traffic();
    assert!(traffic.requests >= 9 && traffic.bytes_sent > 300 && traffic.bytes_received > 300);
}

#[test]
fn a_probe_tells_what_is_there() {
    let fake = Fake::start();
    fake.script("config", [ok(json!({"fwdbwd_max_chunk_len": 7}))]);
    fake.script("training_runs", [ok(json!({"training_runs": []}))]);
    fake.script("checkpoints", [status(404, json!({"detail": "Not Found"}))]);
    fake.script("sessions", [status(403, json!({"detail": "not yours"}))]);
    let found = fake.service().capabilities().unwrap();
    assert_eq!(found.client_config.unwrap().fwdbwd_max_chunk_len, 7);
    assert_eq!(found.models[0].model_name, "tiny");
    assert_eq!(found.request_order, RequestOrder::BySequence);
    assert_eq!(
        [found.health, found.training_runs, found.checkpoints, found.sessions],
        [Support::Yes, Support::Yes, Support::No, Support::Refused]
    );
}

#[test]
fn a_finished_session_takes_no_more_requests() {
    let fake = Fake::start();
    let service = fake.service();
    let training = service.create_lora_training_client("tiny", &LoraConfig::rank(4)).unwrap();
    fake.script("finish", [ok(json!({}))]);
    service.finish(FinishReason::Errored, Some("out of data")).unwrap();
    assert_eq!(
        fake.requests("finish")[0].body(),
        json!({"reason": {"type": "errored"}, "detail": "out of data"})
    );
    assert!(training.optim_step(&AdamParams::default()).is_err());
    let other = fake.service();
    fake.script("finish", [status(404, json!({}))]);
    other.finish(FinishReason::Success, None).unwrap();
}
