//! Keys, sessions, and models that go.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tinsmith_trainer::Trainer;
use tinsmith_wire::ClientConfig;

use crate::support::{Client, text, texts};

/// A client without a session.
fn stranger(trainer: &Trainer) -> Client {
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    Client {
        url: trainer.url(),
        session: String::new(),
        model: String::new(),
        agent: config.into(),
    }
}

#[test]
fn a_token_stands_for_the_key_while_it_is_good() {
    let start = |life: u64| {
        let config = ClientConfig { pjwt_auth_enabled: true, ..ClientConfig::default() };
        let trainer = Trainer::builder().api_key("tml-secret").client_config(config);
        trainer.token_life(Duration::from_secs(life)).spawn().unwrap()
    };
    let call =
        |client: &Client, path: &str, key: &str| client.send(path, b"{}", &[("X-API-Key", key)]);

    let trainer = start(3600);
    let client = stranger(&trainer);
    assert_eq!(call(&client, "auth/token", "tml-wrong").0, 401);
    let token = text(&call(&client, "auth/token", "tml-secret").1["jwt"]);
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let life = claims["exp"].as_f64().unwrap() - claims["iat"].as_f64().unwrap();
    assert!((life - 3600.0).abs() < 1e-3, "{life}");
    assert_eq!(call(&client, "create_session", &token).0, 200);
    assert_eq!(call(&client, "create_session", "tml-secret").0, 200);
    assert_eq!(call(&client, "create_session", "eyJ.of.nobody").0, 401);
    // Nobody lives for ever on tokens alone.
    assert_eq!(call(&client, "auth/token", &token).0, 401);

    let trainer = start(0);
    let client = stranger(&trainer);
    let token = text(&call(&client, "auth/token", "tml-secret").1["jwt"]);
    let url = format!("{}/api/v1/create_session", client.url);
    let refused = client.agent.post(url).header("X-API-Key", &token).send("{}").unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["www-authenticate"], r#"Bearer error="invalid_token""#);

    let trainer = Trainer::builder().api_key("tml-secret").spawn().unwrap();
    let (status, answer) = call(&stranger(&trainer), "auth/token", "tml-secret");
    assert_eq!(status, 404);
    assert!(text(&answer["detail"]).contains("pjwt_auth_enabled"), "{answer}");
}

#[test]
fn a_key_is_asked_for_when_one_is_set() {
    let trainer = Trainer::builder().api_key("tml-secret").spawn().unwrap();
    let client = stranger(&trainer);
    let create = |headers: &[(&str, &str)]| client.send("create_session", b"{}", headers);
    for headers in [&[][..], &[("X-API-Key", "tml-wrong")]] {
        let (status, answer) = create(headers);
        assert_eq!(status, 401);
        assert!(text(&answer["detail"]).contains("API key"), "{answer}");
    }
    assert_eq!(create(&[("X-API-Key", "tml-secret")]).0, 200);
    let health = client.agent.get(format!("{}/api/v1/healthz", client.url)).call().unwrap();
    assert_eq!(health.status(), 200);
}

#[test]
fn a_session_lives_until_it_is_finished() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let beat = || client.post("session_heartbeat", json!({"session_id": client.session})).0;
    assert_eq!(beat(), 200);
    let finish = format!("sessions/{}/finish", client.session);
    for _ in 0..2 {
        client.ok(&finish, json!({"reason": {"type": "success"}, "detail": null}));
    }
    assert_eq!(beat(), 410);
}

#[test]
fn an_unloaded_model_is_gone() {
    let trainer = Trainer::spawn().unwrap();
    let client = Client::connect(&trainer);
    let info = client.ok("get_info", json!({"model_id": client.model}));
    assert_eq!((&info["lora_rank"], &info["model_name"]), (&json!(8), &json!("tiny-qwen3")));
    let stuck = client.submit("optim_step", client.optim_step(2));
    client.result("unload_model", json!({"model_id": client.model}));
    assert!(
        text(&client.retrieve(&stuck)["error"]).contains("no model"),
        "what waited behind a gap fails"
    );
    assert_eq!(client.refused("forward_backward", client.forward_backward(1, &texts())).0, 404);
    assert!(trainer.weights(&client.model).is_err());
}

#[test]
fn dropping_a_trainer_does_not_wait_for_polls_or_gaps() {
    let trainer = Trainer::builder().long_poll(Duration::from_secs(600)).spawn().unwrap();
    let client = Client::connect(&trainer);
    let stuck = client.submit("optim_step", client.optim_step(2));
    let poll = std::thread::spawn(move || {
        let body = json!({"request_id": stuck}).to_string();
        client
            .agent
            .post(format!("{}/api/v1/retrieve_future", client.url))
            .send(body.as_bytes())
            .is_err()
    });
    drop(trainer);
    assert!(poll.join().unwrap(), "the poll is cut off");
}
