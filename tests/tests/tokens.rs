//! A client of a trainer that gives tokens shows its key for those only.

use std::time::Duration;

use tinsmith_client::{Clock, ServiceClient, wire::ClientConfig};
use tinsmith_tests::{Action, Proxy, StillClock};
use tinsmith_trainer::Trainer;

#[test]
fn the_key_is_shown_for_tokens_only() {
    let config = ClientConfig { pjwt_auth_enabled: true, ..ClientConfig::default() };
    let trainer = Trainer::builder()
        .api_key("tml-secret")
        .client_config(config)
        .token_life(Duration::from_secs(1000))
        .spawn()
        .unwrap();
    let proxy = Proxy::before(&trainer.url(), |_| Action::Pass).unwrap();
    let clock = StillClock::default();
    let service = ServiceClient::builder()
        .base_url(proxy.url())
        .api_key("tml-secret")
        .clock(clock.clone())
        .connect()
        .unwrap();
    // After six tenths of its life a token is renewed before it is shown again.
    clock.sleep(Duration::from_secs(600));
    service.server_capabilities().unwrap();

    let requests = proxy.all();
    let mut shown = Vec::new();
    for request in requests.iter().filter(|it| it.call() != "session_heartbeat") {
        shown.push((request.call(), request.headers["x-api-key"].as_str()));
    }
    let [(_, _), (_, _), (_, first), (_, _), (_, second)] = shown[..] else {
        panic!("{shown:?}");
    };
    let expected = [
        ("config", "tml-secret"),
        ("token", "tml-secret"),
        ("create_session", first),
        ("token", "tml-secret"),
        ("get_server_capabilities", second),
    ];
    assert_eq!(shown, expected);
    assert!(first.starts_with("eyJ") && second.starts_with("eyJ") && first != second);
}
