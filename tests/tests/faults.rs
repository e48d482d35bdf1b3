//! Exactly once: whatever the network does, the model ends with the weights of an undisturbed run.

use std::{collections::HashMap, time::Duration};

use serde_json::json;
use tinsmith_client::{LoraConfig, Loss, LossFn, RetryConfig, ServiceClient};
use tinsmith_tests::{Action, BASE_MODEL, Proxy, Reply, Request, StillClock, adam, data};
use tinsmith_trainer::{ModelStats, Trainer};

/// What a run leaves behind.
#[derive(Debug, PartialEq)]
struct Outcome {
    digest: u64,
    stats: ModelStats,
    losses: Vec<f64>,
}

/// Two steps, each of a built-in and a custom pass and an optimizer step; between them the state is
/// saved, the model trained astray, and the state loaded again.
fn run(trainer: &Trainer, url: &str) -> (Outcome, StillClock, String) {
    let clock = StillClock::default();
    // A result that never comes is an error after 600 polls, not an hour of them.
    let retry = RetryConfig::default().result_timeout(Duration::from_secs(60));
    let service = ServiceClient::builder().base_url(url).retry(retry);
    let training = service
        .clock(clock.clone())
        .connect()
        .unwrap()
        .create_lora_training_client(BASE_MODEL, &LoraConfig::rank(4).seed(7))
        .unwrap();
    let data = data();
    let mut losses = Vec::new();
    let mut step = || {
        let plain = training.forward_backward(&data, LossFn::CrossEntropy, None);
        let custom = training.forward_backward_custom(&data, |batch| {
            Ok(Loss::new(batch.logprobs().square().mean()))
        });
        let optim = training.optim_step(&adam()).unwrap();
        losses.push(plain.unwrap().result().unwrap().metrics["loss:sum"]);
        losses.push(custom.unwrap().result().unwrap().report.loss);
        optim.result().unwrap();
    };
    step();
    let saved = training.save_state("middle").unwrap().result().unwrap();
    step();
    let loaded = training.load_state_with_optimizer(&saved.path).unwrap();
    loaded.result().unwrap();
    step();
    let id = training.model_id().to_owned();
    let outcome = Outcome {
        digest: trainer.weights_digest(&id).unwrap(),
        stats: trainer.stats(&id).unwrap(),
        losses,
    };
    (outcome, clock, id)
}

fn spawn() -> Trainer {
    let poll = Duration::from_millis(100);
    Trainer::builder().long_poll(poll).spawn().unwrap()
}

fn undisturbed() -> Outcome {
    let trainer = spawn();
    let (outcome, _, _) = run(&trainer, &trainer.url());
    let ran = outcome.stats.executed;
    assert_eq!((ran.forward, ran.forward_backward, ran.optim_step), (3, 6, 3));
    assert_eq!(outcome.losses[2..4], outcome.losses[4..6], "the load took the second step back");
    outcome
}

/// Does `harm` to every request the first time that it comes.
fn the_first_time(harm: Action) -> impl FnMut(&Request) -> Action {
    let mut seen = HashMap::new();
    move |request| match seen.insert((request.target.clone(), request.body.clone()), ()) {
        None => harm.clone(),
        Some(()) => Action::Pass,
    }
}

#[test]
fn every_kind_of_harm_to_every_request_changes_nothing() {
    let busy = Reply { retry_after: Some(7), ..Reply::empty(503) };
    let slow = Reply { status: 408, ..Reply::json(&json!({"queue_state": "active"})) };
    let harms = [
        Action::Drop,
        Action::Twice,
        Action::CutAfter,
        Action::HalfAnswer,
        Action::Instead(busy.clone()),
        Action::After(busy.clone()),
        Action::Instead(slow.clone()),
        Action::After(slow),
        Action::Instead(Reply::empty(400)),
        Action::After(Reply::empty(400)),
    ];
    let expected = undisturbed();
    for harm in harms {
        let trainer = spawn();
        let proxy = Proxy::before(&trainer.url(), the_first_time(harm.clone())).unwrap();
        let (outcome, clock, _) = run(&trainer, proxy.url());
        assert_eq!(outcome, expected, "{harm:?}");
        let asked = clock.naps().contains(&Duration::from_secs(7));
        assert_eq!(asked, retry_after(&harm), "{harm:?}: {:?}", clock.naps());
        // Each of the 3 × 4 + 2 training requests was sent twice, in the same bytes, except where
        // the client never knew.
        let sent = proxy.all().into_iter().filter(is_training);
        let mut copies: HashMap<Vec<u8>, usize> = HashMap::new();
        sent.for_each(|request| *copies.entry(request.body).or_default() += 1);
        let times = if harm == Action::Twice { 1 } else { 2 };
        assert_eq!(copies.len(), 14, "{harm:?}");
        assert!(copies.values().all(|&n| n == times), "{harm:?}");
    }
}

/// Whether the request has its turn among those of the model.
fn is_training(request: &Request) -> bool {
    let calls = ["forward", "forward_backward", "optim_step", "save_weights", "load_weights"];
    calls.contains(&request.call())
}

fn retry_after(harm: &Action) -> bool {
    matches!(harm, Action::Instead(reply) | Action::After(reply) if reply.retry_after.is_some())
}

#[test]
fn any_mixture_of_harm_changes_nothing() {
    let expected = undisturbed();
    for seed in 1..=6u64 {
        // xorshift64: chance that is the same each time.
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut dice = move |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        let trainer = spawn();
        let proxy = Proxy::before(&trainer.url(), move |_| match dice(16) {
            0 => Action::Drop,
            1 => Action::CutAfter,
            2 => Action::HalfAnswer,
            3 => Action::Twice,
            4 => Action::Instead(Reply::empty(503)),
            5 => Action::After(Reply::empty(502)),
            6 => Action::Instead(Reply::empty(408)),
            7 => Action::After(Reply::empty(429)),
            _ => Action::Pass,
        });
        let proxy = proxy.unwrap();
        let (outcome, clock, _) = run(&trainer, proxy.url());
        assert_eq!(outcome, expected, "seed {seed}");
        let retried = clock.naps().contains(&RetryConfig::default().first_delay);
        assert!(retried, "seed {seed} did no harm");
    }
}

#[test]
fn requests_that_arrive_again_after_all_others_change_nothing() {
    let trainer = spawn();
    let proxy = Proxy::before(&trainer.url(), |_| Action::Pass).unwrap();
    let (outcome, _, id) = run(&trainer, proxy.url());
    let mut replayed = 0;
    for request in proxy.all().into_iter().filter(is_training) {
        let reply = proxy.replay(&request).unwrap();
        assert_eq!(reply.status, 200, "{}", request.call());
        replayed += 1;
    }
    assert_eq!(replayed, 14);
    assert_eq!(trainer.weights_digest(&id).unwrap(), outcome.digest);
    assert_eq!(trainer.stats(&id).unwrap(), outcome.stats);
}
