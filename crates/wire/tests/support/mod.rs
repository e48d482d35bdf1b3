//! Arbitrary protocol data.
#![allow(dead_code, reason = "each test uses its part")]

use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
};
use tinsmith_wire::*;

pub fn data(n: usize) -> impl Strategy<Value = Data> {
    let finite = any::<f32>().prop_filter("JSON has no NaN", |x| x.is_finite());
    prop_oneof![vec(finite, n).prop_map(Data::from), vec(any::<i64>(), n).prop_map(Data::from),]
}

pub fn dense() -> impl Strategy<Value = TensorData> {
    vec(0..4usize, 0..4).prop_flat_map(|shape| {
        let n = shape.iter().product();
        data(n).prop_map(move |data| TensorData::new(data, &shape).unwrap())
    })
}

/// Each cell of a `[rows, cols]` matrix is listed or not.
pub fn sparse() -> impl Strategy<Value = TensorData> {
    (0..4usize, 0..4usize)
        .prop_flat_map(|(rows, cols)| {
            vec(vec(any::<bool>(), cols), rows).prop_map(move |m| (m, cols))
        })
        .prop_flat_map(|(mask, cols)| {
            let col: Vec<i64> = mask
                .iter()
                .flat_map(|row| (0..).zip(row).filter(|(_, on)| **on).map(|(c, _)| c))
                .collect();
            let mut crow = vec![0i64];
            for row in &mask {
                crow.push(crow[crow.len() - 1] + row.iter().filter(|on| **on).count() as i64);
            }
            let shape = [mask.len(), cols];
            data(col.len()).prop_map(move |data| {
                TensorData::csr(data, crow.clone(), col.clone(), shape).unwrap()
            })
        })
}

pub fn tensor() -> impl Strategy<Value = TensorData> {
    prop_oneof![dense(), sparse()]
}

pub fn chunk() -> impl Strategy<Value = Chunk> {
    prop_oneof![
        vec(any::<u32>(), 0..5).prop_map(Chunk::from_tokens),
        (vec(any::<u8>(), 0..9), any::<Option<u32>>()).prop_map(|(data, expected_tokens)| {
            Chunk::Image {
                data: data.into(),
                format: "png".into(),
                expected_tokens,
                override_dimensions: None,
            }
        }),
        vec(any::<u8>(), 0..9).prop_map(|dmel| Chunk::Dmel { dmel: dmel.into() }),
    ]
}

pub fn datum() -> impl Strategy<Value = Datum> {
    let inputs = btree_map(".{0,8}", tensor(), 0..4);
    (vec(chunk(), 0..4), inputs).prop_map(|(chunks, loss_fn_inputs)| Datum {
        model_input: chunks.into_iter().collect(),
        loss_fn_inputs,
        ..Datum::default()
    })
}

fn finite() -> impl Strategy<Value = f32> {
    any::<f32>().prop_filter("JSON has no NaN", |x| x.is_finite())
}

fn id() -> impl Strategy<Value = u32> {
    0..=i32::MAX as u32
}

/// A tensor that both codecs carry: of a stated shape, which protobuf cannot tell from a scalar's.
fn shaped() -> impl Strategy<Value = TensorData> {
    tensor().prop_map(|tensor| match tensor.stated_shape() {
        Some([]) => TensorData::new(tensor.data().clone(), &[1]).unwrap(),
        _ => tensor,
    })
}

/// A chunk that both codecs carry.
fn common_chunk() -> impl Strategy<Value = Chunk> {
    let size =
        (any::<u32>(), any::<u32>()).prop_map(|(width, height)| ImageDimensions { width, height });
    let image = (vec(any::<u8>(), 0..9), option::of(id()), option::of(size));
    prop_oneof![
        vec(id(), 0..5).prop_map(Chunk::from_tokens),
        image.prop_map(|(data, expected_tokens, override_dimensions)| Chunk::Image {
            data: data.into(),
            format: "jpeg".into(),
            expected_tokens,
            override_dimensions,
        }),
        vec(any::<u8>(), 0..9).prop_map(|dmel| Chunk::Dmel { dmel: dmel.into() }),
    ]
}

fn config() -> impl Strategy<Value = Option<LossFnConfig>> {
    let number = any::<f64>().prop_filter("JSON has no NaN", |x| x.is_finite());
    let value =
        prop_oneof![number.prop_map(ConfigValue::Number), ".{0,5}".prop_map(ConfigValue::Text)];
    // No settings and an empty set of them are the same in protobuf.
    btree_map(".{0,8}", value, 0..4).prop_map(|all| (!all.is_empty()).then_some(all))
}

/// A request that both codecs carry.
pub fn pass_request() -> impl Strategy<Value = PassRequest<'static>> {
    let inputs = btree_map(".{0,8}", shaped(), 0..4);
    let datum = (vec(common_chunk(), 0..4), inputs).prop_map(|(chunks, loss_fn_inputs)| Datum {
        model_input: chunks.into_iter().collect(),
        loss_fn_inputs,
        ..Datum::default()
    });
    let parts = (vec(datum, 0..4), "[a-z_]{0,9}", config(), ".{0,9}", id());
    (any::<bool>(), parts).prop_map(
        |(forward, (data, loss_fn, loss_fn_config, model_id, seq_id))| PassRequest {
            pass: if forward { Pass::Forward } else { Pass::ForwardBackward },
            data: data.into(),
            loss_fn: loss_fn.into(),
            loss_fn_config,
            model_id,
            seq_id: seq_id.into(),
        },
    )
}

/// Where a datum comes from; in protobuf only.
pub fn provenance() -> impl Strategy<Value = Provenance> {
    let span = (any::<bool>(), ".{0,5}", 0..i64::MAX as u64, 0..9u64);
    let span = span.prop_map(|(sampled, sequence_id, offset, length)| ProvenanceSpan {
        source: if sampled { ProvenanceSource::Sampled } else { ProvenanceSource::Prompt },
        sequence_id,
        offset,
        length,
    });
    (vec(span.clone(), 1..4), vec(span, 0..4))
        .prop_map(|(model_input, loss_fn_inputs)| Provenance { model_input, loss_fn_inputs })
}

/// A result that both codecs carry: rank 1 or 2, rows only where there are columns.
pub fn output() -> impl Strategy<Value = ForwardBackwardOutput> {
    let tensor = prop_oneof![
        (0..4usize).prop_flat_map(|n| data(n).prop_map(TensorData::from)),
        (0..3usize, 1..3usize).prop_flat_map(|(rows, cols)| {
            data(rows * cols).prop_map(move |data| TensorData::new(data, &[rows, cols]).unwrap())
        }),
    ];
    let outputs = vec(btree_map("[a-c]", tensor, 0..3), 0..6);
    let metric = any::<f64>().prop_filter("JSON has no NaN", |x| x.is_finite());
    ("[A-Za-z]{1,9}", outputs, btree_map(".{0,9}", metric, 0..4)).prop_map(
        |(loss_fn_output_type, loss_fn_outputs, metrics)| ForwardBackwardOutput {
            loss_fn_output_type,
            loss_fn_outputs,
            metrics: metrics.into_iter().collect(),
        },
    )
}

/// A sample that both codecs carry: a row of likeliest tokens has at least one.
pub fn sample() -> impl Strategy<Value = SampleResponse> {
    let top = || option::of(vec(option::of(vec((id(), finite()), 1..4)), 0..4));
    let stop = prop_oneof![Just(StopReason::Stop), Just(StopReason::Length)];
    let sequence = (stop, vec(id(), 0..5), option::of(vec(finite(), 0..5)), top());
    let sequence = sequence.prop_map(|(stop_reason, tokens, logprobs, topk_logprobs)| {
        SampledSequence { stop_reason, tokens, logprobs, topk_logprobs, sequence_id: None }
    });
    let prompt = option::of(vec(option::of(finite()), 0..5));
    let alternatives =
        (shaped(), shaped()).prop_map(|(tokens, logprobs)| PromptAltTokens { tokens, logprobs });
    let rest = (option::of(shaped()), option::of(alternatives), id());
    (vec(sequence, 0..3), prompt, top(), rest).prop_map(
        |(sequences, prompt_logprobs, topk_prompt_logprobs, (target, alternatives, hits))| {
            SampleResponse {
                sequences,
                prompt_logprobs,
                topk_prompt_logprobs,
                target_prompt_logprobs: target,
                prompt_alt_tokens: alternatives,
                prompt_cache_hit_tokens: hits,
            }
        },
    )
}

/// A body with one byte changed, dropped or doubled, or cut short.
pub fn damaged(body: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (body, any::<proptest::sample::Index>(), any::<u8>(), 0..4).prop_map(
        |(mut body, at, byte, how)| {
            if body.is_empty() {
                return vec![byte];
            }
            let at = at.index(body.len());
            match how {
                0 => body[at] = byte,
                1 => drop(body.remove(at)),
                2 => body.insert(at, body[at]),
                _ => body.truncate(at),
            }
            body
        },
    )
}
