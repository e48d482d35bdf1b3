//! Numbers as servers write them. Python's `json` has the words `NaN`, `Infinity` and `-Infinity`,
//! pydantic and orjson write `null` for them, and pydantic can be told to write them as strings.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, Unexpected, Visitor},
};

/// A number that has not been given a type yet. What is not finite may be a word or null.
pub(crate) enum Number {
    Int(i64),
    /// An integer above the range of `i64`.
    Large(u64),
    Float(f64),
}

impl<'de> Deserialize<'de> for Number {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    #[inline]
    fn visit_i64<E>(self, v: i64) -> Result<Number, E> {
        Ok(Number::Int(v))
    }

    #[inline]
    fn visit_u64<E>(self, v: u64) -> Result<Number, E> {
        Ok(i64::try_from(v).map_or(Number::Large(v), Number::Int))
    }

    #[inline]
    fn visit_f64<E>(self, v: f64) -> Result<Number, E> {
        Ok(Number::Float(v))
    }

    fn visit_unit<E>(self) -> Result<Number, E> {
        Ok(Number::Float(f64::NAN))
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Number, E> {
        match word {
            "NaN" => Ok(Number::Float(f64::NAN)),
            "Infinity" => Ok(Number::Float(f64::INFINITY)),
            "-Infinity" => Ok(Number::Float(f64::NEG_INFINITY)),
            other => Err(E::invalid_type(Unexpected::Str(other), &self)),
        }
    }
}

impl From<Number> for f64 {
    #[inline]
    fn from(number: Number) -> f64 {
        match number {
            Number::Int(i) => i as f64,
            Number::Large(u) => u as f64,
            Number::Float(x) => x,
        }
    }
}

impl From<Number> for f32 {
    #[inline]
    fn from(number: Number) -> f32 {
        match number {
            Number::Int(i) => i as f32,
            Number::Large(u) => u as f32,
            Number::Float(x) => narrowed(x),
        }
    }
}

/// The `f32` that a number read as `f64` stands for. Half-way between two of them, `x` may be a
/// decimal that was written for one and has been rounded once already; then it is that one.
/// `7.038531e-26` is such a decimal.
#[inline]
fn narrowed(x: f64) -> f32 {
    const CUT_OFF: u32 = f64::MANTISSA_DIGITS - f32::MANTISSA_DIGITS;
    let is_half_way = x.to_bits() << (u64::BITS - CUT_OFF) == 1 << (u64::BITS - 1);
    if is_half_way { nearest_in_writing(x) } else { x as f32 }
}

#[cold]
fn nearest_in_writing(x: f64) -> f32 {
    let nearest = x as f32;
    let other = if f64::from(nearest) < x { nearest.next_up() } else { nearest.next_down() };
    if other.to_string().parse() == Ok(x) { other } else { nearest }
}

/// An `f32` that may not be finite.
#[derive(Clone, Copy)]
pub(crate) struct Float(f32);

impl<'de> Deserialize<'de> for Float {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Number::deserialize(deserializer).map(|number| Float(number.into()))
    }
}

/// A list of numbers, any of which may not be finite.
pub(crate) fn floats<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
    let floats = Vec::<Float>::deserialize(deserializer)?;
    Ok(floats.into_iter().map(|Float(x)| x).collect())
}

/// As [`floats`], or null for none.
pub(crate) fn optional_floats<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<f32>>, D::Error> {
    let floats = Option::<Vec<Float>>::deserialize(deserializer)?;
    Ok(floats.map(|floats| floats.into_iter().map(|Float(x)| x).collect()))
}

/// As [`optional_floats`], of a list in which null means none.
pub(crate) fn optional_or_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Option<f32>>>, D::Error> {
    let floats = Option::<Vec<Option<Float>>>::deserialize(deserializer)?;
    let float = |x: Option<Float>| x.map(|Float(x)| x);
    Ok(floats.map(|floats| floats.into_iter().map(float).collect()))
}

type Pairs = Vec<(u32, f32)>;

/// As [`optional_or_null`], of pairs of a token and a number for each place.
pub(crate) fn optional_pairs<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Option<Pairs>>>, D::Error> {
    let places = Option::<Vec<Option<Vec<(u32, Float)>>>>::deserialize(deserializer)?;
    let pairs = |pairs: Vec<(u32, Float)>| pairs.into_iter().map(|(id, Float(x))| (id, x));
    let place = |place: Option<Vec<_>>| place.map(|all| pairs(all).collect());
    Ok(places.map(|places| places.into_iter().map(place).collect()))
}
