//! For any tensor, any datum, any bytes.

use proptest::{collection::vec, prelude::*};
use tinsmith_wire::*;

fn data(n: usize) -> impl Strategy<Value = Data> {
    let finite = any::<f32>().prop_filter("JSON has no NaN", |x| x.is_finite());
    prop_oneof![
        vec(finite, n).prop_map(Data::from),
        vec(any::<i64>(), n).prop_map(Data::from),
    ]
}

fn dense() -> impl Strategy<Value = TensorData> {
    vec(0..4usize, 0..4).prop_flat_map(|shape| {
        let n = shape.iter().product();
        data(n).prop_map(move |data| TensorData::new(data, &shape).unwrap())
    })
}

/// Each cell of a `[rows, cols]` matrix is listed or not.
fn sparse() -> impl Strategy<Value = TensorData> {
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

fn tensor() -> impl Strategy<Value = TensorData> {
    prop_oneof![dense(), sparse()]
}

fn chunk() -> impl Strategy<Value = Chunk> {
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

fn datum() -> impl Strategy<Value = Datum> {
    let inputs = proptest::collection::btree_map(".{0,8}", tensor(), 0..4);
    (vec(chunk(), 0..4), inputs).prop_map(|(chunks, loss_fn_inputs)| Datum {
        model_input: chunks.into_iter().collect(),
        loss_fn_inputs,
        ..Datum::default()
    })
}

/// A JSON text with one byte changed, dropped or doubled.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    (datum(), any::<proptest::sample::Index>(), any::<u8>(), 0..3).prop_map(
        |(datum, at, byte, how)| {
            let mut text = json::to_vec(&datum).unwrap();
            let at = at.index(text.len());
            match how {
                0 => text[at] = byte,
                1 => drop(text.remove(at)),
                _ => text.insert(at, text[at]),
            }
            text
        },
    )
}

proptest! {
    #[test]
    fn tensors_survive_json_bit_for_bit(tensor in tensor()) {
        let back: TensorData = json::from_slice(&json::to_vec(&tensor).unwrap()).unwrap();
        prop_assert_eq!(&back, &tensor);
        if let (Data::F32(a), Data::F32(b)) = (back.data(), tensor.data()) {
            prop_assert!(a.iter().zip(&**b).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    /// The Python SDK writes every float32 as the double of the same value, and the dtype last.
    #[test]
    fn widened_floats_narrow_to_what_they_were(x in any::<f32>().prop_filter("finite", |x| x.is_finite())) {
        let text = serde_json::json!({"data": [f64::from(x)], "dtype": "float32"}).to_string();
        let tensor: TensorData = json::from_slice(text.as_bytes()).unwrap();
        prop_assert_eq!(tensor.as_f32().unwrap()[0].to_bits(), x.to_bits());
    }

    #[test]
    fn data_survive_json(datum in datum()) {
        let back: Datum = json::from_slice(&json::to_vec(&datum).unwrap()).unwrap();
        prop_assert_eq!(back, datum);
    }

    #[test]
    fn a_dense_form_has_every_listed_value(tensor in sparse()) {
        let dense = tensor.to_dense().unwrap();
        let shape = tensor.shape().into_owned();
        let csr = tensor.sparse().unwrap();
        let cell = |data: &Data, i: usize| match data {
            Data::F32(v) => f64::from(v[i]),
            Data::I64(v) => v[i] as f64,
        };
        let mut sum_of_listed = 0.0;
        for row in 0..shape[0] {
            for i in csr.crow[row] as usize..csr.crow[row + 1] as usize {
                let at = row * shape[1] + csr.col[i] as usize;
                prop_assert_eq!(cell(dense.data(), at), cell(tensor.data(), i));
                sum_of_listed += cell(tensor.data(), i).abs();
            }
        }
        let sum: f64 = (0..dense.data().len()).map(|i| cell(dense.data(), i).abs()).sum();
        prop_assert!((sum - sum_of_listed).abs() <= 1e-9 * sum);
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in prop_oneof![vec(any::<u8>(), 0..64), damaged()]) {
        let _ = json::from_slice::<Datum>(&bytes);
        let _ = json::from_slice::<TensorData>(&bytes);
        let _ = json::from_slice::<SampleRequest>(&bytes);
        let _ = json::from_slice::<ErrorBody>(&bytes).map(|body| body.message());
        let _ = FutureReply::<ForwardBackwardOutput>::from_json(&bytes);
    }
}
