//! Whatever is read can be written, and reads the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tinsmith_wire::{SampleResponse, proto};

fuzz_target!(|body: &[u8]| {
    let Ok(read) = proto::from_vec::<SampleResponse>(body.to_vec()) else {
        return;
    };
    let written = proto::to_vec(&read).expect("what was read can be written");
    let again = proto::from_vec::<SampleResponse>(written.clone()).expect("what was written can be read");
    // Bytes, since NaN differs from itself.
    assert_eq!(proto::to_vec(&again).expect("as before"), written);
});
