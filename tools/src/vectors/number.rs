//! Numbers of the files.

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

/// A number, which JSON can only name as a text where it is not finite.
#[derive(Clone, Copy)]
pub struct Number(pub f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Number(number) => number.as_f64(),
            Value::Bool(flag) => Some(f64::from(u8::from(flag))),
            Value::String(text) => match text.as_str() {
                "NaN" => Some(f64::NAN),
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                _ => None,
            },
            _ => None,
        }
        .map(Number)
        .ok_or_else(|| {
            de::Error::custom("expected a number, \"NaN\", \"Infinity\" or \"-Infinity\"")
        })
    }
}
