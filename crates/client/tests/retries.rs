//! What is tried again, how often, and what is said in the end.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Fake, Reply, TestClock, datum, ok, raw, status, vectors};
use tinsmith_client::{
    AdamParams, Error, LossFn, RetryConfig, TrainingClient, wire::ErrorCategory,
};

fn training(fake: &Fake, clock: &TestClock) -> TrainingClient {
    let service = fake.builder().clock(clock.clone()).connect().unwrap();
    let training = service.create_lora_training_client("tiny", &Default::default()).unwrap();
    clock.0.lock().unwrap().clear();
    training
}

fn reply(case: &Value) -> Reply {
    let body = match &case["body"] {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let headers = case["headers"].as_object().into_iter().flatten();
    headers.fold(raw(case["status"].as_u64().unwrap() as u16, &body), |reply, (name, value)| {
        reply.header(name, value.as_str().unwrap())
    })
}

fn replies(case: &Value) -> Vec<Reply> {
    case["replies"].as_array().unwrap().iter().map(reply).collect()
}

#[test]
fn submits_are_repeated_as_the_sdk_repeats_them() {
    for case in vectors("retries.json")["submit"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (fake, clock) = (Fake::start(), TestClock::default());
        let training = training(&fake, &clock);
        fake.script("optim_step", replies(case));
        let outcome = training.optim_step(&AdamParams::default());
        match case["outcome"]["status"].as_u64() {
            None => drop(outcome.unwrap().result().unwrap()),
            Some(expected) => {
                let error = outcome.unwrap_err();
                assert!(
                    matches!(error, Error::Status { status, .. } if u64::from(status) == expected),
                    "{name}: {error}"
                );
            }
        }
        let sent = fake.requests("optim_step");
        assert_eq!(sent.len() as u64, case["n_requests"].as_u64().unwrap(), "{name}");
        assert!(sent.iter().all(|request| request.bytes == sent[0].bytes), "{name}");
        let key = |i: usize| &sent[i].headers["x-idempotency-key"];
        let same = sent.len() == 1 || key(0) == key(1);
        assert_eq!(same, case["same_idempotency_key"].as_bool().unwrap(), "{name}");
    }
}

#[test]
fn waits_double_to_a_cap_and_the_server_may_ask_for_others() {
    let (fake, clock) = (Fake::start(), TestClock::default());
    let training = training(&fake, &clock);
    let busy = || status(503, json!({}));
    fake.script("optim_step", (0..6).map(|_| busy()));
    fake.script(
        "optim_step",
        [busy().header("retry-after", "7"), busy().header("retry-after", "61")],
    );
    fake.script("optim_step", [busy().header("retry-after-ms", "150").header("retry-after", "30")]);
    training.optim_step(&AdamParams::default()).unwrap().result().unwrap();
    let slept: Vec<f64> =
        clock.slept().iter().map(|wait| (wait.as_secs_f64() * 1e3).round() / 1e3).collect();
    // The 61 s are more than a server may ask for, so it gets as much as it may.
    assert_eq!(slept, [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 7.0, 60.0, 0.15]);
}

#[test]
fn polls_go_on_as_the_sdk_polls() {
    // Two kinds of case are not those of the JSON dialect: there JSON is how results come, and a
    // 400 with a detail is how SkyRL-tx reports failure.
    let other_dialect =
        |name: &str| name == "json_for_forward_backward" || name.starts_with("http_400");
    let mut ran = 0;
    for case in vectors("retries.json")["future"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        if other_dialect(name) {
            continue;
        }
        let fake = Fake::start();
        let training = training(&fake, &TestClock::default());
        let before = fake.requests("retrieve_future").len();
        let outcome = if case["call"] == "optim_step" {
            let step = training.optim_step(&AdamParams::default()).unwrap();
            fake.script("retrieve_future", replies(case));
            step.result().map(drop)
        } else {
            let step = training.forward_backward(&[datum(2)], LossFn::CrossEntropy, None).unwrap();
            fake.script("retrieve_future", replies(case));
            step.result().map(drop)
        };
        match (case["outcome"]["result"].as_str().unwrap(), outcome) {
            ("ok", Ok(())) => {}
            ("request_failed", Err(Error::RequestFailed { category, .. })) => {
                let expected = case["outcome"]["category"].as_str().unwrap();
                // The SDK forgets what it does not know; here it is kept.
                let category = match category {
                    ErrorCategory::Other(_) => ErrorCategory::Unknown,
                    known => known,
                };
                assert_eq!(format!("{category:?}").to_lowercase(), expected, "{name}");
            }
            ("error", Err(Error::Status { .. } | Error::Expired { .. })) => {}
            (expected, got) => panic!("{name}: expected {expected}, got {got:?}"),
        }
        let polls = fake.requests("retrieve_future").split_off(before);
        assert_eq!(polls.len() as u64, case["n_requests"].as_u64().unwrap(), "{name}");
        let asked: Vec<Value> =
            polls.iter().map(|poll| poll.body()["allow_metadata_only"].clone()).collect();
        assert_eq!(Value::from(asked), case["allow_metadata_only"], "{name}");
        let iterations: Vec<&String> =
            polls.iter().map(|poll| &poll.headers["x-tinker-request-iteration"]).collect();
        assert_eq!(json!(iterations), case["iterations"], "{name}");
        ran += 1;
    }
    assert_eq!(ran, 18);
}

#[test]
fn a_400_that_says_why_is_final_and_an_empty_one_is_asked_again_three_times() {
    let fake = Fake::start();
    let training = training(&fake, &TestClock::default());
    let step = || training.optim_step(&AdamParams::default()).unwrap();
    let failed = step();
    fake.script("retrieve_future", [status(400, json!({"detail": "rank too large"}))]);
    let error = failed.result().unwrap_err();
    assert!(error.to_string().ends_with("the server answered 400: rank too large"), "{error}");

    let lucky = step();
    fake.script("retrieve_future", [raw(400, ""), raw(400, ""), raw(400, "")]);
    assert!(lucky.result().is_ok());
    let unlucky = step();
    fake.script("retrieve_future", [raw(400, ""), raw(400, ""), raw(400, ""), raw(400, "")]);
    assert!(matches!(unlucky.result(), Err(Error::Status { status: 400, .. })));
}

#[test]
fn a_question_that_the_server_holds_for_too_long_is_asked_again() {
    let fake = Fake::start();
    let retry = RetryConfig::default().poll_timeout(Duration::from_millis(20));
    let clock = TestClock::default();
    let service = fake.builder().retry(retry).clock(clock.clone()).connect().unwrap();
    let training = service.create_lora_training_client("tiny", &Default::default()).unwrap();
    let step = training.optim_step(&AdamParams::default()).unwrap();
    fake.script("retrieve_future", [Reply::Silence, Reply::Silence]);
    assert!(step.result().is_ok());
    // Being held is normal: it takes no wait besides.
    assert!(clock.slept().iter().all(Duration::is_zero));
}

#[test]
fn a_deadline_tells_how_far_it_came() {
    let fake = Fake::start();
    let clock = TestClock::default();
    let training = training(&fake, &clock);
    let mut step = training.optim_step(&AdamParams::default()).unwrap();
    let pending = json!({"type": "try_again", "queue_state": "paused_capacity", "queue_state_reason": "no room"});
    fake.script("retrieve_future", (0..10).map(|_| ok(pending.clone())));
    let error = step.result_timeout(Duration::from_millis(950)).unwrap_err();
    assert!(error.is_timeout() && error.is_retryable() && error.may_have_been_applied());
    assert_eq!(
        error.to_string(),
        "optim_step (seq 1), waiting for the result of request r1, 10 attempts, last status 200, \
         queue paused_capacity (no room): not done within 950ms"
    );
    // Waiting can go on where it was left, and ends once.
    assert!(step.result_timeout(Duration::from_secs(1)).is_ok());
    assert!(matches!(step.try_result(), Err(Error::ResultTaken)));
}

#[test]
fn try_result_asks_once() {
    let fake = Fake::start();
    let training = training(&fake, &TestClock::default());
    let mut step = training.optim_step(&AdamParams::default()).unwrap();
    let before = fake.requests("retrieve_future").len();
    fake.script("retrieve_future", [status(408, json!({}))]);
    assert_eq!(step.try_result().unwrap(), None);
    assert_eq!(fake.requests("retrieve_future").len(), before + 1);
    assert!(step.try_result().unwrap().is_some());
}

#[test]
fn a_server_that_only_fails_is_given_up_within_the_deadline() {
    let (fake, clock) = (Fake::start(), TestClock::default());
    let training = training(&fake, &clock);
    fake.script("optim_step", (0..100).map(|_| status(503, json!({"detail": "full"}))));
    let error = training.optim_step(&AdamParams::default()).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert!(
        error.to_string().ends_with("last status 503: not done within 300s; last: 503: full"),
        "{error}"
    );
    assert!(clock.slept().iter().sum::<Duration>() < Duration::from_secs(300));
    // Whether the server counts the id as used cannot be known, so nothing later can be put in
    // order.
    let later = training.optim_step(&AdamParams::default()).unwrap_err();
    assert!(matches!(&later, Error::Poisoned { first } if first.contains("503: full")), "{later}");
}

#[test]
fn polling_ends_when_a_server_fails_for_half_an_hour() {
    let (fake, clock) = (Fake::start(), TestClock::default());
    let training = training(&fake, &clock);
    let step = training.optim_step(&AdamParams::default()).unwrap();
    fake.script(
        "retrieve_future",
        (0..2000).map(|_| status(500, json!({"detail": "Unknown error"}))),
    );
    let error = step.result().unwrap_err();
    assert!(
        matches!(&error, Error::Status { status: 500, message, .. } if message == "Unknown error"),
        "{error}"
    );
    assert_eq!(clock.slept().iter().sum::<Duration>(), Duration::from_secs(1800));
}

#[test]
fn polling_ends_when_the_server_is_gone() {
    let (fake, clock) = (Fake::start(), TestClock::default());
    let training = training(&fake, &clock);
    let mut step = training.optim_step(&AdamParams::default()).unwrap();
    fake.script("retrieve_future", (0..40).map(|_| Reply::Close));
    let error = step.result_timeout(Duration::from_secs(10)).unwrap_err();
    assert!(
        error.is_timeout() && error.to_string().contains("; last: the connection broke"),
        "{error}"
    );
    let error = step.result_timeout(Duration::from_secs(3600)).unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { .. }) && error.may_have_been_applied(),
        "{error}"
    );
    let slept: Duration = clock.slept().iter().sum();
    assert!(slept >= Duration::from_secs(300) && slept < Duration::from_secs(340), "{slept:?}");
}

#[test]
fn a_lost_connection_is_repeated_unless_the_server_would_do_the_work_twice() {
    let fake = Fake::start();
    let patient = training(&fake, &TestClock::default());
    fake.script("optim_step", [Reply::Close]);
    assert!(patient.optim_step(&AdamParams::default()).unwrap().result().is_ok());

    let retry = RetryConfig::default().resend_uncertain(false);
    let service = fake.builder().retry(retry).connect().unwrap();
    let careful = service.create_lora_training_client("tiny", &Default::default()).unwrap();
    let before = fake.requests("optim_step").len();
    fake.script("optim_step", [Reply::Close]);
    let error = careful.optim_step(&AdamParams::default()).unwrap_err();
    assert!(error.may_have_been_applied(), "{error}");
    assert_eq!(fake.requests("optim_step").len(), before + 1);
}

#[test]
fn a_taken_checkpoint_name_is_final() {
    let fake = Fake::start();
    let training = training(&fake, &TestClock::default());
    fake.script("save_weights", [status(409, json!({"detail": "checkpoint a exists"}))]);
    let error = training.save_state("a").unwrap_err();
    assert!(error.to_string().contains("409: checkpoint a exists"), "{error}");
    assert_eq!(fake.requests("save_weights").len(), 1);
}
