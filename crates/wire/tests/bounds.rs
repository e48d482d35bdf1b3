//! Memory stays in proportion to a message, whatever sizes it claims.

use serde::de::DeserializeOwned;
use tinsmith_wire::*;

/// One row of `cols` columns, with one value.
fn row(cols: usize) -> TensorData {
    TensorData::csr(vec![7i64], vec![0, 1], vec![3], [1, cols]).unwrap()
}

/// The limit of a tensor that holds three numbers, a value and two offsets: 2^22 + 3 * 2^12.
const MOST_OF_A_ROW: usize = 4_194_304 + 3 * 4096;

#[test]
fn a_dense_form_is_made_up_to_the_limit_and_refused_above() {
    let dense = row(MOST_OF_A_ROW).to_dense().unwrap();
    let values = dense.as_i64().unwrap();
    assert_eq!((values.len(), values[3], values.iter().sum::<i64>()), (MOST_OF_A_ROW, 7, 7));
    for cols in [MOST_OF_A_ROW + 1, 500_000_000, usize::MAX] {
        let error = row(cols).to_dense().unwrap_err();
        assert_eq!(error, Error::TooLarge { shape: vec![1, cols], limit: MOST_OF_A_ROW });
    }
    let message = row(500_000_000).to_dense().unwrap_err().to_string();
    assert_eq!(
        message,
        "a sparse tensor of shape [1, 500000000] has 500000000 elements as a dense one, and lists \
         so few that the limit is 4206592; make its shape smaller, or send it dense"
    );
}

#[test]
fn rows_and_values_raise_the_limit() {
    // 2000 rows of 4096 columns and no value: twice what one row may have.
    let empty = TensorData::csr(Vec::<f32>::new(), vec![0; 2001], vec![], [2000, 4096]).unwrap();
    assert_eq!(empty.to_dense().unwrap().as_f32().unwrap().len(), 8_192_000);
}

#[test]
fn a_shape_of_more_than_the_address_space_is_refused_and_does_not_wrap() {
    let tensor = TensorData::csr(vec![1.0f32], vec![0, 0, 1], vec![0], [2, usize::MAX]).unwrap();
    assert_eq!(tensor.elem_count(), usize::MAX);
    assert!(matches!(tensor.to_dense(), Err(Error::TooLarge { .. })));
}

#[test]
fn sparse_shapes_from_either_codec_claim_rows_only_with_offsets() {
    let text = r#"{"dtype":"int64","data":[],"shape":[4000000000,1],"sparse_crow_indices":[0],"sparse_col_indices":[]}"#;
    let error = json::from_slice::<TensorData>(text.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("4000000000 rows need 4000000000 + 1 offsets, got 1"), "{error}");
    let datum = Datum::new(ModelInput::from_tokens(vec![1])).with("weights", row(500_000_000));
    let request = PassRequest {
        pass: Pass::Forward,
        data: vec![datum].into(),
        loss_fn: LossFn::CrossEntropy,
        loss_fn_config: None,
        model_id: "m".into(),
        seq_id: 1,
    };
    let bodies = (json::to_vec(&request).unwrap(), proto::to_vec(&request).unwrap());
    let by_json: PassRequest = json::from_slice(&bodies.0).unwrap();
    let by_proto: PassRequest = proto::from_vec(bodies.1).unwrap();
    for read in [by_json, by_proto] {
        let weights = read.data[0].input("weights").unwrap();
        assert!(matches!(weights.to_dense(), Err(Error::TooLarge { .. })));
    }
}

#[test]
fn dense_shapes_hold_what_the_data_hold() {
    for shape in [vec![500_000_000], vec![1 << 40, 1 << 40], vec![usize::MAX, 2]] {
        let error = TensorData::new(vec![1.0f32], &shape).unwrap_err();
        assert_eq!(error, Error::Shape { shape, len: 1 });
    }
}

#[test]
fn ragged_rows_are_refused_before_memory_is_taken_for_all() {
    // As many columns as the first row has, in every row, would be 4 TiB.
    struct Row(usize);
    impl AsRef<[f32]> for Row {
        fn as_ref(&self) -> &[f32] {
            static CELLS: [f32; 1 << 20] = [0.0; 1 << 20];
            &CELLS[..self.0]
        }
    }
    let rows: Vec<Row> = (0..1 << 20).map(|i| Row(if i == 0 { 1 << 20 } else { 0 })).collect();
    let error = TensorData::from_rows::<f32, _>(&rows).unwrap_err();
    assert_eq!(error, Error::Ragged { row: 1, found: 0, cols: 1 << 20 });
}

fn nested(open: &str, inner: &str, close: &str) -> String {
    [&open.repeat(100_000), inner, &close.repeat(100_000)].concat()
}

#[test]
fn json_that_is_nested_too_deep_is_an_error() {
    fn refused<T: DeserializeOwned + std::fmt::Debug>(before: &str, inner: &str, after: &str) {
        let body = [before, inner, after].concat();
        let error = json::from_slice::<T>(body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("recursion limit exceeded"), "{error}");
    }
    let lists = nested("[", "0", "]");
    let objects = nested(r#"{"a":"#, "0", "}");
    for deep in [&lists, &objects, &nested("[", "NaN", "]")] {
        refused::<ErrorBody>(r#"{"detail":"#, deep, "}");
        refused::<CreateSessionRequest>(r#"{"user_metadata":{"a":"#, deep, "}}");
        refused::<LoadWeights>("", deep, "");
    }
    let node = r#"{"op":"output","name":"o","target":"o","args":"#;
    refused::<GraphNode>(node, &lists, "}");
    refused::<GraphNode>(node, &nested(r#"[{"tuple":"#, "[]", "}]"), "}");
    // What nobody asks for is skipped, and takes no stack.
    let body = format!(r#"{{"request_id":"r","later":{lists}}}"#);
    assert_eq!(json::from_slice::<Submitted>(body.as_bytes()).unwrap().request_id, "r");
}

#[test]
fn protobuf_that_is_nested_too_deep_is_an_error() {
    // Groups of the unknown field 15, each within the one before.
    let body = [vec![15 << 3 | 3; 100_000], vec![15 << 3 | 4; 100_000]].concat();
    let error = proto::from_vec::<SampleResponse>(body).unwrap_err().to_string();
    assert!(error.contains("recursion limit reached"), "{error}");
}
