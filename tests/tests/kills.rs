//! Whenever a client or a trainer is killed or stopped, the run goes on from its last checkpoint as
//! if nothing had happened. `cargo xtask kills` does it hundreds of times.
#![cfg(unix)]

use std::time::Duration;

use tinsmith_tests::kills::{Blow, Kills, Program, Victim};

#[test]
fn what_is_saved_after_a_kill_is_what_an_undisturbed_run_saves() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program { path: env!("CARGO_BIN_EXE_party").into(), arguments: Vec::new() };
    let kills = Kills {
        client: 2,
        trainer: 2,
        stops: 1,
        seed: 1,
        step_delay: Duration::ZERO,
        save_delay: Duration::ZERO,
        stop: Duration::ZERO,
    };
    let outcome = kills.run(&program, folder.path(), |_| {}).unwrap();
    assert!(outcome.is_well(), "{outcome:?}");
    let of = |victim, blow| outcome.blows[&(victim, blow)];
    assert_eq!(of(Victim::Client, Blow::Kill), (2, 2));
    assert_eq!(of(Victim::Trainer, Blow::Kill), (2, 2));
    assert_eq!(of(Victim::Client, Blow::Stop), (1, 1));
    assert_eq!(of(Victim::Trainer, Blow::Stop), (1, 1));
    assert!(outcome.checkpoints >= 6 && outcome.steps >= 18, "{outcome:?}");
}
