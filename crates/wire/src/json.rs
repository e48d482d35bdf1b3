//! The JSON codec: bytes to types and back, with errors that say where.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result, number_arrays::NumberArrays, words};

/// Writes the form that every server reads: no nulls, defaults spelled out, `type` tags present.
///
/// # Errors
/// [`Error::Encode`] with the path to the value, for NaN and infinities.
///
/// ```
/// use tinsmith_wire::{AdamParams, json};
/// let body = json::to_vec(&AdamParams::default().learning_rate(0.5))?;
/// assert!(String::from_utf8_lossy(&body).starts_with(r#"{"learning_rate":0.5,"beta1":0.9"#));
/// assert!(json::to_vec(&AdamParams::default().learning_rate(f64::NAN)).is_err());
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut body = Vec::with_capacity(128);
    append(&mut body, value)?;
    Ok(body)
}

/// As [`to_vec`], at the end of a buffer that may be used again for the next body.
///
/// # Errors
/// As [`to_vec`]; then what was added is incomplete.
///
/// ```
/// use tinsmith_wire::{AdamParams, json};
/// let mut body = b"data: ".to_vec();
/// json::append(&mut body, &AdamParams::default())?;
/// assert!(body.starts_with(b"data: {\"learning_rate\":"));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
pub fn append<T: Serialize>(body: &mut Vec<u8>, value: &T) -> Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(body, NumberArrays::new());
    value.serialize(&mut serializer).map_err(|_| encode_error(value))
}

/// Reads any form in use: missing tags and defaults, explicit nulls, unknown fields. Results may
/// hold `NaN`, `Infinity` and `-Infinity`, as Python writes them, or null for them.
///
/// # Errors
/// [`Error::Decode`] with the path to the value.
///
/// ```
/// use tinsmith_wire::{Datum, json};
/// let body = br#"{"model_input":{"chunks":[{"tokens":[1,2]}, {"tokens":[-3]}]}}"#;
/// let error = json::from_slice::<Datum>(body).unwrap_err();
/// assert!(error.to_string().starts_with("cannot read Datum from JSON: at `model_input.chunks[1].tokens[0]`"));
/// ```
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    match words::quoted(bytes) {
        None => Err(decode_error::<T>(bytes, |_, column| column)),
        Some(quoted) => serde_json::from_slice(&quoted).map_err(|_| {
            decode_error::<T>(&quoted, |line, column| words::column(bytes, line, column))
        }),
    }
}

/// Tracking the path costs time, so it is done only once something has failed.
fn encode_error<T: Serialize>(value: &T) -> Error {
    let mut track = serde_path_to_error::Track::new();
    let mut sink = serde_json::Serializer::new(std::io::sink());
    let result = value.serialize(serde_path_to_error::Serializer::new(&mut sink, &mut track));
    Error::Encode {
        what: type_name::<T>(),
        format: "JSON",
        path: track.path().to_string(),
        reason: result.map_or_else(|e| e.to_string(), |_| "failed once, then not again".into()),
    }
}

/// `column` tells where in the line of the sender's text a column of `bytes` is.
fn decode_error<T: DeserializeOwned>(
    bytes: &[u8],
    column: impl Fn(usize, usize) -> usize,
) -> Error {
    let located = |error: serde_json::Error| {
        let (reason, line) = (error.to_string(), error.line());
        match reason.strip_suffix(&format!(" at line {line} column {}", error.column())) {
            Some(what) => format!("{what} at line {line} column {}", column(line, error.column())),
            None => reason,
        }
    };
    let mut source = serde_json::Deserializer::from_slice(bytes);
    let (path, reason) = match serde_path_to_error::deserialize::<_, T>(&mut source) {
        Err(error) => (error.path().to_string(), located(error.into_inner())),
        Ok(_) => (".".to_owned(), source.end().map_or_else(located, |_| "unreadable".into())),
    };
    Error::Decode { what: type_name::<T>(), format: "JSON", path, reason }
}

/// The type's own name, without its path and lifetimes.
fn type_name<T>() -> &'static str {
    let full = std::any::type_name::<T>();
    let end = full.find('<').unwrap_or(full.len());
    let start = full[..end].rfind("::").map_or(0, |i| i + 2);
    full[start..].trim_end_matches("<'_>")
}
