//! What networks and servers do outside of the laboratory ends no run that need not end.

mod support;

use std::{
    io::Write,
    net::TcpStream,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::json;
use support::{Fake, Reply, TestClock, datum, ok, raw, status};
use tinsmith_client::{
    AdamParams, CancelToken, Datum, Error, Event, LossFn, ModelInput, RequestOrder, RetryConfig,
    SamplingParams, TrainingClient,
};

fn training(fake: &Fake, order: RequestOrder) -> TrainingClient {
    let builder = fake.builder().clock(TestClock::default()).request_order(order);
    builder.connect().unwrap().create_lora_training_client("tiny", &Default::default()).unwrap()
}

fn step(training: &TrainingClient) -> tinsmith_client::Result<()> {
    training.optim_step(&AdamParams::default())?.result().map(drop)
}

/// Longer in all than the client allows silence for, and never silent for long.
fn dripping(stream: &mut TcpStream) {
    let body = br#"{"metrics": {"grad_norm": 2.0}}"#;
    let head = format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes());
    for byte in body {
        thread::sleep(Duration::from_millis(20));
        let _ = stream.write_all(&[*byte]);
    }
}

#[test]
fn a_transfer_may_take_longer_than_silence() {
    let fake = Fake::start();
    let silence = Duration::from_millis(400);
    let retry = RetryConfig::default().poll_timeout(silence);
    let service = fake.builder().retry(retry).connect().unwrap();
    let training = service.create_lora_training_client("tiny", &Default::default()).unwrap();
    fake.script("retrieve_future", [Reply::Own(dripping)]);
    let step = training.optim_step(&AdamParams::default()).unwrap().result().unwrap();
    assert_eq!(step.metrics["grad_norm"], 2.0);
    // One question for the model, one for the step.
    assert_eq!(fake.requests("retrieve_future").len(), 2);
}

#[test]
fn a_long_wait_is_told_after_five_seconds_and_then_once_a_minute() {
    let (fake, told) = (Fake::start(), Arc::new(Mutex::new(Vec::new())));
    let hears = told.clone();
    let progress = move |event: &Event| {
        if let Event::Waiting { call, waited } = event {
            hears.lock().unwrap().push((call.call, waited.as_secs()));
        }
    };
    // Time passes by the waits of the client only: a tenth of a second after each answer.
    let service = fake.builder().clock(TestClock::default()).progress(progress).connect().unwrap();
    let training = service.create_lora_training_client("tiny", &Default::default()).unwrap();
    let not_yet = json!({"type": "try_again", "request_id": "r1", "queue_state": "active"});
    fake.script("retrieve_future", (0..700).map(|_| ok(not_yet.clone())));
    step(&training).unwrap();
    assert_eq!(*told.lock().unwrap(), [("optim_step", 5), ("optim_step", 65)]);
}

#[test]
fn an_answer_that_comes_before_the_body_was_read_is_seen() {
    let fake = Fake::start();
    let training = training(&fake, RequestOrder::BySequence);
    fake.limit_bodies(100_000);
    let tokens = 1_000_000;
    let datum = Datum::new(ModelInput::from_tokens(vec![1; tokens]))
        .with("target_tokens", vec![1i64; tokens]);
    // The connections that are kept know nothing of the limit yet.
    fake.script("get_info", vec![raw(200, "x"); 5]);
    training.info().unwrap_err();
    let error = training.forward_backward(&[datum], LossFn::CrossEntropy, None).unwrap_err();
    assert!(
        matches!(&error, Error::Status { status: 413, call, .. } if call.attempts == 1),
        "{error}"
    );
    assert!(!error.may_have_been_applied(), "{error}");
    step(&training).unwrap();
}

fn listed(id: &str) -> Reply {
    ok(json!({"checkpoints": [{
        "checkpoint_id": id, "checkpoint_type": "training", "time": "2026-01-01T00:00:00Z",
        "tinker_path": format!("tinker://model/{id}")
    }]}))
}

#[test]
fn a_save_whose_answer_was_lost_is_found() {
    for id in ["weights/a", "a"] {
        let fake = Fake::start();
        let training = training(&fake, RequestOrder::BySequence);
        let taken = status(409, json!({"detail": "checkpoint a already exists"}));
        fake.script("save_weights", [Reply::Close, taken]);
        fake.script("checkpoints", [listed(id)]);
        let saved = training.save_state("a").unwrap().result().unwrap();
        assert_eq!(saved.path, format!("tinker://model/{id}"));
        step(&training).unwrap();
        assert_eq!(fake.requests("optim_step")[0].seq_id(), 2);
    }
}

#[test]
fn a_save_that_is_not_there_after_all_is_an_error_that_remembers_the_lost_attempt() {
    let fake = Fake::start();
    let training = training(&fake, RequestOrder::BySequence);
    let taken = status(409, json!({"detail": "checkpoint a already exists"}));
    fake.script("save_weights", [Reply::Close, taken.clone()]);
    fake.script("checkpoints", [listed("weights/b")]);
    let error = training.save_state("a").unwrap_err();
    assert!(matches!(error, Error::Status { status: 409, .. }), "{error}");
    assert!(error.may_have_been_applied(), "{error}");
    // A name that someone else has taken is a refusal like any other.
    let training = self::training(&fake, RequestOrder::BySequence);
    fake.script("save_weights", [taken]);
    let error = training.save_state("a").unwrap_err();
    assert!(!error.may_have_been_applied(), "{error}");
    step(&training).unwrap();
}

#[test]
fn what_was_trained_can_be_saved_when_nobody_knows_what_became_of_a_step() {
    for order in [RequestOrder::BySequence, RequestOrder::ByArrival] {
        let fake = Fake::start();
        let retry = RetryConfig::default().submit_attempts(3);
        let builder = fake.builder().retry(retry).clock(TestClock::default());
        let service = builder.request_order(order).connect().unwrap();
        let training = service.create_lora_training_client("tiny", &Default::default()).unwrap();
        fake.script("optim_step", [Reply::Close, Reply::Close, Reply::Close]);
        let lost = step(&training).unwrap_err();
        assert!(lost.may_have_been_applied(), "{lost}");
        let later = step(&training).unwrap_err();
        assert!(matches!(&later, Error::Poisoned { .. }), "{later}");
        assert!(later.to_string().contains("save_state still works"), "{later}");
        // The server counts the id of the lost step as used.
        fake.script("save_weights", [status(409, json!({"detail": "seq_id 1 was another"}))]);
        let used = if order == RequestOrder::BySequence { 4 } else { 1 };
        fake.script("save_weights", (1..used).map(|_| status(409, json!({"detail": "the same"}))));
        training.save_state("a").unwrap().result().unwrap();
        let ids: Vec<u64> = fake.requests("save_weights").iter().map(|r| r.seq_id()).collect();
        assert_eq!(ids.last(), Some(&2));
    }
}

#[test]
fn a_success_that_nobody_can_read_is_asked_for_again_where_that_is_safe() {
    let unreadable = || [raw(200, "<html>log in</html>"), raw(200, ""), raw(200, "{\"request_")];
    for reply in unreadable() {
        let fake = Fake::start();
        let training = training(&fake, RequestOrder::BySequence);
        fake.script("optim_step", [reply.clone()]);
        fake.script("retrieve_future", [reply.clone()]);
        step(&training).unwrap();
        let sent = fake.requests("optim_step");
        assert_eq!((sent.len(), &sent[0].bytes), (2, &sent[1].bytes));

        // Where a repetition would be another step it is not sent.
        let training = self::training(&fake, RequestOrder::ByArrival);
        fake.script("optim_step", [reply]);
        let error = step(&training).unwrap_err();
        assert!(error.may_have_been_applied(), "{error}");
        assert_eq!(fake.requests("optim_step").len(), 3);
    }
}

#[test]
fn samples_are_as_many_and_as_long_as_they_should_be() {
    let sequence = |tokens: &[u32], logprobs: &[f32]| json!({"tokens": tokens, "logprobs": logprobs, "stop_reason": "length"});
    let good = || sequence(&[1, 2], &[-1.0, -2.0]);
    for (sequences, problem) in [
        (vec![], "0 sequences for num_samples 1"),
        (vec![good(), good()], "2 sequences for num_samples 1"),
        (vec![sequence(&[1, 2], &[-1.0])], "sequence 0 has 1 logprobs for 2 tokens"),
        (vec![good()], ""),
    ] {
        let fake = Fake::start();
        let sampler = fake.service().create_sampling_client("tiny").unwrap();
        fake.on("asample", move |_| json!({"sequences": sequences}));
        let prompt = ModelInput::from_tokens(vec![1]);
        let sample = sampler.sample(&prompt, 1, &SamplingParams::max_tokens(2)).unwrap();
        match sample.result() {
            Ok(_) => assert_eq!(problem, ""),
            Err(error) => assert!(error.to_string().ends_with(problem), "{error}"),
        }
    }
}

#[test]
fn a_sampler_of_saved_weights_is_asked_for_in_moments_too() {
    let fake = Fake::start();
    let retry = RetryConfig::default().try_timeout(Duration::from_millis(50));
    let service = fake.builder().retry(retry).connect().unwrap();
    let training = service.create_lora_training_client("tiny", &Default::default()).unwrap();
    let mut saving = training.save_weights_for_sampler(Some("a")).unwrap();
    fake.script("create_sampling_session", [Reply::Silence]);
    assert!(saving.try_result().unwrap().is_none());
    let sampler = saving.try_result().unwrap().unwrap();
    assert_eq!(
        (sampler.sampler_id(), sampler.path()),
        ("sampler", Some("tinker://model/sampler_weights/a"))
    );
    let asked = fake.requests("create_sampling_session");
    assert_eq!((asked.len(), &asked[0].bytes), (2, &asked[1].bytes));
    assert!(matches!(saving.try_result(), Err(Error::ResultTaken)));
}

#[test]
fn errors_of_a_chunk_name_the_callers_data() {
    let fake = Fake::start();
    let limits = tinsmith_client::ChunkLimits::default().max_len(2);
    let service = fake.builder().chunk_limits(limits).connect().unwrap();
    let training = service.create_lora_training_client("tiny", &Default::default()).unwrap();
    let data: Vec<Datum> = (1..7).map(datum).collect();
    let refused = status(400, json!({"detail": "data[1].model_input: too long"}));
    let fine = ok(json!({"request_id": "r0"}));
    fake.script("forward_backward", [fine.clone(), fine, refused]);
    let error = training.forward_backward(&data, LossFn::CrossEntropy, None).unwrap_err();
    assert!(error.to_string().contains("with data 4..6 of the batch as its 0..2"), "{error}");
}

#[test]
fn a_cancelled_wait_ends_and_what_was_accepted_can_be_asked_for_later() {
    let fake = Fake::start();
    let cancel = CancelToken::new();
    let service = fake.builder().cancel_token(&cancel).connect().unwrap();
    let training = service.create_lora_training_client("tiny", &Default::default()).unwrap();
    fake.script("retrieve_future", [Reply::Silence]);
    let mut waiting = training.optim_step(&AdamParams::default()).unwrap();
    let outcome = thread::scope(|scope| {
        let wait = scope.spawn(|| waiting.result_timeout(Duration::from_secs(600)));
        fake.wait_for("retrieve_future", 2);
        cancel.cancel();
        wait.join().unwrap()
    });
    assert!(matches!(outcome, Err(Error::Cancelled { .. })), "{outcome:?}");
    let refused = training.save_state("a").unwrap_err();
    assert!(!refused.may_have_been_applied(), "{refused}");
    cancel.reset();
    waiting.result_timeout(Duration::from_secs(600)).unwrap();
    training.save_state("a").unwrap().result().unwrap();
}
