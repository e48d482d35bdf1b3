//! Whatever networks and gateways do to a long run, the model ends as that of an undisturbed one.
//! `cargo xtask soak` runs the same for thousands of steps.

use std::{collections::BTreeSet, time::Duration};

use tinsmith_client::{Dialect, RequestOrder};
use tinsmith_tests::{Fault, soak::Soak};

fn soak(steps: usize, seed: u64, dialect: Dialect, order: RequestOrder) -> BTreeSet<Fault> {
    let soak = Soak { steps, seed, dialect, order, fault_rate: 0.4, drip_pause: Duration::ZERO };
    let outcome = soak.run(|_, _| {}).unwrap();
    assert_eq!(outcome.found.stats.executed, soak.planned(), "{soak:?}");
    assert_eq!((outcome.lost(), outcome.twice(order)), (0, 0), "{soak:?}");
    assert!(outcome.expected == outcome.found, "{soak:?}: another model came out");
    assert!(outcome.obeys(), "{soak:?}: {:?}", outcome.waits);
    outcome.tally.faults.into_keys().collect()
}

#[test]
fn a_run_through_faults_ends_as_an_undisturbed_one() {
    let met = soak(16, 1, Dialect::Json, RequestOrder::BySequence);
    let more = soak(16, 2, Dialect::Protobuf, RequestOrder::BySequence);
    assert!(met.union(&more).count() >= Fault::ALL.len() - 6, "{met:?} and {more:?}");
}

#[test]
fn a_run_through_faults_sends_a_server_that_goes_by_arrival_nothing_twice() {
    let met = soak(12, 3, Dialect::Json, RequestOrder::ByArrival);
    assert!(met.contains(&Fault::Refused) && met.contains(&Fault::TooManySeconds), "{met:?}");
}
