//! What it costs to write and read a million tokens: `cargo bench -p tinsmith-wire`.
//!
//! | row | what is timed | to be compared with |
//! |---|---|---|
//! | `wire/json/encode/1M` | a request (tokens, targets, weights) to JSON | |
//! | `wire/json/decode/1M` | a result (logprobs) from JSON | `floats` |
//! | `wire/json/floats/1M` | the same numbers by serde_json alone, as one `Vec<f32>` | |
//! | `wire/proto/encode/1M` | the request to protobuf | |
//! | `wire/proto/decode/1M` | the request from protobuf | |
//! | `wire/proto/both/1M` | to protobuf and back | `copy`, three times |
//! | `wire/proto/result/1M` | the result from protobuf | |
//! | `wire/copy/1M` | a copy of the request's bytes | |

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion};
use serde_json::Value;
use tinsmith_wire::{
    Datum, ForwardBackwardOutput, LossFn, ModelInput, Pass, PassRequest, TensorData, json, proto,
};

const SEQUENCES: usize = 512;
const TOKENS: usize = 2048;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let (request, result) = (request(), result());
    requests(&mut criterion, &request);
    results(&mut criterion, &result);
}

fn requests(criterion: &mut Criterion, request: &PassRequest) {
    let body = proto::to_vec(request).expect("a valid request");
    let read = |body| proto::from_vec::<PassRequest>(body).expect("a body just written");
    assert_eq!(read(body.clone()), *request);

    criterion.bench_function("wire/copy/1M", |b| {
        b.iter_with_large_drop(|| black_box(&body).clone());
    });
    criterion.bench_function("wire/proto/both/1M", |b| {
        b.iter_with_large_drop(|| proto::to_vec(black_box(request)).map(read));
    });
    criterion.bench_function("wire/proto/encode/1M", |b| {
        b.iter_with_large_drop(|| proto::to_vec(black_box(request)));
    });
    criterion.bench_function("wire/proto/decode/1M", |b| {
        b.iter_batched(|| body.clone(), read, BatchSize::PerIteration);
    });
    criterion.bench_function("wire/json/encode/1M", |b| {
        b.iter_with_large_drop(|| json::to_vec(black_box(request)));
    });
}

fn results(criterion: &mut Criterion, result: &ForwardBackwardOutput) {
    // Through `Value`: numbers get the digits of doubles and `data` comes before `dtype`, as the
    // Python servers write it.
    let text = |value: serde_json::Result<Value>| {
        let value = value.expect("finite numbers");
        value.to_string().into_bytes()
    };
    let rows = result.loss_fn_outputs.iter();
    let floats: Vec<f32> =
        rows.flat_map(|row| row["logprobs"].as_f32().expect("dense floats").to_vec()).collect();
    let floats = text(serde_json::to_value(&floats));
    let text = text(serde_json::to_value(result));
    let body = proto::to_vec(result).expect("dense tensors");
    let read = |body| proto::from_vec::<ForwardBackwardOutput>(body).expect("a body just written");
    assert_eq!(read(body.clone()), *result);

    criterion.bench_function("wire/json/floats/1M", |b| {
        b.iter_with_large_drop(|| serde_json::from_slice::<Vec<f32>>(black_box(&floats)));
    });
    criterion.bench_function("wire/json/decode/1M", |b| {
        b.iter_with_large_drop(|| json::from_slice::<ForwardBackwardOutput>(black_box(&text)));
    });
    criterion.bench_function("wire/proto/result/1M", |b| {
        b.iter_batched(|| body.clone(), read, BatchSize::PerIteration);
    });
}

fn request() -> PassRequest<'static> {
    let datum = |s: usize| {
        let id = |t: usize| ((s * TOKENS + t) * 7919 % 151_936) as u32;
        let tokens: Vec<u32> = (0..TOKENS).map(id).collect();
        let targets: Vec<i64> = (1..=TOKENS).map(|t| id(t).into()).collect();
        Datum::new(ModelInput::from_tokens(tokens))
            .with("target_tokens", targets)
            .with("weights", logprobs(s))
    };
    PassRequest {
        pass: Pass::ForwardBackward,
        data: (0..SEQUENCES).map(datum).collect(),
        loss_fn: LossFn::CrossEntropy,
        loss_fn_config: None,
        model_id: "model".into(),
        seq_id: 1,
    }
}

fn result() -> ForwardBackwardOutput {
    let output = |s| [("logprobs".to_owned(), TensorData::from(logprobs(s)))].into();
    ForwardBackwardOutput {
        loss_fn_output_type: "ArrayRecord".into(),
        loss_fn_outputs: (0..SEQUENCES).map(output).collect(),
        ..Default::default()
    }
}

/// Numbers with all their digits.
fn logprobs(sequence: usize) -> Vec<f32> {
    let token = |t| -((sequence * TOKENS + t) as f32 * 0.618_034).fract() * 5.0;
    (0..TOKENS).map(token).collect()
}
