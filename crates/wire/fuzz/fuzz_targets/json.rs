//! Every JSON body that carries tensors or numbers: whatever is read can be written, and reads the
//! same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tinsmith_wire::{
    CreateCustomLossRequest, ErrorBody, ForwardBackwardOutput, FutureReply, LoadWeights,
    OptimStepRequest, PassRequest, SampleRequest, SampleResponse, json,
};

fuzz_target!(|body: &[u8]| {
    survives::<PassRequest>(body);
    survives::<ForwardBackwardOutput>(body);
    survives::<SampleRequest>(body);
    survives::<SampleResponse>(body);
    survives::<CreateCustomLossRequest>(body);
    survives::<OptimStepRequest>(body);
    survives::<LoadWeights>(body);
    let _ = json::from_slice::<ErrorBody>(body).map(|error| error.message());
    let _ = FutureReply::<ForwardBackwardOutput>::from_json(body);
});

fn survives<T>(body: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let Ok(read) = json::from_slice::<T>(body) else {
        return;
    };
    // A number may be too large for its type and read as infinity, which cannot be written.
    let Ok(written) = json::to_vec(&read) else {
        return;
    };
    let again = json::from_slice::<T>(&written).expect("what was written can be read");
    assert_eq!(again, read);
}
