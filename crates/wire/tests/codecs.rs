//! Both codecs, held against each other, and what they do about bodies that claim too much.

mod support;

use std::sync::Arc;

use proptest::{collection::vec, prelude::*};
use serde::{Serialize, de::DeserializeOwned};
use support::{damaged, output, pass_request, provenance, sample};
use tinsmith_wire::*;

/// Through both codecs and back.
fn survives<T>(value: &T) -> std::result::Result<(), TestCaseError>
where
    T: proto::Decode + Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let by_proto: T = proto::from_vec(proto::to_vec(value).unwrap()).unwrap();
    let by_json: T = json::from_slice(&json::to_vec(value).unwrap()).unwrap();
    prop_assert_eq!(&by_proto, value);
    prop_assert_eq!(&by_json, value);
    Ok(())
}

fn read_everything(body: &[u8]) {
    let _ = proto::from_vec::<PassRequest>(body.to_vec());
    let _ = proto::from_vec::<ForwardBackwardOutput>(body.to_vec());
    let _ = proto::from_vec::<SampleResponse>(body.to_vec());
    let _ = json::from_slice::<PassRequest>(body);
    let _ = json::from_slice::<ForwardBackwardOutput>(body);
    let _ = json::from_slice::<SampleResponse>(body);
}

proptest! {
    #[test]
    fn requests_survive_both_codecs(request in pass_request()) {
        survives(&request)?;
    }

    #[test]
    fn results_survive_both_codecs(output in output()) {
        survives(&output)?;
    }

    #[test]
    fn samples_survive_both_codecs(sample in sample()) {
        survives(&sample)?;
    }

    #[test]
    fn provenance_travels_in_protobuf_and_is_left_out_of_json(
        mut request in pass_request(), provenance in provenance(),
    ) {
        prop_assume!(!request.data.is_empty());
        let bare = request.clone();
        request.data.to_mut()[0].provenance = Some(Arc::new(provenance));
        let by_proto: PassRequest = proto::from_vec(proto::to_vec(&request).unwrap()).unwrap();
        prop_assert_eq!(&by_proto, &request);
        let by_json: PassRequest = json::from_slice(&json::to_vec(&request).unwrap()).unwrap();
        prop_assert_eq!(&by_json, &bare);
    }

    #[test]
    fn floats_survive_protobuf_bit_for_bit(bits in vec(any::<u32>(), 0..9)) {
        let values: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).collect();
        let output = ForwardBackwardOutput {
            loss_fn_outputs: vec![[("x".to_owned(), values.into())].into()],
            ..Default::default()
        };
        let back: ForwardBackwardOutput = proto::from_vec(proto::to_vec(&output).unwrap()).unwrap();
        let back = back.loss_fn_outputs[0]["x"].as_f32().unwrap();
        prop_assert_eq!(back.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), bits);
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(body in prop_oneof![
        vec(any::<u8>(), 0..64),
        damaged(pass_request().prop_map(|r| proto::to_vec(&r).unwrap())),
        damaged(pass_request().prop_map(|r| json::to_vec(&r).unwrap())),
        damaged(output().prop_map(|o| proto::to_vec(&o).unwrap())),
        damaged(sample().prop_map(|s| proto::to_vec(&s).unwrap())),
    ]) {
        read_everything(&body);
    }
}

/// A field of a message: its number, and bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// A field that is a number.
fn count(number: u8, mut value: u64) -> Vec<u8> {
    let mut field = vec![number << 3];
    while value >= 0x80 {
        field.push(value as u8 | 0x80);
        value >>= 7;
    }
    field.push(value as u8);
    field
}

fn int64s(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// A result of one record, with one field of this content.
fn record(fields: &[Vec<u8>], num_datums: u64) -> Vec<u8> {
    let entry = [field(1, b"x"), field(2, &fields.concat())].concat();
    let record = [field(2, &entry), count(3, num_datums)].concat();
    field(2, &record)
}

#[track_caller]
fn refused<T: proto::Decode + std::fmt::Debug>(body: Vec<u8>, at: &str, reason: &str) {
    let error = proto::from_vec::<T>(body).unwrap_err();
    let Error::Decode { path, reason: found, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((path.as_str(), found.as_str()), (at, reason));
}

/// Each of these would take more memory than there is, were it believed.
#[test]
fn claims_that_no_byte_backs_are_refused() {
    const HUGE: u64 = 1 << 40;
    refused::<ForwardBackwardOutput>(
        field(2, &count(3, HUGE)),
        "loss_fn_outputs",
        "1099511627776 data without a field, the limit is 65536",
    );
    refused::<ForwardBackwardOutput>(
        [field(2, &count(3, HUGE)), field(2, &count(3, i64::MIN as u64))].concat(),
        "loss_fn_outputs",
        "1099511627776 data without a field, the limit is 65536",
    );
    let two = field(2, &int64s(&[0, 4, 8]));
    refused::<ForwardBackwardOutput>(
        record(&[field(1, &[0; 8]), two.clone(), count(3, 1)], HUGE),
        "loss_fn_outputs[0].num_datums",
        "1099511627776, but there are offsets of 2 data",
    );
    refused::<ForwardBackwardOutput>(
        record(
            &[field(1, &[0; 8]), two, count(3, 1), field(4, &[0x80, 0x80, 0x80, 0x80, 0x10])],
            2,
        ),
        "loss_fn_outputs[0].fields.x.data of datum 0",
        "`shape` [0, 4294967296] holds 0 elements, `data` has 1",
    );
    refused::<ForwardBackwardOutput>(
        record(&[field(1, &[0; 8]), field(2, &int64s(&[0, i64::MAX])), count(3, 1)], 1),
        "loss_fn_outputs[0].fields.x.offsets",
        "datum 0 lies at 0..9223372036854775807 of 8 bytes",
    );
    // The same bytes over and over.
    refused::<ForwardBackwardOutput>(
        record(&[field(1, &[0; 8]), field(2, &int64s(&[0, 8, 0, 8])), count(3, 1)], 3),
        "loss_fn_outputs[0].fields.x.offsets",
        "datum 1 lies at 8..0 of 8 bytes",
    );
    // Rows of no tokens.
    refused::<SampleResponse>(
        field(3, &count(4, u32::MAX.into())),
        "topk_prompt_logprobs",
        "4294967295 rows of 0 tokens, but 0 ids and 0 logprobs",
    );
    // A datum whose input `w` is a tensor of 2^40 rows.
    let tensor = |encoding: Vec<u8>| {
        let tensor = [encoding, count(3, 1), field(4, &count(0, HUGE)[1..])].concat();
        let entry = [field(1, b"w"), field(2, &tensor)].concat();
        field(3, &field(2, &entry))
    };
    refused::<PassRequest>(
        tensor(field(1, &[0; 4])),
        "data[0].loss_fn_inputs.w",
        "`shape` [1099511627776] holds 1099511627776 elements, `data` has 1",
    );
    refused::<PassRequest>(
        tensor(field(2, &[])),
        "data[0].loss_fn_inputs.w",
        "`shape` is not valid CSR: a sparse tensor needs a shape of rank 2, got Some([1099511627776])",
    );
}

/// Names and shapes are given once a record and repeated for each of its data.
#[test]
fn what_a_record_repeats_is_short() {
    let output = ForwardBackwardOutput {
        loss_fn_outputs: vec![[("n".repeat(257), TensorData::from(vec![0.0f32]))].into()],
        ..Default::default()
    };
    refused::<ForwardBackwardOutput>(
        proto::to_vec(&output).unwrap(),
        "loss_fn_outputs[0].fields",
        "a name of 257 bytes, the limit is 256",
    );
    let offsets = field(2, &int64s(&[0, 4]));
    refused::<ForwardBackwardOutput>(
        record(&[field(1, &[0; 4]), offsets, count(3, 1), field(4, &[1; 16])], 1),
        "loss_fn_outputs[0].fields.x.trailing_shape",
        "rank 17, the limit is 16",
    );
}

#[test]
fn what_protobuf_cannot_carry_is_refused_by_path() {
    let mut request = PassRequest {
        pass: Pass::Forward,
        data: vec![Datum::default(); 2].into(),
        loss_fn: LossFn::CrossEntropy,
        loss_fn_config: None,
        model_id: "m".into(),
        seq_id: 1 << 31,
    };
    let message = |request: &PassRequest| proto::to_vec(request).unwrap_err().to_string();
    assert_eq!(
        message(&request),
        "cannot write PassRequest as protobuf: at `seq_id`: 2147483648 is above 2147483647"
    );
    request.seq_id = 1;
    request.loss_fn_config = Some([("centred".to_owned(), true.into())].into());
    assert_eq!(
        message(&request),
        "cannot write PassRequest as protobuf: at `loss_fn_config.centred`: true, and a setting is a number or a text here"
    );
    request.loss_fn_config = None;
    let pointer = Chunk::ImageAssetPointer {
        location: "store/1".into(),
        format: "png".into(),
        expected_tokens: None,
    };
    request.data.to_mut()[1].model_input = [pointer].into_iter().collect();
    assert_eq!(
        message(&request),
        "cannot write PassRequest as protobuf: at `data[1].model_input[0]`: an image_asset_pointer has no protobuf form; \
         send the image itself"
    );
    let sparse = TensorData::csr(vec![1.0f32], vec![0, 1], vec![0], [1, 1]).unwrap();
    let output = ForwardBackwardOutput {
        loss_fn_outputs: vec![Default::default(), [("x".to_owned(), sparse)].into()],
        ..Default::default()
    };
    assert_eq!(
        proto::to_vec(&output).unwrap_err().to_string(),
        "cannot write ForwardBackwardOutput as protobuf: at `loss_fn_outputs[1].x`: it is sparse, which a result cannot be; \
         make it dense"
    );
}

#[test]
fn what_makes_no_sense_is_refused_by_path() {
    // Tokens in five bytes, a chunk of no kind, a tensor of no dtype.
    let datum = |chunk: &[u8]| field(3, &field(1, chunk));
    refused::<PassRequest>(
        datum(&field(1, &field(1, &[0; 5]))),
        "data[0].model_input[0].encoded_text.tokens",
        "5 bytes are no whole number of 4-byte values",
    );
    refused::<PassRequest>(
        datum(&field(1, &field(1, &[0xff; 4]))),
        "data[0].model_input[0].encoded_text.tokens",
        "token 0 is -1, which is no token id",
    );
    refused::<PassRequest>(
        datum(&[]),
        "data[0].model_input[0]",
        "it is none of `encoded_text`, `image` and `dmel`",
    );
    let entry = [field(1, b"w"), field(2, &field(1, &[]))].concat();
    refused::<PassRequest>(
        field(3, &field(2, &entry)),
        "data[0].loss_fn_inputs.w.dense",
        "dtype 0 is not one of 1 to 4",
    );
    let error = proto::from_vec::<PassRequest>(b"<html>".to_vec()).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot read PassRequest from protobuf: at `.`: "),
        "{error}"
    );
}
