//! Samples: asked for with everything there is, lost and asked for again, waited for together.

mod support;

use serde_json::{Value, json};
use support::{Fake, TestClock, ok, status};
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
    let options = SampleOptions {
        num_samples: 3,
        prompt_logprobs: true,
        topk_prompt_logprobs: 2,
        topk_sample_logprobs: 4,
        target_prompt_logprobs: Some(TensorData::new(vec![7i64, -1], &[1, 2]).unwrap()),
        prompt_alt_tokens_k: 5,
        prompt_logprobs_last_n: Some(1),
        record_stability_info: true,
        params: SamplingParams {
            stop: Some(Stop::Tokens(vec![9])),
            seed: Some(11),
            ..SamplingParams::max_tokens(6)
        },
    };
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
    let sample = sampler
        .sample(&prompt(), 1, &SamplingParams::max_tokens(1))
        .unwrap();
    fake.script("retrieve_future", [status(410, json!({"detail": "gone"}))]);
    assert_eq!(sample.result().unwrap().sequences[0].tokens, [5]);
    let ids: Vec<Value> = fake
        .requests("asample")
        .iter()
        .map(|r| r.body()["seq_id"].clone())
        .collect();
    assert_eq!(ids, [0, 1]);
}

#[test]
fn a_server_may_forbid_another_submission() {
    let fake = Fake::start();
    fake.script("config", [ok(json!({"sample_no_retries": true}))]);
    let sampler = sampler(&fake);
    let sample = sampler
        .sample(&prompt(), 1, &SamplingParams::max_tokens(1))
        .unwrap();
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
    drop(
        sampler
            .sample(&prompt(), 1, &SamplingParams::max_tokens(1))
            .unwrap(),
    );
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
    let asked: Vec<Value> = fake
        .requests("retrieve_futures")
        .iter()
        .map(|r| r.body())
        .collect();
    let target = json!({"type": "sampling_session", "sampling_session_id": "sampler", "cloned_sampler_id": 0});
    assert_eq!(
        asked[0],
        json!({"target": target, "prev_cursor": 0, "retrieved_request_ids": []})
    );
    assert_eq!((asked.len(), &asked[1]["prev_cursor"]), (2, &json!(3)));
    // Each is then fetched at once: it is known to be there.
    let polls = fake.requests("retrieve_future");
    let fetched: Vec<Value> = polls
        .iter()
        .map(|r| r.body()["allow_metadata_only"].clone())
        .collect();
    assert_eq!(fetched, [false, false]);
}

#[test]
fn samples_are_waited_for_singly_where_the_server_does_not_know_the_other_way() {
    let fake = Fake::start();
    fake.script("config", [ok(json!({"sample_use_retrieve_futures": true}))]);
    fake.script("retrieve_futures", [status(404, json!({}))]);
    let sampler = sampler(&fake);
    let sample = sampler
        .sample(&prompt(), 1, &SamplingParams::max_tokens(1))
        .unwrap();
    sample.result().unwrap();
    assert_eq!(fake.requests("retrieve_futures").len(), 1);
}
