//! What is written is byte for byte what serde_json writes.

mod support;

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::select};
use serde::Serialize;
use support::{datum, output, pass_request, sample};
use tinsmith_wire::*;

fn text<T: Serialize>(value: &T) -> String {
    String::from_utf8(json::to_vec(value).unwrap()).unwrap()
}

/// Of numbers that are all written in another way: short ones, long ones, the ends of ranges.
fn float() -> impl Strategy<Value = f32> {
    prop_oneof![
        any::<f32>().prop_filter("finite", |x| x.is_finite()),
        (-2_000_000..2_000_000i32).prop_map(|i| i as f32),
        (-2000..2000i32).prop_map(|i| i as f32 / 16.0),
        -5.0f32..0.0,
    ]
}

fn integer() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), -2000..2_000_000i64]
}

/// Any JSON, with arrays of arrays, and of numbers among other things.
fn tree() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        integer().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,6}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Into::into),
            vec((".{0,3}", inner), 0..4)
                .prop_map(|all| serde_json::Value::Object(all.into_iter().collect())),
        ]
    })
}

#[test]
fn numbers_are_written_by_hand_as_they_should_be() {
    assert_eq!(
        text(&[0.0f32, -0.0, 1.0, 10.0, 999_999.0, 1_000_000.0, -1.0, 0.1, 1e-7, 1e16, f32::MAX]),
        "[0.0,-0.0,1.0,10.0,999999.0,1000000.0,-1.0,0.1,1e-7,1e+16,3.4028235e+38]"
    );
    assert_eq!(
        text(&[0i64, 7, 10, 123, 1000, 99_999, 100_000, 999_999, 1_000_000, -1, i64::MIN]),
        "[0,7,10,123,1000,99999,100000,999999,1000000,-1,-9223372036854775808]"
    );
    assert_eq!(
        text(&(1, "a", 2, (), 3, [4], Some(5), true, 6.5)),
        r#"[1,"a",2,null,3,[4],5,true,6.5]"#
    );
    assert_eq!(text(&[vec![], vec![1], vec![2, 3]]), "[[],[1],[2,3]]");
    let numbered: BTreeMap<i32, Vec<u8>> = [(-1, vec![1, 2]), (30, vec![])].into();
    assert_eq!(text(&numbered), r#"{"-1":[1,2],"30":[]}"#);
    assert_eq!((text(&7), text(&0.5), text(&"x")), ("7".into(), "0.5".into(), r#""x""#.into()));
}

/// Every length of text that an array may have gathered when it is written.
#[test]
fn long_arrays_are_written_whole() {
    for length in 0..2000 {
        let numbers: Vec<i64> = (0..length).map(|i| i * i * i).collect();
        let texts: Vec<String> = numbers.iter().map(i64::to_string).collect();
        assert_eq!(text(&numbers), format!("[{}]", texts.join(",")));
    }
}

#[test]
fn what_cannot_be_written_is_refused_by_path_after_any_numbers() {
    let tensor = TensorData::from(vec![1.0, 2.0, f32::NAN]);
    let error = json::to_vec(&[&TensorData::from(vec![1i64]), &tensor]).unwrap_err().to_string();
    assert!(error.contains("at `[1].data`: element 2 is NaN"), "{error}");
}

proptest! {
    #[test]
    fn messages_are_as_serde_json_writes_them(
        request in pass_request(), output in output(), sample in sample(), datum in datum(), tree in tree(),
    ) {
        prop_assert_eq!(text(&request), serde_json::to_string(&request).unwrap());
        prop_assert_eq!(text(&output), serde_json::to_string(&output).unwrap());
        prop_assert_eq!(text(&sample), serde_json::to_string(&sample).unwrap());
        prop_assert_eq!(text(&datum), serde_json::to_string(&datum).unwrap());
        prop_assert_eq!(text(&tree), serde_json::to_string(&tree).unwrap());
    }

    #[test]
    fn numbers_are_as_serde_json_writes_them(
        floats in vec(float(), 0..300), integers in vec(integer(), 0..300), doubles in vec(any::<f64>(), 0..9),
        before in select(vec!["", "data: "]),
    ) {
        let narrow: Vec<u32> = integers.iter().map(|&i| i as u32).collect();
        let bytes: Vec<_> = integers.iter().map(|&i| (i as u8, i as i8, i as u16, i as i16)).collect();
        let words: Vec<_> = integers.iter().map(|&i| (i as i32, i as u64, i as u128, i128::from(i))).collect();
        let all = (floats, integers, narrow, bytes, words, doubles);
        let mut body = before.as_bytes().to_vec();
        json::append(&mut body, &all).unwrap();
        prop_assert_eq!(String::from_utf8(body).unwrap(), before.to_owned() + &serde_json::to_string(&all).unwrap());
    }
}
