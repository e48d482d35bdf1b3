//! Sessions, models, samplers, and strangers at the other end.

mod support;

use std::time::Duration;

use serde_json::json;
use support::{Fake, TestClock, datum, status};
use tinsmith_client::{
    AdamParams, Error, LoraConfig, LossFn, ModelInput, RetryConfig, SamplingParams, ServiceClient,
    Stop,
};

#[test]
fn a_session_says_what_it_is() {
    let fake = Fake::start();
    let service = fake.builder().tags(["a", "b"]).sdk_version("0.18.0").connect().unwrap();
    assert_eq!(service.session_id(), "session");
    let created = &fake.requests("create_session")[0];
    assert_eq!(
        (created.method.as_str(), created.path.as_str()),
        ("POST", "/api/v1/create_session")
    );
    assert_eq!(
        created.body(),
        json!({"type": "create_session", "tags": ["a", "b"], "user_metadata": {}, "sdk_version": "0.18.0"})
    );
    assert_eq!(created.headers["x-api-key"], "tml-very-secret");
    assert!(!created.headers.contains_key("authorization"));
    assert_eq!(service.server_capabilities().unwrap().supported_models[0].model_name, "tiny");
    assert_eq!(fake.requests("get_server_capabilities")[0].method, "GET");
    assert_eq!(service.health().unwrap().status, "ok");
}

#[test]
fn the_path_of_the_base_url_is_kept() {
    let fake = Fake::start();
    let base = format!("{}/training/v1/", fake.url);
    fake.builder().base_url(base).connect().unwrap();
    assert_eq!(fake.requests("create_session")[0].path, "/training/v1/api/v1/create_session");
}

#[test]
fn models_are_numbered_from_zero_and_waited_for() {
    let fake = Fake::start();
    let service = fake.service();
    for n in 0..2 {
        let training =
            service.create_lora_training_client("tiny", &LoraConfig::rank(4).seed(7)).unwrap();
        assert_eq!(training.model_id(), "model");
        assert_eq!(
            fake.requests("create_model")[n].body(),
            json!({"type": "create_model", "session_id": "session", "model_seq_id": n, "base_model": "tiny",
                   "lora_config": {"rank": 4, "seed": 7, "train_unembed": true, "train_mlp": true, "train_attn": true}})
        );
        assert_eq!(training.info().unwrap().model_data.model_name.as_deref(), Some("tiny"));
    }
    let nothing = LoraConfig {
        train_attn: false,
        train_mlp: false,
        train_unembed: false,
        ..LoraConfig::rank(1)
    };
    for config in [LoraConfig::rank(0), nothing] {
        assert!(matches!(
            service.create_lora_training_client("tiny", &config),
            Err(Error::Config { .. })
        ));
    }
    fake.on("create_model", |_| json!({"error": "no model large", "category": "user"}));
    let error = service.create_lora_training_client("large", &LoraConfig::rank(4)).unwrap_err();
    assert!(error.to_string().contains("no model large") && !error.is_retryable(), "{error}");
}

#[test]
fn training_requests_are_numbered_from_one() {
    let fake = Fake::start();
    let training = fake.training();
    let data = [datum(2)];
    training.forward(&data, LossFn::CrossEntropy, None).unwrap().result().unwrap();
    training.forward_backward(&data, LossFn::CrossEntropy, None).unwrap().result().unwrap();
    training.optim_step(&AdamParams::default()).unwrap().result().unwrap();
    let saved = training.save_state("a").unwrap().result().unwrap();
    training.load_state(&saved.path).unwrap().result().unwrap();
    training.load_state_with_optimizer(&saved.path).unwrap().result().unwrap();
    drop(training.save_weights_for_sampler(Some("a")).unwrap().result().unwrap());
    assert_eq!(
        fake.order(),
        [
            "forward 1",
            "forward_backward 2",
            "optim_step 3",
            "save_weights 4",
            "load_weights 5",
            "load_weights 6",
            "save_weights_for_sampler 7"
        ]
    );
    let optimizer: Vec<_> =
        fake.requests("load_weights").iter().map(|r| r.body()["optimizer"].clone()).collect();
    assert_eq!(optimizer, [false, true]);
    assert_eq!(training.unload().unwrap().result().unwrap().model_id, "model");
}

#[test]
fn samplers_come_from_names_from_paths_and_from_training() {
    let fake = Fake::start();
    fake.on("asample", |_| {
        json!({"type": "sample", "sequences": [{"stop_reason": "length", "tokens": [5, 6], "logprobs": [-0.5, -1.0]}],
               "prompt_logprobs": [null, -2.0]})
    });
    let service = fake.service();
    let prompt = ModelInput::from_tokens(vec![1, 2]);
    let sampler = service.create_sampling_client("tiny").unwrap();
    let params = SamplingParams {
        stop: Some(Stop::Strings(vec!["\n".into()])),
        ..SamplingParams::max_tokens(2)
    };
    let answer = sampler.sample(&prompt, 1, &params).unwrap().result().unwrap();
    assert_eq!(answer.sequences[0].tokens, [5, 6]);
    assert_eq!(sampler.compute_logprobs(&prompt).unwrap().result().unwrap(), [None, Some(-2.0)]);
    let asked = fake.requests("asample");
    assert_eq!(
        asked[0].body(),
        json!({"type": "sample", "num_samples": 1, "prompt": {"chunks": [{"type": "encoded_text", "tokens": [1, 2]}]},
               "sampling_params": {"max_tokens": 2, "stop": ["\n"], "temperature": 1.0, "top_k": -1, "top_p": 1.0},
               "sampling_session_id": "sampler", "seq_id": 0, "prompt_logprobs": false, "topk_prompt_logprobs": 0})
    );
    let second = asked[1].body();
    assert_eq!((&second["seq_id"], &second["prompt_logprobs"]), (&json!(1), &json!(true)));
    let longer = ModelInput::from_tokens(vec![1, 2, 3]);
    let error = sampler.compute_logprobs(&longer).unwrap().result().unwrap_err();
    assert!(error.to_string().contains("2 prompt_logprobs for a prompt of 3 tokens"), "{error}");
    assert!(matches!(
        sampler.sample(&ModelInput::default(), 1, &params),
        Err(Error::Config { what: "prompt", .. })
    ));

    let training = service.create_lora_training_client("tiny", &LoraConfig::rank(4)).unwrap();
    let named = training.save_weights_for_sampler(Some("a")).unwrap().result().unwrap();
    assert_eq!(named.path(), Some("tinker://model/sampler_weights/a"));
    fake.on("save_weights_for_sampler", |_| json!({"sampling_session_id": "thrown away"}));
    let unnamed = training.save_weights_for_sampler(None).unwrap().result().unwrap();
    assert_eq!(unnamed.path(), None);
    let saved: Vec<_> =
        fake.requests("save_weights_for_sampler").iter().map(|r| r.body()).collect();
    assert_eq!(
        (&saved[0]["path"], &saved[0]["sampling_session_seq_id"]),
        (&json!("a"), &json!(null))
    );
    // Numbers 0 and 1 went to the sampling sessions on the base model and on the path.
    assert_eq!(
        (&saved[1]["path"], &saved[1]["sampling_session_seq_id"]),
        (&json!(null), &json!(2))
    );
    let sessions: Vec<_> =
        fake.requests("create_sampling_session").iter().map(|r| r.body()).collect();
    assert_eq!(
        (&sessions[0]["base_model"], &sessions[0]["model_path"]),
        (&json!("tiny"), &json!(null))
    );
    assert_eq!(sessions[1]["model_path"], "tinker://model/sampler_weights/a");
}

#[test]
fn heartbeats_stop_when_the_session_is_over() {
    let fake = Fake::start();
    fake.script("session_heartbeat", [status(500, json!({})), status(410, json!({}))]);
    let retry = RetryConfig::default().heartbeat_period(Duration::from_millis(1));
    let service = fake.builder().retry(retry).connect().unwrap();
    let training = service.create_lora_training_client("tiny", &LoraConfig::rank(4)).unwrap();
    fake.wait_for("session_heartbeat", 2);
    // The answer is on its way; requests are accepted until it arrives.
    let error = std::iter::repeat_with(|| training.optim_step(&AdamParams::default()))
        .find_map(Result::err)
        .unwrap();
    assert!(matches!(error, Error::SessionOver), "{error}");
    assert_eq!(fake.requests("session_heartbeat").len(), 2);
    assert_eq!(fake.requests("session_heartbeat")[0].body()["session_id"], "session");
}

#[test]
fn dropping_a_session_waits_for_nothing() {
    let fake = Fake::start();
    fake.script("session_heartbeat", [support::Reply::Silence]);
    let retry = RetryConfig::default().heartbeat_period(Duration::from_millis(1));
    let service = fake.builder().retry(retry).connect().unwrap();
    fake.wait_for("session_heartbeat", 1);
    drop(service);
    // The heartbeat under way still waits for its answer.
    assert_eq!(fake.hung_up(), 0);
}

#[test]
fn the_key_is_told_to_nobody_else() {
    let fake = Fake::start();
    let secret = "tml-very-secret";
    fake.script("create_session", [status(401, json!({"detail": format!("bad key {secret}")}))]);
    let builder = fake.builder();
    let error = builder.clone().connect().unwrap_err();
    assert!(error.to_string().ends_with("401: bad key (API key)"), "{error}");
    assert!(!format!("{error:?} {builder:?} {:?}", fake.service()).contains(secret));
    let reason = |url: &str, key: &str| {
        ServiceClient::builder().base_url(url).api_key(key).connect().unwrap_err().to_string()
    };
    assert!(reason("http://10.0.0.1:8000", secret).contains("unencrypted"));
    assert!(reason("ftp://10.0.0.1", secret).contains("scheme must be https or http"));
    assert!(reason("localhost", secret).contains("needs a scheme and a host"));
    assert!(reason("https://user@host", secret).contains("user name"));
    assert!(reason(&fake.url, "two words").contains("characters that no key has"));
}

#[test]
fn a_trainer_that_is_not_running_is_reported_within_its_deadline() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let clock = TestClock::default();
    let builder = ServiceClient::builder().base_url(format!("http://{free}")).clock(clock.clone());
    let error = builder.connect().unwrap_err();
    assert!(error.is_timeout() && !error.may_have_been_applied(), "{error}");
    assert!(
        error.to_string().contains("client/config") && error.to_string().contains("cannot connect"),
        "{error}"
    );
    assert!(clock.slept().iter().sum::<Duration>() <= RetryConfig::default().start_timeout);
}
