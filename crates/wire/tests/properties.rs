//! For any tensor, any datum, any bytes.

mod support;

use proptest::{collection::vec, prelude::*};
use support::{damaged, datum, sparse, tensor};
use tinsmith_wire::*;

fn damaged_json() -> impl Strategy<Value = Vec<u8>> {
    damaged(datum().prop_map(|datum| json::to_vec(&datum).unwrap()))
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
    fn no_bytes_make_the_decoders_panic(bytes in prop_oneof![vec(any::<u8>(), 0..64), damaged_json()]) {
        let _ = json::from_slice::<Datum>(&bytes);
        let _ = json::from_slice::<TensorData>(&bytes);
        let _ = json::from_slice::<SampleRequest>(&bytes);
        let _ = json::from_slice::<ErrorBody>(&bytes).map(|body| body.message());
        let _ = FutureReply::<ForwardBackwardOutput>::from_json(&bytes);
    }
}
