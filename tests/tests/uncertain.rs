//! A server that goes by arrival does twice what it is sent twice. So a request that may have
//! arrived is not repeated; the error says that it may have, and the run goes on from its last
//! checkpoint.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use tinsmith_client::{
    Batch, Dialect, LoraConfig, Loss, RequestOrder, Result, ServiceClient, TrainingClient,
};
use tinsmith_tests::{Action, BASE_MODEL, Proxy, Reply, Request, StillClock, adam, data};
use tinsmith_trainer::Trainer;

const STEPS: usize = 8;

/// After these nobody can know whether the server has the request.
fn harms() -> [Action; 12] {
    let after = |status| Action::After(Reply::empty(status));
    [
        Action::Drop,
        Action::Reset,
        Action::CutAfter,
        Action::ResetAfter,
        Action::HalfClose,
        Action::HalfHead,
        Action::HalfBody,
        Action::HalfAnswer,
        Action::After(Reply::page(502)),
        after(408),
        after(500),
        after(504),
    ]
}

/// Harms one in eight of the requests that the server executes; counts those that come again though
/// they were harmed.
fn harm(seed: u64, again: Arc<AtomicUsize>) -> impl FnMut(&Request) -> Action + Send {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let mut harmed = HashSet::new();
    move |request| {
        let executed = [
            "create_model",
            "forward",
            "forward_backward",
            "optim_step",
            "save_weights",
            "load_weights",
        ];
        if !executed.contains(&request.call()) {
            return Action::Pass;
        }
        if harmed.contains(&request.body) {
            again.fetch_add(1, Ordering::Relaxed);
        }
        if !dice.random_bool(1.0 / 8.0) {
            return Action::Pass;
        }
        harmed.insert(request.body.clone());
        harms().choose(&mut dice).expect("there are some").clone()
    }
}

/// The last checkpoint, and how many steps it stands for.
type Last = Option<(usize, String)>;

/// Trains from the last checkpoint to the end, or to the first error.
fn train(url: &str, last: &mut Last) -> Result<TrainingClient> {
    let service = ServiceClient::builder().base_url(url).clock(StillClock::default());
    let service =
        service.dialect(Dialect::Json).request_order(RequestOrder::ByArrival).connect()?;
    let (training, start) = match &*last {
        None => (service.create_lora_training_client(BASE_MODEL, &LoraConfig::rank(4).seed(7))?, 0),
        Some((step, path)) => {
            (service.create_training_client_from_state_with_optimizer(path)?, *step)
        }
    };
    let data = data();
    for step in start + 1..=STEPS {
        let loss = |batch: &Batch| Ok(Loss::new(batch.logprobs().square().mean()));
        training.forward_backward_custom(&data, loss)?.result()?;
        training.optim_step(&adam())?.result()?;
        let saved = training.save_state(&format!("step-{step}"))?.result()?;
        *last = Some((step, saved.path));
    }
    Ok(training)
}

#[test]
fn what_nobody_can_know_is_not_repeated_and_the_run_goes_on_from_its_last_checkpoint() {
    let trainer = Trainer::spawn().unwrap();
    let digest = |training: &TrainingClient| trainer.weights_digest(training.model_id()).unwrap();
    let expected = digest(&train(&trainer.url(), &mut None).unwrap());

    let again = Arc::new(AtomicUsize::default());
    let proxy = Proxy::before(&trainer.url(), harm(1, again.clone())).unwrap();
    let (mut last, mut errors) = (None, Vec::new());
    let training = loop {
        match train(proxy.url(), &mut last) {
            Ok(training) => break training,
            Err(error) => errors.push(error),
        }
        assert!(errors.len() < 100, "{errors:?}");
    };
    assert!(errors.len() >= 3 && errors.iter().all(|it| it.may_have_been_applied()), "{errors:?}");
    assert_eq!(again.load(Ordering::Relaxed), 0, "requests were repeated");
    assert_eq!(digest(&training), expected);
}
