//! Bad input is an error that says what and where, at once or within its deadline.

use std::time::Duration;

use tinsmith_client::{
    Datum, DatumProblem, Error, LoraConfig, Loss, LossFn, ModelInput, RetryConfig, SamplingParams,
    ServiceClient, TensorData, TrainingClient, wire::DType,
};
use tinsmith_tests::{Action, BASE_MODEL, Proxy, StillClock, adam, connect, data, datum, train};
use tinsmith_trainer::{Counts, Trainer};

/// Three tokens with these inputs.
fn with(inputs: &[(&str, TensorData)]) -> Datum {
    let input = ModelInput::from_tokens(vec![1, 2, 3]);
    let add = |datum: Datum, (name, tensor): &(&str, TensorData)| datum.with(*name, tensor.clone());
    inputs.iter().fold(Datum::new(input), add)
}

/// The errors of the built-in pass and of the custom one on these data.
fn both(training: &TrainingClient, data: &[Datum]) -> [Error; 2] {
    let custom =
        training.forward_backward_custom(data, |batch| Ok(Loss::new(batch.logprobs().sum())));
    let plain = training.forward_backward(data, LossFn::CrossEntropy, None);
    [plain.unwrap_err(), custom.unwrap_err()]
}

#[test]
fn data_that_no_trainer_could_use_are_refused_before_anything_is_sent() {
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    let good = || vec![2i64, 3, 4].into();
    let shape = |found: &[usize], expected: &str| DatumProblem::Shape {
        found: found.into(),
        expected: expected.into(),
    };
    let dtype = |expected, found| DatumProblem::DType { expected, found };
    let cases: [(Datum, &str, DatumProblem); 7] = [
        (with(&[]), "target_tokens", DatumProblem::Missing),
        (
            with(&[("target_tokens", vec![2f32, 3.0, 4.0].into())]),
            "target_tokens",
            dtype(DType::Int64, DType::Float32),
        ),
        (
            with(&[("target_tokens", vec![2i64, 3].into())]),
            "target_tokens",
            shape(&[2], "[3] or [3, K]: one row for each token of the input"),
        ),
        (
            with(&[("target_tokens", vec![2i64, -1, 4].into())]),
            "target_tokens",
            DatumProblem::TokenOutOfRange { position: 1, token: -1 },
        ),
        (
            with(&[("target_tokens", good()), ("weights", vec![1i64, 1, 1].into())]),
            "weights",
            dtype(DType::Float32, DType::Int64),
        ),
        (
            with(&[("target_tokens", good()), ("weights", vec![1f32; 2].into())]),
            "weights",
            shape(&[2], "[3], as target_tokens"),
        ),
        (Datum::new(ModelInput::from_tokens(vec![])), "model_input", DatumProblem::Empty),
    ];
    for (bad, expected_field, expected) in cases {
        // In second place, to see that the place is told.
        for error in both(&training, &[datum("fine"), bad]) {
            let Error::Datum { index: 1, field, problem } = &error else {
                panic!("{expected:?}: {error}");
            };
            assert_eq!((field.as_str(), problem), (expected_field, &expected));
            let words = error.to_string();
            assert!(words.starts_with(&format!("datum 1: `{expected_field}` ")));
        }
    }
    for error in both(&training, &[]) {
        assert!(matches!(error, Error::EmptyBatch), "{error}");
    }
    let stats = trainer.stats(training.model_id()).unwrap();
    assert_eq!(stats.received, Counts::default());
}

#[test]
fn what_only_the_trainer_can_know_comes_back_in_its_words() {
    let trainer = Trainer::spawn().unwrap();
    let service = connect(&trainer.url()).unwrap();

    let error = service.create_lora_training_client("no-such-model", &LoraConfig::rank(4));
    expect(error.unwrap_err(), "create_model", 400, &["no-such-model", BASE_MODEL]);
    let error = service.create_sampling_client("no-such-model");
    expect(error.unwrap_err(), "create_sampling_session", 400, &["no-such-model"]);
    let error = service.create_lora_training_client(BASE_MODEL, &LoraConfig::rank(100_000));
    expect(error.unwrap_err(), "create_model", 400, &["lora_config.rank", "1024"]);

    // A token id beyond the model's vocabulary of 320, in the text and in the targets.
    let training = || train(&trainer.url()).unwrap();
    let text = Datum::new(ModelInput::from_tokens(vec![1, 320, 3]))
        .with("target_tokens", vec![2i64, 3, 4]);
    let words = ["data[1].model_input", "token id 320", "position 1", "0 to 319"];
    for error in both_fresh(training, &[datum("fine"), text]) {
        expect_status(error, 400, &words);
    }
    let targets = with(&[("target_tokens", vec![2i64, 3, 9999].into())]);
    let words = ["data[1]", "target_tokens", "token id 9999", "position 2"];
    for error in both_fresh(training, &[datum("fine"), targets]) {
        expect_status(error, 400, &words);
    }

    let training = training();
    let error = training.load_state("tinker://nobody/weights/nothing").unwrap().result();
    let error = error.unwrap_err();
    assert!(error.to_string().contains("tinker://nobody/weights/nothing"), "{error}");
}

#[test]
fn a_model_that_was_unloaded_is_named() {
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    let id = training.model_id().to_owned();
    training.clone().unload().unwrap().result().unwrap();
    expect(training.optim_step(&adam()).unwrap_err(), "optim_step", 404, &[&id]);
}

#[test]
fn a_wrong_key_is_refused_at_once_and_repeated_nowhere() {
    let trainer = Trainer::builder().api_key("tml-the-right-key").spawn().unwrap();
    let connect = |key: &str| {
        let builder = ServiceClient::builder().base_url(trainer.url()).api_key(key);
        builder.clock(StillClock::default()).connect()
    };
    connect("tml-the-right-key").unwrap();
    let error = connect("tml-a-wrong-key").unwrap_err();
    assert!(!error.to_string().contains("tml-"), "{error}");
    assert!(!format!("{error:?}").contains("tml-"), "{error:?}");
    expect(error, "client/config", 401, &["X-API-Key"]);
}

#[test]
fn no_trainer_at_the_address_is_told_within_the_deadline() {
    // A privileged port: none of the trainers of the tests around has it.
    let clock = StillClock::default();
    let builder = ServiceClient::builder().base_url("http://127.0.0.1:1");
    let error = builder.clock(clock.clone()).connect().unwrap_err();
    let limit = RetryConfig::default().start_timeout;
    assert!(error.is_timeout() && !error.may_have_been_applied(), "{error}");
    assert!(
        matches!(&error, Error::Deadline { call, limit: told, .. } if call.call == "client/config" && *told == limit),
        "{error}"
    );
    assert!(error.to_string().contains("cannot connect"), "{error}");
    let waited: Duration = clock.naps().iter().sum();
    assert!(waited <= limit, "{waited:?}");
}

#[test]
fn a_trainer_that_stops_is_told_within_the_deadline() {
    let trainer = Trainer::spawn().unwrap();
    let training = train(&trainer.url()).unwrap();
    let step = training.forward_backward(&data(), LossFn::CrossEntropy, None);
    drop(trainer);

    let error = step.unwrap().result().unwrap_err();
    assert!(error.may_have_been_applied(), "{error}");
    assert!(error.to_string().contains("forward_backward (seq 1)"), "{error}");

    let error = training.optim_step(&adam()).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert!(error.to_string().contains("optim_step (seq 2)"), "{error}");
}

#[test]
fn a_trainer_that_never_answers_is_told_within_the_deadline() {
    let trainer = Trainer::spawn().unwrap();
    let answered = ["config", "create_session", "create_model"];
    let proxy = Proxy::before(&trainer.url(), move |request| {
        let kind = request.headers.get("x-tinker-request-type");
        let model = kind.is_some_and(|kind| kind == "CreateModel");
        match model || answered.contains(&request.call()) {
            true => Action::Pass,
            false => Action::Drop,
        }
    });
    let training = train(proxy.unwrap().url()).unwrap();
    let error = training.optim_step(&adam()).unwrap_err();
    // The connection broke each time, so nobody can know.
    assert!(error.is_timeout() && error.may_have_been_applied(), "{error}");
    let later = training.optim_step(&adam()).unwrap_err();
    assert!(matches!(&later, Error::Poisoned { first } if *first == error.to_string()), "{later}");
}

#[test]
fn prompts_that_cannot_be_sampled_from_are_refused() {
    let trainer = Trainer::spawn().unwrap();
    let sampler = connect(&trainer.url()).unwrap().create_sampling_client(BASE_MODEL).unwrap();
    let prompt = |tokens: &[u32]| ModelInput::from_tokens(tokens);
    let few = SamplingParams::max_tokens(4);
    let error = sampler.sample(&prompt(&[]), 1, &few).unwrap_err();
    assert!(matches!(error, Error::Config { what: "prompt", .. }), "{error}");
    let error = sampler.sample(&prompt(&[1]), 0, &few).unwrap_err();
    assert!(matches!(error, Error::Config { what: "num_samples", .. }), "{error}");
    let error = sampler.sample(&prompt(&[1, 320]), 1, &few).unwrap_err();
    expect(error, "asample", 400, &["token id 320", "position 1"]);
}

/// As [`both`], each by a client of its own: the trainer's refusal may end its use.
fn both_fresh(training: impl Fn() -> TrainingClient, data: &[Datum]) -> [Error; 2] {
    let custom =
        training().forward_backward_custom(data, |batch| Ok(Loss::new(batch.logprobs().sum())));
    let plain = training().forward_backward(data, LossFn::CrossEntropy, None);
    [plain.unwrap_err(), custom.unwrap_err()]
}

fn expect(error: Error, expected_call: &str, status: u16, words: &[&str]) {
    match &error {
        Error::Status { call, .. } => {
            assert_eq!((call.call, call.attempts), (expected_call, 1), "{error}");
        }
        _ => panic!("{error}"),
    }
    expect_status(error, status, words);
}

fn expect_status(error: Error, expected: u16, words: &[&str]) {
    assert!(matches!(error, Error::Status { status, .. } if status == expected), "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}
