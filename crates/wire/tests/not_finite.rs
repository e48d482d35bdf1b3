//! NaN and infinities as servers write them: Python's words, null, and words in quotes.

mod support;

use proptest::{collection::vec, prelude::*, sample::select};
use serde::{Serialize, de::DeserializeOwned};
use support::{datum, output, sample};
use tinsmith_wire::*;

fn read<T: DeserializeOwned>(text: &str) -> T {
    json::from_slice(text.as_bytes()).unwrap()
}

fn refusal<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
    json::from_slice::<T>(text.as_bytes()).unwrap_err().to_string()
}

/// Equal, and NaN where NaN is.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
}

const ALL: &str = r#"[-1.0, NaN, Infinity, -Infinity, null, "NaN", "Infinity", "-Infinity", 2]"#;
const READ: [f32; 9] = [
    -1.0,
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    2.0,
];

#[test]
fn tensors_read_them_whether_the_dtype_comes_first_or_last() {
    let first: TensorData = read(&format!(r#"{{"dtype":"float32","data":{ALL}}}"#));
    assert!(same(first.as_f32().unwrap(), &READ));
    let last: TensorData = read(&format!(r#"{{"data":{ALL},"dtype":"float32","shape":[9]}}"#));
    assert!(same(last.as_f32().unwrap(), &READ));
}

#[test]
fn metrics_read_them() {
    let output: ForwardBackwardOutput = read(
        r#"{"loss_fn_outputs":[],"metrics":{"loss:sum":NaN,"a":-Infinity,"b":null,"c":Infinity,"d":3}}"#,
    );
    let metrics = output.metrics;
    assert!(metrics["loss:sum"].is_nan() && metrics["b"].is_nan());
    assert_eq!((metrics["a"], metrics["c"]), (f64::NEG_INFINITY, f64::INFINITY));
    assert_eq!(metrics.exact_u64("d"), Some(3));
    let step = FutureReply::<OptimStepResponse>::from_json(br#"{"metrics":{"grad_norm":NaN}}"#);
    assert!(
        matches!(step.unwrap(), FutureReply::Ready(step) if step.metrics["grad_norm"].is_nan())
    );
}

#[test]
fn samples_read_them_and_a_null_for_no_logprob_stays_none() {
    let response: SampleResponse = read(&format!(
        r#"{{"sequences":[{{"stop_reason":"stop","tokens":[1],"logprobs":{ALL},
             "topk_logprobs":[null,[[7,null],[8,-Infinity]]]}}],
            "prompt_logprobs":[null,NaN,-Infinity,-2.5],"topk_prompt_logprobs":[[[3,NaN]]]}}"#
    ));
    let sequence = &response.sequences[0];
    assert!(same(sequence.logprobs.as_deref().unwrap(), &READ));
    let places = sequence.topk_logprobs.as_ref().unwrap();
    assert!(places[0].is_none());
    let [(7, nothing), (8, f32::NEG_INFINITY)] = places[1].as_deref().unwrap() else {
        panic!("{places:?}");
    };
    assert!(nothing.is_nan());
    let prompt = response.prompt_logprobs.unwrap();
    assert_eq!((prompt[0], prompt[2], prompt[3]), (None, Some(f32::NEG_INFINITY), Some(-2.5)));
    assert!(prompt[1].unwrap().is_nan());
    assert!(response.topk_prompt_logprobs.unwrap()[0].as_ref().unwrap()[0].1.is_nan());
}

#[test]
fn integers_refuse_them() {
    for (text, path) in [
        (r#"{"stop_reason":"stop","tokens":[1,NaN]}"#, "tokens[1]"),
        (r#"{"stop_reason":"stop","tokens":[1,null]}"#, "tokens[1]"),
        (
            r#"{"stop_reason":"stop","tokens":[],"topk_logprobs":[[[NaN,-1.0]]]}"#,
            "topk_logprobs[0][0][0]",
        ),
    ] {
        assert!(refusal::<SampledSequence>(text).contains(&format!("`{path}`")), "{text}");
    }
    for number in ["NaN", "Infinity", "null", "\"NaN\""] {
        for text in [
            format!(r#"{{"data":[1,{number}],"dtype":"int64"}}"#),
            format!(r#"{{"dtype":"int64","data":[1,{number}]}}"#),
        ] {
            assert!(refusal::<TensorData>(&text).contains("TensorData"), "{text}");
        }
    }
    assert!(json::from_slice::<Submitted>(br#"{"request_id":"r","model_id":Nan}"#).is_err());
    assert!(json::from_slice::<Metrics>(br#"{"x":"nothing"}"#).is_err());
}

#[test]
fn errors_point_at_the_text_that_was_sent() {
    let text = "{\"dtype\":\"float32\",\n \"data\":[NaN,-Infinity,\n NaN,NaN,\"x\",NaN]}";
    // The last byte of `"x"` is the 12th of its line.
    assert!(refusal::<TensorData>(text).ends_with("expected a number at line 3 column 12"));
    let text = "{\"stop_reason\":\"stop\",\"logprobs\":[NaN],\"tokens\":[NaN]}";
    let column = text.rfind("NaN").unwrap() + 3;
    let message = refusal::<SampledSequence>(text);
    assert!(message.ends_with(&format!("line 1 column {column}")), "{message}");
    let text = r#"{"data":[NaN,1.0],"dtype":"float32"} junk"#;
    let message = refusal::<TensorData>(text);
    assert!(message.ends_with("trailing characters at line 1 column 38"), "{message}");
}

#[test]
fn what_is_not_finite_is_not_written() {
    let sequence =
        |logprobs, topk_logprobs| SampledSequence { logprobs, topk_logprobs, ..Default::default() };
    for sequence in [
        sequence(Some(vec![f32::NAN]), None),
        sequence(None, Some(vec![Some(vec![(1, f32::NEG_INFINITY)])])),
    ] {
        assert!(json::to_vec(&sequence).is_err());
    }
    let prompt_logprobs = Some(vec![None, Some(f32::NAN)]);
    let error =
        json::to_vec(&SampleResponse { prompt_logprobs, ..Default::default() }).unwrap_err();
    assert!(error.to_string().contains("`prompt_logprobs`"), "{error}");
}

/// The one positive `f32` (of all 2^31, by trial) whose shortest decimal, rounded to `f64` first,
/// ends as another.
#[test]
fn a_decimal_that_is_half_way_between_two_floats_as_a_double_reads_as_the_one_it_was_written_for() {
    let x = 7.038531e-26f32;
    assert_eq!(x.to_bits(), 0x15ae_43fd);
    assert_ne!("7.038531e-26".parse::<f64>().unwrap() as f32, x);
    for sign in ["", "-"] {
        for text in [
            format!(r#"{{"data":[{sign}7.038531e-26],"dtype":"float32"}}"#),
            format!(r#"{{"dtype":"float32","data":[{sign}7.038531e-26]}}"#),
        ] {
            assert_eq!(read::<TensorData>(&text).as_f32().unwrap()[0].abs().to_bits(), x.to_bits());
        }
    }
    // Exactly half-way, and written for neither: to even, which is 1.
    let half_way: TensorData = read(r#"{"data":[1.000000059604644775390625],"dtype":"float32"}"#);
    assert_eq!(half_way.as_f32().unwrap(), [1.0]);
}

const WORDS: [&str; 4] = ["NaN", "Infinity", "-Infinity", "null"];

fn value(word: &str) -> f32 {
    match word {
        "Infinity" => f32::INFINITY,
        "-Infinity" => f32::NEG_INFINITY,
        _ => f32::NAN,
    }
}

/// As serde_json reads it, with no second reading.
fn reads_as_before<T>(value: &T) -> std::result::Result<(), TestCaseError>
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let body = json::to_vec(value).unwrap();
    prop_assert_eq!(&serde_json::from_slice::<T>(&body).unwrap(), value);
    prop_assert_eq!(&json::from_slice::<T>(&body).unwrap(), value);
    Ok(())
}

proptest! {
    #[test]
    fn finite_messages_read_as_before(output in output(), sample in sample(), datum in datum()) {
        reads_as_before(&output)?;
        reads_as_before(&sample)?;
        reads_as_before(&datum)?;
    }

    #[test]
    fn a_word_reads_at_any_place_of_an_array(
        finite in vec(any::<f32>().prop_filter("finite", |x| x.is_finite()), 0..6),
        words in vec((any::<prop::sample::Index>(), select(&WORDS[..])), 1..4),
        gap in select(vec!["", " ", "\n\t"]),
        is_dtype_first in any::<bool>(),
    ) {
        let mut texts: Vec<String> = finite.iter().map(|x| format!("{x:?}")).collect();
        let mut wanted = finite;
        for (at, word) in words {
            let at = at.index(texts.len() + 1);
            texts.insert(at, word.to_owned());
            wanted.insert(at, value(word));
        }
        let list = texts.join(&format!("{gap},{gap}"));
        let text = match is_dtype_first {
            true => format!(r#"{{"dtype":"float32","data":[{gap}{list}{gap}]}}"#),
            false => format!(r#"{{"data":[{gap}{list}{gap}],"dtype":"float32"}}"#),
        };
        let tensor: TensorData = read(&text);
        prop_assert!(same(tensor.as_f32().unwrap(), &wanted), "{text}: {tensor:?}");
    }

    #[test]
    fn words_within_strings_stay_text(
        before in "[a-zA-Z \"\\\\]{0,4}", word in select(&WORDS[..3]), after in ".{0,4}",
    ) {
        let reason = format!("{before}{word}{after}");
        let quoted = serde_json::to_string(&reason).unwrap();
        // A bare word beside it makes sure that the body is read the second way.
        let text = format!(r#"{{"type":"try_again","queue_state_reason":{quoted},"eta":NaN}}"#);
        let reply: TryAgain = read(&text);
        prop_assert_eq!(reply.queue_state_reason, Some(reason));
    }
}
