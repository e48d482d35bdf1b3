//! Many threads on few models lose nothing, do nothing twice and leave nothing behind. It is the
//! only test of its process, whose threads and files it counts. `cargo xtask crowd` is the same
//! with hundreds of threads.

use tinsmith_tests::crowd::{Crowd, Open};
use tinsmith_trainer::Counts;

#[test]
fn a_crowd_of_threads_leaves_its_models_trained_and_nothing_else() {
    let crowd = Crowd { threads: 24, models: 3, seed: 1, fault_rate: 0.1 };
    let outcome = crowd.run(|made| made < 3).unwrap();
    assert_eq!(outcome.errors, [""; 0]);
    let expected = Counts { forward: 72, forward_backward: 72, optim_step: 72 };
    assert_eq!((outcome.asked, outcome.executed), (expected, expected));
    assert_eq!(outcome.left(), Open::default(), "{outcome:?}");
    assert!(outcome.requests.1 > 0 && outcome.samples > 0, "{outcome:?}");
}
