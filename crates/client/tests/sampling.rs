//! Samples: asked for with everything there is, lost and asked for again, waited for together.

mod support;

use serde_json::{Value, json};
use support::{Fake, TestClock, ok, raw, status};
use tinsmith_client::{
    Error, ModelInput, SampleOptions, SamplingClient, SamplingParams, Stop, TensorData,
};

fn answer() -> Value {
    json!({"sequences": [{"stop_reason": "length", "tokens": [5], "logprobs": [-0.5]}]})
}

fn sampler(fake: &Fake) -> SamplingClient {
    fake.on("asample", |_| answer());
    fake.service().create_sampling_client("tiny").unwrap()
}

fn prompt() -> ModelInput {
    ModelInput::from_tokens(vec![1, 2])
}

#[test]
fn everything_that_can_be_asked_for_is() {
    let fake = Fake::start();
    let sampler = sampler(&fake);
    let params = SamplingParams {
        stop: Some(Stop::Tokens(vec![9])),
        seed: Some(11),
        ..SamplingParams::max_tokens(6)
    };
    let options = SampleOptions::new(params)
        .num_samples(3)
        .prompt_logprobs(true)
        .topk_prompt_logprobs(2)
        .topk_sample_logprobs(4)
        .target_prompt_logprobs(Some(TensorData::new(vec![7i64, -1], &[1, 2]).unwrap()))
        .prompt_alt_tokens_k(5)
        .prompt_logprobs_last_n(Some(1))
        .record_stability_info(true);
    drop(sampler.sample_with(&prompt(), &options).unwrap());
    let sent = &fake.requests("asample")[0];
    assert_eq!(
        sent.body(),
        json!({"type": "sample", "num_samples": 3, "prompt": {"chunks": [{"type": "encoded_text", "tokens": [1, 2]}]},
               "sampling_params": {"max_tokens": 6, "seed": 11, "stop": [9], "temperature": 1.0, "top_k": -1, "top_p": 1.0},
               "sampling_session_id": "sampler", "seq_id": 0, "prompt_logprobs": true, "topk_prompt_logprobs": 2,
               "topk_sample_logprobs": 4, "prompt_alt_tokens_k": 5, "prompt_logprobs_last_n": 1,
               "target_prompt_logprobs": {"dtype": "int64", "shape": [1, 2], "data": [7, -1]},
               "record_stability_info": true})
    );
    assert_eq!(sent.headers["x-tinker-sampling-backpressure"], "1");
}

#[test]
fn a_lost_sample_is_submitted_again_under_a_new_number() {
    let fake = Fake::start();
    let sampler = sampler(&fake);
    let sample = sampler.sample(&prompt(), 1, &SamplingParams::max_tokens(1)).unwrap();
    fake.script("retrieve_future", [status(410, json!({"detail": "gone"}))]);
    assert_eq!(sample.result().unwrap().sequences[0].tokens, [5]);
    let ids: Vec<Value> =
        fake.requests("asample").iter().map(|r| r.body()["seq_id"].clone()).collect();
    assert_eq!(ids, [0, 1]);
}

#[test]
fn a_server_may_forbid_another_submission() {
    let fake = Fake::start();
    fake.script("config", [ok(json!({"sample_no_retries": true}))]);
    let sampler = sampler(&fake);
    let sample = sampler.sample(&prompt(), 1, &SamplingParams::max_tokens(1)).unwrap();
    fake.script("retrieve_future", [status(410, json!({"detail": "gone"}))]);
    assert!(matches!(sample.result(), Err(Error::Expired { .. })));
    assert_eq!(fake.requests("asample").len(), 1);
}

#[test]
fn a_busy_server_gets_the_same_sample_a_second_later() {
    let fake = Fake::start();
    let clock = TestClock::default();
    fake.on("asample", |_| answer());
    let service = fake.builder().clock(clock.clone()).connect().unwrap();
    let sampler = service.create_sampling_client("tiny").unwrap();
    fake.script("asample", [status(429, json!({"detail": "busy"}))]);
    drop(sampler.sample(&prompt(), 1, &SamplingParams::max_tokens(1)).unwrap());
    let sent = fake.requests("asample");
    assert_eq!(sent[0].bytes, sent[1].bytes);
    assert_eq!(clock.slept(), [std::time::Duration::from_secs(1)]);
}

#[test]
fn what_is_over_the_limit_is_sent_when_it_is_waited_for() {
    let fake = Fake::start();
    fake.script("config", [ok(json!({"sample_max_concurrent_requests": 1}))]);
    let sampler = sampler(&fake);
    let params = SamplingParams::max_tokens(1);
    let first = sampler.sample(&prompt(), 1, &params).unwrap();
    let second = sampler.sample(&prompt(), 1, &params).unwrap();
    assert_eq!(fake.requests("asample").len(), 1);
    second.result().unwrap();
    assert_eq!(fake.requests("asample").len(), 2);
    first.result().unwrap();
    drop(sampler.sample(&prompt(), 1, &params).unwrap());
    assert_eq!(fake.requests("asample").len(), 3);
}

#[test]
fn samples_are_waited_for_together_where_the_server_has_it_so() {
    let fake = Fake::start();
    fake.script("config", [ok(json!({"sample_use_retrieve_futures": true}))]);
    let sampler = sampler(&fake);
    let params = SamplingParams::max_tokens(1);
    let both = [(); 2].map(|()| sampler.sample(&prompt(), 1, &params).unwrap());
    let ended = |id: &str| json!({"state": "finished", "request_id": id, "response_payload_uncompressed_size": 64});
    fake.script(
        "retrieve_futures",
        [
            ok(json!({"completions": [], "cursor": 3})),
            ok(json!({"completions": [ended("r1"), ended("r0")], "cursor": 5})),
        ],
    );
    for sample in both {
        sample.result().unwrap();
    }
    let asked: Vec<Value> = fake.requests("retrieve_futures").iter().map(|r| r.body()).collect();
    let target = json!({"type": "sampling_session", "sampling_session_id": "sampler", "cloned_sampler_id": 0});
    assert_eq!(asked[0], json!({"target": target, "prev_cursor": 0, "retrieved_request_ids": []}));
    assert_eq!((asked.len(), &asked[1]["prev_cursor"]), (2, &json!(3)));
    // Each is then fetched at once: it is known to be there.
    let polls = fake.requests("retrieve_future");
    let fetched: Vec<Value> =
        polls.iter().map(|r| r.body()["allow_metadata_only"].clone()).collect();
    assert_eq!(fetched, [false, false]);
    // At last the server learns that it need not keep them.
    drop(sampler);
    fake.wait_for("retrieve_futures", 3);
    assert_eq!(
        fake.requests("retrieve_futures")[2].body(),
        json!({"target": target, "prev_cursor": 5, "timeout": 0.0, "retrieved_request_ids": ["r0", "r1"]})
    );
}

#[test]
fn samples_are_waited_for_singly_where_the_server_does_not_know_the_other_way() {
    let fake = Fake::start();
    fake.script("config", [ok(json!({"sample_use_retrieve_futures": true}))]);
    fake.script("retrieve_futures", [status(404, json!({}))]);
    let sampler = sampler(&fake);
    let sample = sampler.sample(&prompt(), 1, &SamplingParams::max_tokens(1)).unwrap();
    sample.result().unwrap();
    assert_eq!(fake.requests("retrieve_futures").len(), 1);
}

#[test]
fn sequences_come_under_the_names_that_the_server_gave_them() {
    let fake = Fake::start();
    let sampler = sampler(&fake);
    let sample = |names: Value| {
        fake.script("asample", [ok(json!({"request_id": "r", "sample_sequence_ids": names}))]);
        let pair = json!({"stop_reason": "length", "tokens": [5]});
        fake.script("retrieve_future", [ok(json!({"sequences": [pair, pair]}))]);
        let params = SamplingParams::max_tokens(1);
        let answer = sampler.sample(&prompt(), 2, &params).unwrap().result();
        let names = answer.unwrap().sequences.into_iter();
        names.map(|it| it.sequence_id).collect::<Vec<_>>()
    };
    let named = |name: &str| Some(name.to_owned());
    assert_eq!(sample(json!(["r:0", "r:1"])), [named("r:0"), named("r:1")]);
    assert_eq!(sample(json!(null)), [None, None]);
}

/// A server of the protobuf dialect that answers questions for its dynamic config so.
fn changing(configs: impl IntoIterator<Item = support::Reply>) -> Fake {
    let fake = Fake::start();
    fake.script("config", [ok(json!({}))]);
    fake.script("dynamic_config", configs);
    fake
}

fn cancelled(fake: &Fake) -> Vec<Value> {
    let requests = fake.requests("cancel_future");
    requests.iter().map(|request| request.body()).collect()
}

#[test]
fn a_sample_that_is_dropped_is_cancelled_where_the_server_wants_to_know() {
    let wanted = json!({"sample_cancel_enabled": true, "refresh_interval_sec": 60, "later": []});
    let unwanted = json!({"sample_cancel_enabled": false, "refresh_interval_sec": 60});
    let fake = changing([ok(wanted), raw(502, "not now"), ok(unwanted.clone()), ok(unwanted)]);
    fake.on("asample", |_| answer());
    let clock = TestClock::default();
    let builder = fake.builder().sdk_version("0.38.0").clock(clock.clone());
    let sampler = builder.connect().unwrap().create_sampling_client("tiny").unwrap();
    let start = || {
        let params = SamplingParams::max_tokens(1);
        sampler.sample(&prompt(), 1, &params).unwrap()
    };
    // Neither what has ended nor what has failed can be cancelled.
    start().result().unwrap();
    let failed = start();
    fake.script("retrieve_future", [status(422, json!({}))]);
    failed.result().unwrap_err();
    // Waiting may go on after a deadline, until the future is dropped.
    let mut late = start();
    fake.script("retrieve_future", [status(408, json!({}))]);
    late.result_timeout(std::time::Duration::from_millis(50)).unwrap_err();
    assert!(fake.requests("dynamic_config").is_empty());
    drop(late);
    drop(start());
    fake.wait_for("cancel_future", 2);
    assert_eq!(cancelled(&fake), [json!({"request_id": "r2"}), json!({"request_id": "r3"})]);
    let asked = fake.requests("dynamic_config");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, "/api/v1/client/dynamic_config");
    assert_eq!(asked[0].body(), json!({"sdk_version": "0.38.0"}));
    // After the interval it is asked for again; when that fails, what was wanted is still wanted.
    for (asked, told) in [(2, 3), (3, 3), (4, 3)] {
        let interval = std::time::Duration::from_secs(60);
        clock.0.lock().unwrap().push(interval);
        drop(start());
        fake.wait_for("dynamic_config", asked);
        fake.wait_for("cancel_future", told);
    }
    assert_eq!(cancelled(&fake).len(), 3);
}

#[test]
fn an_older_server_is_told_of_nothing() {
    let fake = changing([]);
    fake.on("asample", |_| answer());
    let clock = TestClock::default();
    let service = fake.builder().clock(clock.clone()).connect().unwrap();
    let recent = service.create_sampling_client("tiny").unwrap();
    for asked in 1..=2 {
        drop(recent.sample(&prompt(), 1, &SamplingParams::max_tokens(1)));
        fake.wait_for("dynamic_config", asked);
        let interval = std::time::Duration::from_secs(300);
        clock.0.lock().unwrap().push(interval);
    }
    assert!(cancelled(&fake).is_empty());
    let oldest = Fake::start();
    drop(sampler(&oldest).sample(&prompt(), 1, &SamplingParams::max_tokens(1)));
    assert!(oldest.requests("dynamic_config").is_empty());
}

#[test]
fn a_client_beside_others_numbers_its_samples_from_a_billion_times_its_own_number() {
    let fake = Fake::start();
    let config = json!({"sample_join_sampling_session": true, "sample_use_retrieve_futures": true});
    fake.script("config", [ok(config)]);
    fake.script("join_sampling_session", [ok(json!({"client_counter": 3}))]);
    fake.on("asample", |_| answer());
    let sampler = fake.service().join_sampling_session("shared").unwrap();
    assert_eq!(sampler.sampler_id(), "shared");
    assert_eq!(
        fake.requests("join_sampling_session")[0].body(),
        json!({"type": "join_sampling_session", "sampling_session_id": "shared"})
    );
    let ended = json!({"state": "finished", "request_id": "r0"});
    let news = json!({"completions": [ended], "cursor": 1});
    fake.script("retrieve_futures", [ok(news)]);
    let params = SamplingParams::max_tokens(1);
    let sample = sampler.sample(&prompt(), 1, &params).unwrap();
    sample.result().unwrap();
    assert_eq!(fake.requests("asample")[0].body()["seq_id"], 3_000_000_000u64);
    assert_eq!(
        fake.requests("retrieve_futures")[0].body()["target"],
        json!({"type": "sampling_session", "sampling_session_id": "shared", "cloned_sampler_id": 3})
    );
    fake.script("config", [ok(json!({"sample_join_sampling_session": true}))]);
    fake.script("join_sampling_session", [ok(json!({"client_counter": u64::MAX}))]);
    let error = fake.service().join_sampling_session("shared").unwrap_err();
    assert!(matches!(error, Error::Unexpected { .. }), "{error}");
}

#[test]
fn without_a_number_from_the_server_one_is_drawn() {
    let fake = Fake::start();
    fake.on("asample", |_| answer());
    let sampler = fake.service().join_sampling_session("shared").unwrap();
    drop(sampler.sample(&prompt(), 1, &SamplingParams::max_tokens(1)));
    let first = fake.requests("asample")[0].body()["seq_id"].as_u64().unwrap();
    assert!(first > 0 && first.is_multiple_of(1_000_000_000), "{first}");
    assert!(fake.requests("join_sampling_session").is_empty());
}

#[test]
fn a_server_that_ends_no_sample_for_two_hours_is_stuck() {
    use std::time::Duration;
    let hours = |n: u64| Duration::from_secs(3600 * n);
    let busy = || vec![status(429, json!({"detail": "busy"})); 500];
    for (config, limit) in [(json!({}), 2), (json!({"sample_enable_stuck_detection": false}), 3)] {
        let (fake, clock) = (Fake::start(), TestClock::default());
        fake.script("config", [ok(config)]);
        fake.on("asample", |_| answer());
        let service = fake.builder().clock(clock.clone()).connect().unwrap();
        let sampler = service.create_sampling_client("tiny").unwrap();
        let start = || {
            let params = SamplingParams::max_tokens(1);
            sampler.sample(&prompt(), 1, &params).unwrap()
        };
        let mut patient = start();
        fake.script("retrieve_future", busy());
        let error = patient.result_timeout(hours(3)).unwrap_err();
        let told = format!("not done within {:?}", hours(limit));
        assert!(error.to_string().contains(&told), "{error}");
    }
    // Another that ends shows that the server is not.
    let (fake, clock) = (Fake::start(), TestClock::default());
    fake.on("asample", |_| answer());
    let service = fake.builder().clock(clock.clone()).connect().unwrap();
    let sampler = service.create_sampling_client("tiny").unwrap();
    let params = SamplingParams::max_tokens(1);
    let mut slow = sampler.sample(&prompt(), 1, &params).unwrap();
    let quick = sampler.sample(&prompt(), 1, &params).unwrap();
    clock.0.lock().unwrap().push(hours(1));
    quick.result().unwrap();
    fake.script("retrieve_future", busy());
    slow.result_timeout(hours(9)).unwrap_err();
    let waited: Duration = clock.slept().iter().sum();
    assert!(waited > hours(2) + Duration::from_secs(3500), "{waited:?}");
    assert!(waited <= hours(3), "{waited:?}");
}
